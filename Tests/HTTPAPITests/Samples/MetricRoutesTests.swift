// Samples and the metrics computed from them, over HTTP.

import Domain
import HTTPTypes
import HummingbirdTesting
import TestSupport
import Testing

@Suite struct MetricRoutesTests {
    private func timing(_ seconds: Double, _ more: [JSON.Member] = []) -> JSON {
        .object(
            [
                .init(name: "kind", value: "timing"), .init(name: "name", value: "load"),
                .init(name: "duration_seconds", value: .decimal(seconds)),
            ] + more)
    }

    // MARK: Recording

    @Test func takesOneManyAndLines() async throws {
        try await withAPI { api in
            let one = try await api.json(.post, "/v1/samples", timing(1.5))
            #expect(one.status == .accepted)
            #expect(try one.json == ["accepted": 1])
            let many: JSON = ["samples": [timing(1), timing(2)]]
            #expect(try await api.json(.post, "/v1/samples", many).json == ["accepted": 2])
            let lines = timing(3).text + "\r\n\n" + timing(4).text
            let answer = try await api.send(
                .post, "/v1/samples", lines, headers: [.contentType: "application/x-ndjson"])
            #expect(try answer.json == ["accepted": 2])
            #expect(try await api.json(.post, "/v1/samples", ["samples": []]).json == ["accepted": 0])
            #expect(try await api.send(.get, "/v1/metrics/timings").json["items"]?[0]?["count"] == 5)
        }
    }

    @Test func keepsAllOrNone() async throws {
        try await withAPI { api in
            let body: JSON = ["samples": [timing(1), timing(-1), timing(2, [.init(name: "typo", value: 1)])]]
            let problem = try await api.json(.post, "/v1/samples", body).expectProblem(.validationFailed, status: 422)
            #expect(problem["errors"]?[0]?["field"] == "samples[1].duration_seconds")
            #expect(problem["errors"]?[1]?["field"] == "samples[2].typo")
            let lines = timing(1).text + "\n{\"kind\":\n"
            let malformed = try await api.send(
                .post, "/v1/samples", lines, headers: [.contentType: "application/x-ndjson"])
            try malformed.expectProblem(.malformedJSON, status: 400)
            #expect(try malformed.json["detail"]?.stringValue?.hasPrefix("samples[1]:") == true)
            #expect(try await api.send(.get, "/v1/samples").json["items"] == [])
        }
    }

    @Test func refusesBadSamples() async throws {
        try await withAPI { api in
            let bad: [JSON] = [
                [:], ["kind": "timing"], ["kind": "timer", "name": "x"], 1, [], "x",
                ["kind": "timing", "name": "", "duration_seconds": 1],
                ["kind": "timing", "name": "a\u{7}", "duration_seconds": 1],
                ["kind": "timing", "name": .string(String(repeating: "n", count: 129)), "duration_seconds": 1],
                ["kind": "timing", "name": "x", "duration_seconds": "1"],
                ["kind": "timing", "name": "x", "duration_seconds": nil],
                ["kind": "timing", "name": "x", "duration_seconds": 1, "outcome": "bad"],
                ["kind": "timing", "name": "x", "duration_seconds": 1, "cache": true],
                ["kind": "timing", "name": "x", "duration_seconds": 1, "value": 1],
                ["kind": "timing", "name": "x", "duration_seconds": 1, "session_id": ".."],
                ["kind": "timing", "name": "x", "duration_seconds": 1, "recorded_at": "yesterday"],
                ["kind": "timing", "name": "x", "duration_seconds": 1, "labels": ["a": 1]],
                ["kind": "timing", "name": "x", "duration_seconds": 1, "labels": ["a"]],
                ["kind": "memory", "name": "x", "rss_bytes": 1, "vms_bytes": 1],
                ["kind": "memory", "name": "x", "rss_bytes": .decimal(1.5), "vms_bytes": 1, "percent": 1],
                ["kind": "memory", "name": "x", "rss_bytes": 1, "vms_bytes": 1, "percent": 101],
                ["kind": "memory", "name": "x", "rss_bytes": 1, "vms_bytes": .integer(1 << 53), "percent": 1],
                ["kind": "gauge", "name": "x"], ["kind": "gauge", "name": "x", "value": 1, "variant": "v"],
                ["samples": 1], ["samples": [1]], ["samples": [], "more": 1],
            ]
            for body in bad {
                try await api.json(.post, "/v1/samples", body).expectProblem(.validationFailed, status: 422)
            }
            let labels = (0..<9).map { JSON.Member(name: "l\($0)", value: "v") }
            try await api.json(
                .post, "/v1/samples", timing(1, [.init(name: "labels", value: .object(labels))])
            ).expectProblem(.validationFailed, status: 422)
            let many = JSON.array(Array(repeating: timing(1), count: Limits.maxSamplesPerRequest + 1))
            try await api.json(.post, "/v1/samples", ["samples": many])
                .expectProblem(.validationFailed, status: 422)
            try await api.send(.post, "/v1/samples", "").expectProblem(.malformedJSON, status: 400)
            try await api.send(.post, "/v1/samples", "x", headers: [.contentType: "text/csv"])
                .expectProblem(.unsupportedMediaType, status: 415)
            #expect(try await api.send(.get, "/v1/samples").json["items"] == [])
        }
    }

