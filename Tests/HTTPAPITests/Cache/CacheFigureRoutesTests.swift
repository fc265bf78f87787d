// /v1/metrics/cache and the counts in the summary: every count is for the range, and nothing is truncated silently.

import Domain
import HTTPTypes
import HummingbirdTesting
import SQLiteStorage
import TestSupport
import Testing

@Suite struct CacheFigureRoutesTests {
    private func range(_ api: API, since minutes: Double, until end: Double = 0) -> String {
        let now = api.clock.now.advanced(milliseconds: 1)
        let since = now.advanced(milliseconds: Int64(-minutes * 60_000)).rfc3339
        return "?since=\(since)&until=\(now.advanced(milliseconds: Int64(-end * 60_000)).rfc3339)"
    }

    /// The clock moves far beyond the default lifetime.
    private let never: HTTPFields = [HTTPField.Name("Reprise-TTL")!: "none"]

    private func sum(_ series: JSON?) -> Int64? {
        guard case .array(let values)? = series else { return nil }
        return values.compactMap(\.integerValue).reduce(0, +)
    }

    @Test func countsAreThoseOfTheRange() async throws {
        try await withAPI { api in
            try await api.send(.put, "/v1/cache/n/entries/k", "value", headers: never)
            for key in ["k", "k", "k", "none"] { try await api.send(.get, "/v1/cache/n/entries/\(key)") }
            api.clock.advance(seconds: 1800)
            try await api.send(.get, "/v1/cache/n/entries/none")
            for isFlushed in [false, true] {
                if isFlushed { try await api.storage.flushCounters() }
                for (query, hits, misses) in [
                    ("", 3, 2), (range(api, since: 60), 3, 2), (range(api, since: 10), 0, 1),
                    (range(api, since: 60, until: 10), 3, 1), (range(api, since: 600, until: 300), 0, 0),
                ] as [(String, Int64, Int64)] {
                    let found = try await api.send(.get, "/v1/metrics/cache" + query).json
                    let summary = try await api.send(.get, "/v1/metrics/summary" + query).json["cache"]
                    for figures in [found["totals"], found["items"]?[index: 0], summary?["totals"],
                        summary?["items"]?[index: 0]]
                    {
                        #expect(figures?["hits"]?.integerValue == hits, "\(query)")
                        #expect(figures?["misses"]?.integerValue == misses, "\(query)")
                        #expect(figures?["misses_by_reason"]?["absent"]?.integerValue == misses, "\(query)")
                        #expect(figures?["entry_count"] == 1)
                    }
                    #expect(sum(summary?["series"]?["hits"]) == hits)
                    #expect(sum(summary?["series"]?["misses"]) == misses)
                    #expect(found["namespace_count"] == 1 && found["named_count"] == 1)
                }
            }
            let old = try await api.send(.get, "/v1/metrics/cache" + range(api, since: 600, until: 300)).json
            #expect(old["totals"]?["hit_ratio"] == .null)
            // The namespace's own statistics are still those of its lifetime.
            let lifetime = try await api.send(.get, "/v1/cache/n").json
            #expect(lifetime["hits"] == 3 && lifetime["misses"] == 2)
        }
    }

    @Test func aStepWithoutLookupsHasNoRatio() async throws {
        try await withAPI { api in
            try await api.send(.put, "/v1/cache/n/entries/k", "value", headers: never)
            for _ in 0..<99 { try await api.send(.get, "/v1/cache/n/entries/k") }
            api.clock.advance(seconds: 600)
            try await api.send(.get, "/v1/cache/n/entries/none")
            let cache = try await api.send(.get, "/v1/metrics/summary").json["cache"]
            guard case .array(let ratios)? = cache?["series"]?["hit_ratio"] else {
                Issue.record("no series")
                return
            }
            #expect(ratios.filter { $0 != .null }.compactMap(\.doubleValue) == [1, 0])
            #expect(cache?["totals"]?["hit_ratio"]?.doubleValue == 0.99)
        }
    }

