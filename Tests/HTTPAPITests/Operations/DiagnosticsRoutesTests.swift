// GET /v1/diagnostics, and the number of its findings in /metrics.

import Domain
import FoundationEssentials
import HTTPTypes
import HummingbirdTesting
import SQLiteStorage
import TestSupport
import Testing

@testable import HTTPAPI

struct DiagnosticsRoutesTests {
    private func findings(_ api: API) async throws -> [JSON] {
        let response = try await api.send(.get, "/v1/diagnostics")
        #expect(response.status == .ok)
        #expect(response[header: "Cache-Control"] == "no-store")
        guard case .array(let findings)? = try response.json["findings"] else {
            Issue.record("no findings")
            return []
        }
        return findings
    }

    private func finding(_ code: String, _ api: API) async throws -> JSON? {
        try await findings(api).first { $0["code"] == .string(code) }
    }

    @Test func everyFindingIsComplete() async throws {
        try await withAPI { api in
            let found = try await findings(api)
            // The limit of descriptors in the example allows fewer connections.
            #expect(found.contains { $0["code"] == "descriptor_limit_low" && $0["severity"] == "info" })
            for finding in found {
                for member in ["severity", "code", "title", "detail", "remedy"] {
                    #expect(finding[member]?.stringValue?.isEmpty == false, "\(finding.text)")
                }
                guard case .object? = finding["evidence"] else {
                    Issue.record("\(finding.text)")
                    continue
                }
            }
            try await api.send(.get, "/v1/diagnostics?deep=true").expectProblem(.validationFailed, status: 422)
        }
    }

    @Test func settingsInForceAreJudged() async throws {
        try await withAPI { api in
            #expect(try await finding("monitoring_disabled", api) == nil)
            try await api.json(.patch, "/v1/config", ["enable_monitoring": false])
            #expect(try await finding("monitoring_disabled", api)?["severity"] == "info")
        }
    }

    /// The remedy is followed to the letter, and the finding goes.
    @Test func aTTLThatIsTooShortIsFoundAndMended() async throws {
        try await withAPI { api in
            func round() async throws {
                for key in 0..<60 { try await api.send(.put, "/v1/cache/scores/entries/\(key)", "v") }
                api.clock.advance(seconds: 400)
                for key in 0..<60 { try await api.send(.get, "/v1/cache/scores/entries/\(key)") }
            }
            try await round()
            let found = try #require(try await finding("cache_misses_expired", api))
            #expect(found["severity"] == "warning")
            #expect(found["evidence"]?["expired_misses"] == 60)
            // Asked for 100 s after 300: within 120.
            #expect(found["evidence"]?["helpful_ttl_seconds"] == 420)
            let remedy = try #require(found["remedy"]?.stringValue)
            let request = try #require(remedy.firstMatch(of: /PUT (\S+) with (\{.*?\})/))
            let answer = try await api.send(
                .put, String(request.1), String(request.2), headers: [.contentType: "application/json"])
            #expect(answer.status == .ok)
            api.clock.advance(seconds: 3700)
            try await round()
            #expect(try await finding("cache_misses_expired", api) == nil)
            #expect(try await api.send(.get, "/v1/cache/scores").json["hits"] == 60)
        }
    }

    @Test func applicationsReportTheirMemory() async throws {
        try await withAPI { api in
            func report(_ name: String, _ percent: JSON) async throws {
                try await api.json(
                    .post, "/v1/samples",
                    ["kind": "memory", "name": .string(name), "rss_bytes": 1000, "vms_bytes": 2000, "percent": percent])
            }
            try await report("reprise", 99)
            try await report("melodai", 99)
            api.clock.advance(seconds: 1)
            try await report("melodai", 20)
            #expect(try await finding("application_memory_high", api) == nil)
            api.clock.advance(seconds: 1)
            try await report("melodai", 90)
            let found = try #require(try await finding("application_memory_high", api))
            #expect(found["evidence"] == ["memory_percent": 90, "resident_bytes": 1000, "process_count": 1])
        }
    }

    @Test func aClosedDatabaseIsCritical() async throws {
        try await withAPI { api in
            await api.storage.close()
            let response = try await api.send(.get, "/v1/diagnostics")
            #expect(try response.json["status"] == "critical")
            #expect(try await finding("database_unreadable", api) != nil)
        }
    }

    @Test func aSlowStartIsFound() async throws {
        try await withAPI { api in
            #expect(try await finding("slow_start", api) == nil)
            api.services.startup.set(seconds: 12.5)
            let found = try await finding("slow_start", api)
            #expect(found?["evidence"]?["startup_seconds"] == .number("12.5"))
        }
    }

    @Test func failuresOfTheServiceAreCountedByCode() async throws {
        try await withAPI { api in
            await api.storage.close()
            for _ in 0..<3 { try await api.send(.get, "/v1/cache/n/entries/k") }
            try await api.send(.get, "/v1/sessions?limit=x").expectProblem(.validationFailed, status: 422)
            #expect(api.services.meter.recentFailures == [.shuttingDown: 3])
        }
    }

    @Test func failuresAreForgottenAfterAnHour() {
        var failures = RecentFailures()
        failures.add(.overloaded, minute: 0)
        for minute in 1...59 { failures.add(.internalError, minute: minute) }
        #expect(failures.sums(minute: 59) == [.overloaded: 1, .internalError: 59])
        #expect(failures.sums(minute: 60) == [.internalError: 59])
        failures.add(.overloaded, minute: 200)
        #expect(failures.sums(minute: 200) == [.overloaded: 1])
        #expect(failures.sums(minute: 300) == [:])
    }

    @Test func theirNumberIsAMetric() async throws {
        try await withAPI { api in
            let lines = try await api.send(.get, "/metrics").text.split(separator: "\n")
            for severity in ["info", "warning", "critical"] {
                #expect(lines.contains { $0.hasPrefix("reprise_findings{severity=\"\(severity)\"} ") })
            }
            #expect(lines.contains("reprise_findings{severity=\"critical\"} 0"))
        }
    }

    /// Every code that the program has is explained to operators, and nothing else is.
    @Test func everyCodeIsInTheManual() throws {
        let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(4).joined(separator: "/")
        let sources = try FileManager.default.subpathsOfDirectory(atPath: root + "/Sources")
        var codes: Set<Substring> = []
        for name in sources where name.hasSuffix(".swift") {
            let text = String(
                decoding: try #require(FileManager.default.contents(atPath: "\(root)/Sources/\(name)")), as: UTF8.self)
            guard text.contains("extension Finding.Code {") else { continue }
            codes.formUnion(text.matches(of: /static let \w+ = Self\(rawValue: "(\w+)"\)/).map(\.1))
        }
        #expect(codes.count > 40)
        let manual = String(
            decoding: try #require(FileManager.default.contents(atPath: root + "/docs/operations.md")), as: UTF8.self)
        let section = try #require(manual.split(separator: "## ").first { $0.hasPrefix("Diagnostics\n") })
        let rows = section.matches(of: /\n\| `([a-z_]+)` \| ((info|warning|critical)(, (warning|critical))?) \|/)
        #expect(rows.map(\.1) == codes.sorted())
    }
}