    @Test func takesClocksThatDifferALittle() async throws {
        try await withAPI { api in
            let lead = api.clock.now.advanced(milliseconds: Limits.maxSampleLeadMilliseconds)
            let early = timing(1, [.init(name: "recorded_at", value: .instant(lead))])
            #expect(try await api.json(.post, "/v1/samples", early).status == .accepted)
            let later = timing(1, [.init(name: "recorded_at", value: .instant(lead.advanced(milliseconds: 1)))])
            try await api.json(.post, "/v1/samples", later).expectProblem(.validationFailed, status: 422)
        }
    }

    @Test func keepsNothingWithMonitoringOff() async throws {
        try await withAPI { api in
            try await api.json(.patch, "/v1/config", ["enable_monitoring": false])
            let answer = try await api.json(.post, "/v1/samples", timing(1))
            #expect(answer.status == .accepted)
            #expect(try answer.json == ["accepted": 0, "monitoring": "disabled"])
            #expect(try await api.send(.get, "/v1/samples").json["items"] == [])
            #expect(try await api.send(.get, "/v1/metrics/summary").json["monitoring"] == "disabled")
        }
    }

    @Test func listsSamplesAsTheyCame() async throws {
        try await withAPI { api in
            let sample: JSON = [
                "kind": "timing", "name": "load", "recorded_at": "2026-11-23T07:14:00.123Z",
                "duration_seconds": .decimal(0.25), "outcome": "error", "cache": "hit", "variant": "original",
                "session_id": "s", "labels": ["a": "b"],
            ]
            try await api.json(.post, "/v1/samples", sample)
            #expect(try await api.send(.get, "/v1/samples").json["items"] == [sample])
            #expect(try await api.send(.get, "/v1/samples?variant=other").json["items"] == [])
            #expect(try await api.send(.get, "/v1/samples?since=2026-11-23T07:14:00.124Z").json["items"] == [])
            try await api.send(.get, "/v1/samples?kind=x").expectProblem(.validationFailed, status: 422)
            try await api.send(.get, "/v1/samples?nmae=x").expectProblem(.validationFailed, status: 422)
        }
    }

    // MARK: Querying

    @Test func tellsDistributions() async throws {
        try await withAPI { api in
            let samples = (1...100).map { (number: Int) -> JSON in
                let variant: JSON = number % 2 == 0 ? "b" : "a"
                let cache: JSON = number <= 25 ? "hit" : "miss"
                let outcome: JSON = number == 1 ? "error" : "ok"
                return timing(
                    Double(number) / 100,
                    [
                        .init(name: "variant", value: variant), .init(name: "cache", value: cache),
                        .init(name: "outcome", value: outcome),
                    ])
            }
            try await api.json(.post, "/v1/samples", ["samples": .array(samples)])
            let answer = try await api.send(.get, "/v1/metrics/timings").json
            #expect(answer["resolution"] == "raw")
            let item = try #require(answer["items"]?[0])
            #expect(item["name"] == "load")
            #expect(item["count"] == 100)
            #expect(item["error_count"] == 1)
            #expect(item["cache_hit_ratio"]?.doubleValue == 0.25)
            let figures: [(String, Double)] = [
                ("min_seconds", 0.01), ("max_seconds", 1), ("mean_seconds", 0.505), ("p50_seconds", 0.505),
                ("p90_seconds", 0.901), ("p95_seconds", 0.9505), ("p99_seconds", 0.9901),
            ]
            for (name, expected) in figures {
                #expect(abs(item[name]!.doubleValue! - expected) < 1e-9, "\(name)")
            }
            let groups = try await api.send(.get, "/v1/metrics/timings?group_by=variant").json["items"]
            #expect(groups?[0]?["variant"] == "a")
            #expect(groups?[1]?["count"] == 50)
            #expect(try await api.send(.get, "/v1/metrics/timings?name=other").json["items"] == [])
            #expect(try await api.send(.get, "/v1/metrics/timings?until=2020-01-01T00:00:00Z").json["items"] == [])
        }
    }

