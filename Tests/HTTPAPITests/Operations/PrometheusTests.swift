// What Prometheus reads: its text, its counts, its names, and its bounds.

import Domain
import FoundationEssentials
import HTTPTypes
import HummingbirdTesting
import SQLiteStorage
import TestSupport
import Testing

@testable import HTTPAPI

struct PrometheusTests {
    // MARK: The text

    private func text(_ body: (inout PrometheusText) -> Void) -> String {
        var text = PrometheusText()
        body(&text)
        return String(decoding: text.bytes, as: UTF8.self)
    }

    @Test func escapesWhatTheFormatMustHaveEscaped() {
        let written = text { $0.add(.buildInfo, 1, [("version", "a\"b\\c\nd\te é 😀")]) }
        #expect(written.hasSuffix("reprise_build_info{version=\"a\\\"b\\\\c\\nd\te é 😀\"} 1\n"))
    }

    @Test func describesEachFamilyOnceAndSorts() {
        let written = text {
            $0.add(.writes, 2)
            $0.add(.cacheEntries, 1, [("namespace", "a")])
            $0.add(.sessions, 3)
            $0.add(.cacheEntries, 2, [("namespace", "b")])
        }
        #expect(
            written == """
                # HELP reprise_cache_entries \(MetricFamily.cacheEntries.help)
                # TYPE reprise_cache_entries gauge
                reprise_cache_entries{namespace="a"} 1
                reprise_cache_entries{namespace="b"} 2
                # HELP reprise_sessions \(MetricFamily.sessions.help)
                # TYPE reprise_sessions gauge
                reprise_sessions 3
                # HELP reprise_writer_writes_total \(MetricFamily.writes.help)
                # TYPE reprise_writer_writes_total counter
                reprise_writer_writes_total 2

                """)
    }

    @Test func writesHistogramsCumulatively() {
        var histogram = Histogram(bounds: [0.0001, 1])
        for seconds in [0.00005, 0.5, 0.75, 4] { histogram.add(seconds) }
        let lines = text { $0.add(.requestDuration, histogram, [("route", "/")]) }.split(separator: "\n").dropFirst(2)
        #expect(
            lines.map { $0.dropFirst(MetricFamily.requestDuration.rawValue.count) } == [
                #"_bucket{route="/",le="0.0001"} 1"#, #"_bucket{route="/",le="1"} 3"#,
                #"_bucket{route="/",le="+Inf"} 4"#, #"_sum{route="/"} 5.25005"#, #"_count{route="/"} 4"#,
            ])
    }

    @Test(arguments: [
        (0.0, "0"), (1.5, "1.5"), (Double.infinity, "+Inf"), (-Double.infinity, "-Inf"), (.nan, "NaN"), (1e21, "1e+21"),
        (9_007_199_254_740_993, "9007199254740992.0"), (1_795_418_040.123, "1795418040.123"),
    ])
    func writesNumbers(_ value: Double, _ expected: String) {
        #expect(text { $0.add(.writes, value) }.hasSuffix(" \(expected)\n"))
    }

    @Test func theEngineNamesItsOwn() {
        var histogram = Histogram(bounds: [1])
        histogram.add(2)
        let written = text {
            $0.add(EngineFigure("reprise_pools", "Pools.", .gauge(2)))
            $0.add(EngineFigure("reprise_flush_seconds", "Time each flush takes.", .histogram(histogram)))
            $0.add(.sessions, 3)
            $0.add(EngineFigure("reprise_flushes_total", "Flushes.", .counter(7)))
        }
        #expect(
            written == """
                # HELP reprise_flush_seconds Time each flush takes.
                # TYPE reprise_flush_seconds histogram
                reprise_flush_seconds_bucket{le="1"} 0
                reprise_flush_seconds_bucket{le="+Inf"} 1
                reprise_flush_seconds_sum 2
                reprise_flush_seconds_count 1
                # HELP reprise_flushes_total Flushes.
                # TYPE reprise_flushes_total counter
                reprise_flushes_total 7
                # HELP reprise_pools Pools.
                # TYPE reprise_pools gauge
                reprise_pools 2
                # HELP reprise_sessions \(MetricFamily.sessions.help)
                # TYPE reprise_sessions gauge
                reprise_sessions 3

                """)
    }

    /// Every family, those of the engine included, by name.
    private func allFamilies() async throws -> [String: (type: String, help: String)] {
        let own = Shared<[EngineFigure]>([])
        try await withAPI { own.set(await $0.storage.operationalFigures().engine) }
        let all =
            MetricFamily.allCases.map { ($0.rawValue, (type: $0.type, help: $0.help)) }
            + own.value.map { ($0.name, (type: $0.type, help: $0.help)) }
        return try Dictionary(all) { _, _ in throw Failure(.internalError, "a family is there twice") }
    }

    @Test func namesFollowTheConventions() async throws {
        let families = try await allFamilies()
        #expect(families.count > MetricFamily.allCases.count)
        for (name, family) in families {
            #expect(name.wholeMatch(of: /(process|reprise)(_[a-z]+)+/) != nil, "\(name)")
            #expect(name.hasSuffix("_total") == (family.type == "counter"), "\(name)")
            #expect(!family.help.contains { $0 == "\\" || $0 == "\n" }, "\(name)")
            #expect(family.help.hasSuffix(".") || name == MetricFamily.storeReadable.rawValue, "\(name)")
            // The suffixes of a histogram's name belong to no other family.
            for suffix in ["_bucket", "_sum", "_count"] { #expect(families[name + suffix] == nil) }
        }
    }

    // MARK: Names outside the code

    private static func file(_ path: String) throws -> [UInt8] {
        let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(4).joined(separator: "/")
        return Array(try #require(FileManager.default.contents(atPath: "\(root)/\(path)")))
    }

    private static func items(_ json: JSON) -> [JSON]? {
        guard case .array(let items) = json else { return nil }
        return items
    }

    /// Every metric name in a text.
    private func names(in text: String) -> Set<String> {
        Set(text.matches(of: /\b(?:process|reprise)_[a-z_]+/).map { String($0.output) })
    }

    /// The families of names as a query may write them, and the names that belong to no family.
    private func families(_ names: Set<String>) async throws -> (known: Set<String>, unknown: Set<String>) {
        let all = try await allFamilies()
        var known: Set<String> = []
        var unknown: Set<String> = []
        for name in names {
            let ofHistogram = ["_bucket", "_sum", "_count"].first { name.hasSuffix($0) }
                .map { String(name.dropLast($0.count)) }
            if let ofHistogram, all[ofHistogram]?.type == "histogram" {
                known.insert(ofHistogram)
            } else if let family = all[name], family.type != "histogram" {
                known.insert(name)
            } else {
                unknown.insert(name)
            }
        }
        return (known, unknown)
    }

    @Test func theGrafanaDashboardShowsEveryFamily() async throws {
        let bytes = try Self.file("docs/grafana-dashboard.json")
        let (known, unknown) = try await families(names(in: String(decoding: bytes, as: UTF8.self)))
        #expect(unknown == [])
        #expect(try await Set(allFamilies().keys).subtracting(known) == [])
    }

    @Test func theGrafanaDashboardIsWhole() throws {
        let dashboard = try JSON(parsing: try Self.file("docs/grafana-dashboard.json"))
        let variables = try #require(dashboard["templating"]?["list"].flatMap(Self.items))
        #expect(variables.contains { $0["type"] == "datasource" && $0["name"] == "datasource" })
        let panels = try #require(dashboard["panels"].flatMap(Self.items))
        #expect(Set(panels.compactMap { $0["id"]?.integerValue }).count == panels.count)
        var taken: Set<[Int64]> = []
        for panel in panels {
            let place = try ["x", "y", "w", "h"].map { try #require(panel["gridPos"]?[$0]?.integerValue) }
            #expect(place[0] + place[2] <= 24, "\(panel["title"]!)")
            for x in place[0]..<place[0] + place[2] {
                for y in place[1]..<place[1] + place[3] {
                    #expect(taken.insert([x, y]).inserted, "\(panel["title"]!) lies over another")
                }
            }
            guard panel["type"] != "row" else { continue }
            for target in [panel] + (try #require(panel["targets"].flatMap(Self.items))) {
                #expect(target["datasource"]?["uid"] == "${datasource}", "\(panel["title"]!)")
            }
        }
    }

    @Test(arguments: ["docs/prometheus-alerts.yaml", "docs/operations.md"])
    func documentsNameNoOtherMetric(_ path: String) async throws {
        let text = String(decoding: try Self.file(path), as: UTF8.self)
        #expect(try await families(names(in: text)).unknown == [])
    }

    // MARK: Counting requests

    @Test func racingRequestsAreEachCountedOnce() async {
        let meter = RequestMeter()
        let route = meter.figures(of: Route(.get, "/x", scope: .open) { _, _ in throw CancellationError() })
        let total = 8 * 5000
        var taken = 0
        await withTaskGroup(of: Int.self) { group in
            for task in 0..<8 {
                group.addTask {
                    for number in 0..<5000 {
                        route.record(status: number % 10 == 0 ? 503 : 200, seconds: Double(task + 1) * 0.001)
                    }
                    return 0
                }
            }
            group.addTask {
                var taken = 0
                for _ in 0..<200 {
                    taken += meter.takeTimings().reduce(0) { $0 + $1.count }
                    let figures = route.figures
                    #expect(figures.statuses.reduce(0, +) == figures.seconds.count)
                    await Task.yield()
                }
                return taken
            }
            for await count in group { taken += count }
        }
        #expect(route.figures.statuses == [0, 0, total * 9 / 10, 0, 0, total / 10])
        #expect(route.figures.seconds.count == total)
        #expect(abs(route.figures.seconds.sum - 5000 * 0.036) < 1e-6)
        let rest = meter.takeTimings().reduce(0) { $0 + $1.count }
        #expect(taken + rest == total)
        #expect(meter.takeTimings() == [])
    }

    @Test func timingsKeepWhatTheyWere() throws {
        let meter = RequestMeter()
        let route = meter.figures(of: Route(.put, "/x/{y}", scope: .open) { _, _ in throw CancellationError() })
        for seconds in [0, 0.01, 0.02, 10_000] { route.record(status: 500, seconds: seconds) }
        let timing = try #require(meter.takeTimings().first)
        #expect(timing.name == "PUT /x/{y}")
        #expect((timing.count, timing.errorCount) == (4, 4))
        #expect((timing.minSeconds, timing.maxSeconds) == (0, 10_000))
        #expect(abs(timing.sumSeconds - 10_000.03) < 1e-9)
        // The ends are a microsecond and an hour.
        let values = timing.buckets.map { SketchBucket.value(of: $0.bucket) }
        for (value, expected) in zip(values, [1e-6, 0.01, 0.02, 3600]) {
            #expect(abs(value - expected) <= expected * 0.01)
        }
    }

    // MARK: Namespaces

    private func namespace(_ name: String, hits: Int, entries: Int = 0) -> NamespaceLabels.Figures {
        var figures = NamespaceLabels.Figures(name: Name(stored: name))
        figures.hits = hits
        figures.entryCount = entries
        return figures
    }

    @Test func theMostUsedNamespacesAreToldApart() {
        let labels = NamespaceLabels(limit: 2)
        let rows = labels.rows([
            namespace("a", hits: 1), namespace("b", hits: 5), namespace("c", hits: 0, entries: 9),
            namespace("d", hits: 5),
        ])
        #expect(rows.map(\.name.rawValue) == ["b", "d", Sample.otherName])
        #expect(rows.map(\.hits) == [5, 5, 1])
        #expect(rows.last?.entryCount == 9)
    }

    @Test func aNamespaceKeepsItsLabel() {
        let labels = NamespaceLabels(limit: 1)
        _ = labels.rows([namespace("a", hits: 1), namespace("b", hits: 0)])
        let rows = labels.rows([namespace("a", hits: 1), namespace("b", hits: 1000)])
        #expect(rows.map(\.hits) == [1, 1000])
        #expect(rows.map(\.name.rawValue) == ["a", Sample.otherName])
    }

    @Test func theSumOfTheOthersNeverGoesBack() {
        let labels = NamespaceLabels(limit: 1)
        func other(_ namespaces: [NamespaceLabels.Figures]) -> Int? {
            labels.rows(namespaces).last { $0.name.rawValue == Sample.otherName }?.hits
        }
        #expect(other([namespace("a", hits: 9)]) == nil)
        #expect(other([namespace("a", hits: 9), namespace("b", hits: 4), namespace("c", hits: 3)]) == 7)
        // c is removed, b continues.
        #expect(other([namespace("a", hits: 9), namespace("b", hits: 5)]) == 7)
        #expect(other([namespace("a", hits: 9), namespace("b", hits: 6)]) == 8)
        // a is removed and b gets its label.
        #expect(other([namespace("b", hits: 6)]) == 8)
        #expect(other([namespace("b", hits: 6), namespace("d", hits: 2)]) == 10)
    }

    @Test func aNamespaceMayHaveTheNameOfTheSum() {
        let rows = NamespaceLabels(limit: 2).rows([
            namespace(Sample.otherName, hits: 50), namespace("a", hits: 1), namespace("b", hits: 2),
            namespace("c", hits: 3),
        ])
        #expect(rows.map(\.name.rawValue) == ["b", "c", Sample.otherName])
        #expect(rows.map(\.hits) == [2, 3, 51])
    }

    // MARK: Over HTTP

    /// Samples by name and labels.
    private func metrics(_ api: API) async throws -> [String: Double] {
        let answer = try await api.send(.get, "/metrics")
        #expect(answer.status == .ok)
        #expect(answer[header: "Content-Type"] == "text/plain; version=0.0.4; charset=utf-8")
        let lines = answer.text.split(separator: "\n").filter { $0.first != "#" }
        let pairs = lines.map { line in
            let space = line.lastIndex(of: " ")!
            return (String(line[..<space]), Double(line[space...].dropFirst())!)
        }
        // A duplicate would make Prometheus refuse all of it.
        return try Dictionary(pairs) { _, _ in throw Failure(.internalError, "a sample is there twice") }
    }

    private func requests(_ route: String, _ method: String, _ status: String) -> String {
        "reprise_http_requests_total{route=\"\(route)\",method=\"\(method)\",status=\"\(status)\"}"
    }

    @Test func requestsAreCountedByWhatTheyWereAnswered() async throws {
        try await withAPI { api in
            let entry = "/v1/cache/{namespace}/entries/{key}"
            try await api.send(.put, "/v1/cache/n/entries/k", "v")
            try await api.send(.get, "/v1/cache/n/entries/k")
            try await api.send(.head, "/v1/cache/n/entries/k")
            try await api.send(.get, "/v1/cache/n/entries/absent")
            try await api.send(.get, "/v1/cache/n/entries/k", headers: [.ifNoneMatch: "*"])
            for path in ["/nothing", "/v1/cache/n/entries/", "/%00"] { try await api.send(.get, path) }
            try await api.send(.delete, "/health/live")
            try await api.send(HTTPRequest.Method("BREW")!, "/coffee\"\n")
            let metrics = try await metrics(api)
            #expect(metrics[requests(entry, "PUT", "2xx")] == 1)
            #expect(metrics[requests(entry, "GET", "2xx")] == 2, "HEAD counts as GET")
            #expect(metrics[requests(entry, "GET", "3xx")] == 1)
            #expect(metrics[requests(entry, "GET", "4xx")] == 1)
            #expect(metrics[requests("unmatched", "other", "4xx")] == 5)
            #expect(metrics[requests("/health/live", "DELETE", "4xx")] == nil)
            let duration = "reprise_http_request_duration_seconds"
            #expect(metrics["\(duration)_count{route=\"\(entry)\",method=\"GET\"}"] == 4)
            #expect(metrics["\(duration)_bucket{route=\"\(entry)\",method=\"GET\",le=\"+Inf\"}"] == 4)
            #expect(try #require(metrics["\(duration)_sum{route=\"unmatched\",method=\"other\"}"]) > 0)
            #expect(metrics["reprise_http_requests_in_flight"] == 1)
        }
    }

    @Test func everyFamilyIsTold() async throws {
        try await withAPI { api in
            try await api.send(.put, "/v1/cache/n/entries/k", "v")
            let names = try await metrics(api).keys.map { String($0.prefix { $0 != "{" }) }
            let (known, unknown) = try await families(Set(names))
            #expect(unknown == [])
            #expect(try await Set(allFamilies().keys).subtracting(known) == [])
        }
    }

    @Test func theProcessIsDescribed() async throws {
        try await withAPI { api in
            let metrics = try await metrics(api)
            #expect(metrics["process_resident_memory_bytes"] == 9_000_000)
            #expect(metrics["process_virtual_memory_bytes"] == 80_000_000)
            #expect(metrics["process_cpu_seconds_total"] == 1.25)
            #expect(metrics["process_open_fds"] == 17)
            #expect(metrics["process_max_fds"] == 1024)
            #expect(metrics["process_start_time_seconds"] == 1_795_418_000.5)
        }
    }

    @Test func metricsAreThereWithoutTheDatabase() async throws {
        try await withAPI { api in
            try await api.send(.get, "/v1/cache/n/entries/k")
            #expect(try await metrics(api)["reprise_store_readable"] == 1)
            await api.storage.close()
            let metrics = try await metrics(api)
            #expect(metrics["reprise_store_readable"] == 0)
            #expect(metrics["reprise_sessions"] == nil)
            #expect(metrics["process_resident_memory_bytes"] == 9_000_000)
            #expect(try #require(metrics["reprise_database_size_bytes"]) > 0)
            #expect(metrics[requests("/v1/cache/{namespace}/entries/{key}", "GET", "4xx")] == 1)
        }
    }

    @Test func labelsAreBounded() async throws {
        try await withAPI { api in
            for number in 0..<130 { try await api.send(.put, "/v1/cache/n\(number)/entries/k", "v") }
            for number in 120..<130 { try await api.send(.get, "/v1/cache/n\(number)/entries/k") }
            let metrics = try await metrics(api)
            let entries = metrics.filter { $0.key.hasPrefix("reprise_cache_entries{") }
            #expect(entries.count == Limits.maxLabelledNamespaces + 1)
            #expect(entries.values.reduce(0, +) == 130)
            #expect(metrics["reprise_cache_entries{namespace=\"\(Sample.otherName)\"}"] == 30)
            for number in 120..<130 { #expect(metrics["reprise_cache_entries{namespace=\"n\(number)\"}"] == 1) }
            #expect(metrics.count < 3000)
        }
    }
}