    @Test func moreNamespacesThanAreNamedAreSaid() async throws {
        try await withAPI { api in
            let count = Limits.maxPageItems + 1
            for number in 0..<count {
                let name = Name(stored: "n\(number)")
                _ = try await api.storage.setPolicy(CachePolicy(), of: name)
            }
            try await api.send(.put, "/v1/cache/z/entries/k", "value")
            try await api.send(.get, "/v1/cache/z/entries/k")
            let found = try await api.send(.get, "/v1/metrics/cache").json
            #expect(found["namespace_count"]?.integerValue == Int64(count + 1))
            #expect(found["named_count"]?.integerValue == Int64(Limits.maxPageItems))
            #expect(found["totals"]?["hits"] == 1)
            #expect(found["items"]?[index: 0]?["namespace"] == "z")
            let summary = try await api.send(.get, "/v1/metrics/summary").json["cache"]
            #expect(summary?["namespace_count"]?.integerValue == Int64(count + 1))
            #expect(summary?["named_count"]?.integerValue == Int64(Limits.maxSummaryNames))
            #expect(summary?["items"]?[index: 0]?["namespace"] == "z")
        }
    }

    @Test func refusesWhatIsNoRange() async throws {
        try await withAPI { api in
            for query in ["since=x", "x=1", "until=2020-01-01T00:00:00Z&since=2021-01-01T00:00:00Z", "name=n"] {
                try await api.send(.get, "/v1/metrics/cache?" + query).expectProblem(.validationFailed, status: 422)
            }
        }
    }

    @Test func cleanupIsThatOfTheRange() async throws {
        try await withAPI { api in
            func run(_ rows: Int) async throws {
                try await api.storage.record(
                    MaintenanceRun(
                        task: .cacheExpiry, trigger: .deadline, startedAt: api.clock.now, durationSeconds: 0,
                        rowsRemoved: rows, bytesFreed: 0))
            }
            for _ in 0..<12 { try await run(5) }
            api.clock.advance(seconds: 1800)
            try await run(1)
            let hour = try await api.send(.get, "/v1/metrics/summary").json["maintenance"]
            #expect(hour?["totals"] == ["runs": 13, "failures": 0, "removed": 61, "freed_bytes": 0])
            #expect(hour?["tasks"]?[index: 0]?["removed"] == 61)
            let recent = try await api.send(.get, "/v1/metrics/summary" + range(api, since: 10)).json["maintenance"]
            #expect(recent?["totals"]?["removed"] == 1)
            #expect(recent?["runs"]?[index: 1] == nil)
        }
    }

    @Test func operationsAreSplitByVariantAndByHitsAndMisses() async throws {
        try await withAPI { api in
            var samples: [JSON] = []
            for (variant, cache, seconds) in [("old", "miss", 2.0), ("new", "miss", 1.0), ("new", "hit", 0.01)] {
                samples += Array(
                    repeating: [
                        "kind": "timing", "name": "op", "duration_seconds": .decimal(seconds),
                        "variant": .string(variant), "cache": .string(cache),
                    ], count: 3)
            }
            samples.append(["kind": "timing", "name": "plain", "duration_seconds": 1])
            try await api.json(.post, "/v1/samples", ["samples": .array(samples)])
            let summary = try await api.send(.get, "/v1/metrics/summary").json
            #expect(summary["timing_totals"]?["count"] == 10)
            #expect(sum(summary["timing_totals"]?["series"]?["count"]) == 10)
            let operation = summary["timings"]?[index: 0]
            #expect(operation?["count"] == 9 && operation?["parts_total"] == 3)
            var found: [String: Double?] = [:]
            for place in 0..<3 {
                let part = operation?["parts"]?[index: place]
                let name = "\(part?["variant"]?.stringValue ?? "") \(part?["cache"]?.stringValue ?? "")"
                found[name] = part?["p50_seconds"]?.doubleValue
                #expect(sum(part?["series"]?["count"]) == 3)
            }
            #expect(found == ["old miss": 2, "new miss": 1, "new hit": 0.01])
            #expect(summary["timings"]?[index: 1]?["parts"] == [])
            // Hits and misses are counted together when variants are compared.
            let comparison = summary["comparison"]?["items"]?[index: 0]
            #expect([comparison?["baseline"]?["count"], comparison?["candidate"]?["count"]].contains(6))
        }
    }
}

extension JSON {
    fileprivate subscript(index index: Int) -> JSON? {
        guard case .array(let items) = self, items.indices.contains(index) else { return nil }
        return items[index]
    }
}