    @Test func tellsTimeSeriesInAlignedSteps() async throws {
        try await withAPI { api in
            let start = api.clock.now.rounded(downTo: 60_000)
            for (offset, seconds) in [(0, 1.0), (59_999, 3), (120_000, 5)] {
                let instant = start.advanced(milliseconds: Int64(offset - 600_000))
                try await api.json(
                    .post, "/v1/samples", timing(seconds, [.init(name: "recorded_at", value: .instant(instant))]))
            }
            let since = start.advanced(milliseconds: -600_000).rfc3339
            let until = start.advanced(milliseconds: -600_000 + 180_000).rfc3339
            let path = "/v1/metrics/timeseries?kind=timing&name=load&step_seconds=60&since=\(since)&until=\(until)"
            for (stat, values) in [("mean", [2, nil, 5]), ("count", [2, nil, 1]), ("max", [3, nil, 5])]
                as [(String, JSON)]
            {
                let answer = try await api.send(.get, path + "&stat=\(stat)").json
                #expect(answer["step_seconds"] == 60)
                guard case .array(let buckets)? = answer["buckets"], case .array(let expected) = values else {
                    Issue.record("no buckets")
                    return
                }
                #expect(buckets.map { $0["value"] } == expected.map(Optional.some))
                #expect(buckets[0]["start"] == .string(since))
            }
            for wrong in ["stat=p10", "step_seconds=0.5", "step_seconds=x", "metric=percent", "kind=x", "since=2030"] {
                try await api.send(.get, "/v1/metrics/timeseries?name=load&" + wrong)
                    .expectProblem(.validationFailed, status: 422)
            }
            try await api.send(.get, "/v1/metrics/timeseries").expectProblem(.validationFailed, status: 422)
            try await api.send(.get, "/v1/metrics/timeseries?name=x&step_seconds=1&since=2026-01-01T00:00:00Z")
                .expectProblem(.validationFailed, status: 422)
        }
    }

    @Test func tellsLevels() async throws {
        try await withAPI { api in
            for number in 1...3 {
                let instant = api.clock.now
                try await api.json(
                    .post, "/v1/samples",
                    [
                        "kind": "memory", "name": "app", "rss_bytes": .integer(100 * number), "vms_bytes": 1000,
                        "percent": .decimal(1.5), "recorded_at": .instant(instant),
                    ])
                api.clock.advance(seconds: 0.001)
            }
            let item = try await api.send(.get, "/v1/metrics/memory").json["items"]?[0]
            #expect(item?["rss_bytes"] == ["latest": 300, "min": 100, "max": 300, "mean": 200])
            #expect(item?["percent"]?["latest"]?.doubleValue == 1.5)
            try await api.send(.put, "/v1/cache/n/entries/k", "value")
            try await api.send(.get, "/v1/cache/n/entries/k")
            try await api.send(.get, "/v1/cache/n/entries/none")
            let cache = try await api.send(.get, "/v1/metrics/cache").json["items"]?[0]
            #expect(cache?["hit_ratio"]?.doubleValue == 0.5)
            #expect(cache?["misses_by_reason"]?["absent"] == 1)
            try await api.json(.put, "/v1/sessions/s", ["state": ["a": 1, "b": "xyz"]])
            let sessions = try await api.send(.get, "/v1/metrics/sessions").json
            #expect(sessions["session_count"] == 1)
            #expect(sessions["state_key_count"] == 2)
            #expect(sessions["state_size_bytes"] == 6)
            #expect(sessions["largest"]?[0]?["id"] == "s")
        }
    }

    @Test func comparesVariants() async throws {
        try await withAPI { api in
            let samples = (0..<40).map { (number: Int) -> JSON in
                let isOld = number % 2 == 0
                let seconds = isOld ? 2 + Double(number) / 1000 : 0.01 + Double(number) / 100_000
                return timing(seconds, [.init(name: "variant", value: isOld ? "original" : "optimized")])
            }
            try await api.json(.post, "/v1/samples", ["samples": .array(samples)])
            let path = "/v1/metrics/comparison?baseline=original&candidate=optimized"
            let item = try #require(try await api.send(.get, path).json["items"]?[0])
            #expect(item["verdict"] == "faster")
            #expect(item["baseline"]?["count"] == 20)
            let change = try #require(item["change_percent"]?["p50"]?.doubleValue)
            #expect(change < -99)
            guard case .array(let interval)? = item["confidence_interval_percent"]?["p50"] else {
                Issue.record("no interval")
                return
            }
            #expect(interval[0].doubleValue! <= change && change <= interval[1].doubleValue!)
            let reverse = "/v1/metrics/comparison?baseline=optimized&candidate=original"
            #expect(try await api.send(.get, reverse).json["items"]?[0]?["verdict"] == "slower")
            let unknown = "/v1/metrics/comparison?baseline=original&candidate=none"
            #expect(try await api.send(.get, unknown).json["items"]?[0]?["verdict"] == "too_few_samples")
            try await api.send(.get, "/v1/metrics/comparison?baseline=original")
                .expectProblem(.validationFailed, status: 422)
            let summary = try await api.send(.get, "/v1/metrics/summary").json
            #expect(summary["comparison"]?["baseline"] == "original")
            #expect(summary["comparison"]?["items"]?[0] == item)
            #expect(summary["variants"] == ["optimized", "original"])
        }
    }

    /// Two spellings of one text are two names and two variants.
    @Test func comparesVariantsBySpelling() async throws {
        try await withAPI { api in
            let (composed, decomposed) = ("caf\u{E9}", "cafe\u{301}")
            let samples = (0..<20).map { (number: Int) -> JSON in
                timing(
                    number % 2 == 0 ? 2 : 1,
                    [.init(name: "variant", value: .string(number % 2 == 0 ? composed : decomposed))])
            }
            try await api.json(.post, "/v1/samples", ["samples": .array(samples)])
            let path = "/v1/metrics/comparison?baseline=caf%C3%A9&candidate=cafe%CC%81"
            let item = try #require(try await api.send(.get, path).json["items"]?[0])
            #expect(item["baseline"]?["count"] == 10)
            #expect(item["candidate"]?["p50_seconds"] == 1)
            #expect(item["verdict"] == "faster")
            let summary = try await api.send(.get, "/v1/metrics/summary").json
            #expect(summary["variants_total"] == 2)
            #expect(summary["timings"]?[0]?["parts_total"] == 2)
        }
    }

    @Test func tellsWhyThereIsNoInterval() async throws {
        try await withAPI { api in
            let samples = (0..<60).map { (number: Int) -> JSON in
                let variant = ["zero", "old", "new"][number % 3]
                return timing(variant == "zero" ? 0 : 1, [.init(name: "variant", value: .string(variant))])
            }
            try await api.json(.post, "/v1/samples", ["samples": .array(samples)])
            func compare(_ baseline: String) async throws -> JSON? {
                let path = "/v1/metrics/comparison?baseline=\(baseline)&candidate=new"
                return try await api.send(.get, path).json["items"]?[0]
            }
            let known = try await compare("old")
            #expect(known?["confidence_interval_percent"] == ["p50": [0, 0], "p95": .null])
            #expect(known?["interval_reasons"] == ["p50": .null, "p95": "too_few_samples"])
            #expect(known?["verdict"] == "no_difference")
            let zero = try await compare("zero")
            #expect(zero?["change_percent"] == ["p50": .null, "p95": .null])
            #expect(zero?["interval_reasons"] == ["p50": "baseline_is_zero", "p95": "baseline_is_zero"])
            #expect(zero?["verdict"] == "slower")
        }
    }

    @Test func sumsUpForADashboard() async throws {
        try await withAPI { api in
            let empty = try await api.send(.get, "/v1/metrics/summary")
            #expect(empty.status == .ok)
            #expect(try empty.json["timings"] == [])
            #expect(try empty.json["comparison"] == .null)
            try await api.json(.post, "/v1/samples", timing(1))
            try await api.json(.put, "/v1/sessions/s", [:])
            try await api.json(.post, "/v1/sessions/s/history", ["data": 1, "kind": "generation"])
            let full = try await api.send(.get, "/v1/metrics/summary").json
            guard case .array(let buckets)? = full["buckets"],
                case .array(let counts)? = full["timings"]?[0]?["series"]?["count"]
            else {
                Issue.record("no series")
                return
            }
            #expect(buckets.count == counts.count)
            #expect(buckets.count <= 121)
            #expect(counts.compactMap(\.integerValue).reduce(0, +) == 1)
            #expect(full["history"]?["by_kind"] == [["kind": "generation", "item_count": 1]])
            #expect(full["sessions"]?["session_count"] == 1)
            for wrong in ["baseline=a", "since=x", "until=2020-01-01T00:00:00Z&since=2021-01-01T00:00:00Z", "x=1"] {
                try await api.send(.get, "/v1/metrics/summary?" + wrong).expectProblem(.validationFailed, status: 422)
            }
        }
    }
}

extension JSON {
    fileprivate subscript(index: Int) -> JSON? {
        guard case .array(let items) = self, items.indices.contains(index) else { return nil }
        return items[index]
    }
}
