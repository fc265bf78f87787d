// Configuration and maintenance over HTTP.

import Domain
import HTTPTypes
import HummingbirdTesting
import NIOCore
import SQLiteStorage
import TestSupport
import Testing

@Suite struct OperationsTests {
    @Test func changesSettingsAtRunTime() async throws {
        try await withAPI { api in
            let before = try await api.send(.get, "/v1/config/cache_ttl_seconds").json
            #expect(before["value"] == 300)
            #expect(before["source"] == "default")
            let changed = try await api.json(
                .patch, "/v1/config", ["cache_ttl_seconds": 7, "enable_monitoring": false])
            #expect(changed.status == .ok)
            let after = try await api.send(.get, "/v1/config/cache_ttl_seconds").json
            #expect(after["value"] == 7)
            #expect(after["source"] == "runtime")
            // In force immediately: lifetimes and counting.
            try await api.send(.put, "/v1/cache/n/entries/k", "v")
            try await api.send(.get, "/v1/cache/n/entries/k")
            #expect(try await api.send(.get, "/v1/cache/n/entries/k/metadata").json["ttl_seconds"] == 7)
            #expect(try await api.send(.get, "/v1/cache/n").json["hits"] == 0)
            // Stored.
            #expect(
                try await api.storage.settingOverrides().values == [
                    "cache_ttl_seconds": "7", "enable_monitoring": "false",
                ])
            #expect(try await api.send(.delete, "/v1/config/cache_ttl_seconds").status == .noContent)
            #expect(try await api.send(.get, "/v1/config/cache_ttl_seconds").json["source"] == "default")
            try await api.send(.delete, "/v1/config/cache_ttl_seconds").expectProblem(.settingNotFound, status: 404)
        }
    }

    /// An acknowledged value is in force: a delay below a millisecond counts as none.
    @Test func roundsSettingsToMilliseconds() async throws {
        try await withAPI { api in
            try await api.json(.patch, "/v1/config", ["debounce_delay": .number("0.00001")])
            let setting = try await api.send(.get, "/v1/config/debounce_delay").json
            #expect(setting["value"] == 0)
            #expect(setting["source"] == "runtime")
            try await api.json(.patch, "/v1/config", ["cache_ttl_seconds": .number("1e-9")])
                .expectProblem(.validationFailed, status: 422)
        }
    }

    @Test func changesAllSettingsOrNone() async throws {
        try await withAPI { api in
            for body: JSON in [
                ["cache_ttl_seconds": 7, "max_history_items": 0], ["cache_ttl_seconds": 7, "port": 1],
                ["cache_ttl_seconds": 7, "unknown": 1], ["cache_ttl_seconds": "7"], ["enable_monitoring": 1],
                ["log_level": "loud"], ["cache_ttl_seconds": nil], ["memory_cleanup_interval": .number("0.5")],
            ] {
                try await api.json(.patch, "/v1/config", body).expectProblem(.validationFailed, status: 422)
            }
            #expect(try await api.storage.settingOverrides().values == [:])
            let misspelt = try await api.send(.get, "/v1/config/prot").expectProblem(.settingNotFound, status: 404)
            let detail = "Unknown setting 'prot'. Did you mean 'port'? GET /v1/config lists all settings."
            #expect(misspelt["detail"] == .string(detail))
            let unknown = try await api.json(.patch, "/v1/config", ["cache_ttl_second": 7])
                .expectProblem(.validationFailed, status: 422)["detail"]
            #expect(unknown == "cache_ttl_second: is not a known field. Did you mean 'cache_ttl_seconds'?")
        }
    }

    @Test func listsEverySetting() async throws {
        try await withAPI { api in
            guard case .array(let settings)? = try await api.send(.get, "/v1/config").json["settings"] else {
                Issue.record("no settings")
                return
            }
            #expect(settings.count == Setting.all.count)
            for (name, value) in [
                ("cache_ttl_seconds", 300), ("max_history_items", 20), ("memory_cleanup_interval", 600),
                ("enable_monitoring", true), ("debounce_delay", .number("0.5")),
            ] as [(String, JSON)] {
                #expect(settings.contains { $0["name"] == .string(name) && $0["default"] == value })
            }
        }
    }

    @Test func removesWhatADryRunCounted() async throws {
        try await withAPI { api in
            for i in 0..<5 { try await api.send(.put, "/v1/cache/n/entries/\(i)", "12345") }
            for i in 0..<3 { try await api.send(.put, "/v1/cache/cleared/entries/\(i)", "123") }
            try await api.send(.delete, "/v1/cache/cleared/entries")
            let large = [UInt8](repeating: 1, count: 100_000)
            for _ in 0..<2 {
                _ = try await api.send(.put, "/v1/cache/large/entries/k", bytes: large + [UInt8.random(in: 0...255)])
            }
            api.clock.advance(seconds: 300)
            func removed(_ body: JSON) async throws -> [JSON] {
                guard case .array(let tasks)? = try await api.json(.post, "/v1/maintenance/cleanup", body).json["tasks"]
                else {
                    return []
                }
                return tasks.map {
                    ["task": $0["task"] ?? nil, "removed": $0["removed"] ?? nil, "freed": $0["freed_bytes"] ?? nil]
                }
            }
            let tasks: JSON = ["cache_expiry", "cache_caps"]
            let preview = try await removed(["tasks": tasks, "dry_run": true])
            #expect(preview[0]["removed"] == 9)
            #expect(try await removed(["tasks": tasks, "dry_run": true]) == preview)
            #expect(try await removed(["tasks": tasks]) == preview)
            let orphans = try await removed(["tasks": ["blob_orphans"], "dry_run": true])
            #expect(orphans[0]["removed"] == 2)
            #expect(try await removed(["tasks": ["blob_orphans"]]) == orphans)
            #expect(try await removed(["tasks": tasks])[0]["removed"] == 0)
            let space = try await removed(["tasks": ["space"], "dry_run": true])
            #expect(try await removed(["tasks": ["space"]]) == space)
            let runs = try await api.send(.get, "/v1/maintenance/runs?limit=2").json
            guard case .array(let items)? = runs["items"] else {
                Issue.record("no runs")
                return
            }
            #expect(items.map { $0["task"] } == ["space", "cache_caps"])
            #expect(items.allSatisfy { $0["trigger"] == "demand" && $0["error"] == JSON.null })
            #expect(runs["next_cursor"]?.stringValue != nil)
            let unknown = try await api.json(.post, "/v1/maintenance/cleanup", ["tasks": ["cache_cap"]])
                .expectProblem(.validationFailed, status: 422)["detail"]?.stringValue
            let message = "tasks: 'cache_cap' is not a task. Did you mean 'cache_caps'? The tasks are cache_expiry, "
            #expect(unknown?.hasPrefix(message) == true)
            // All tasks in one run, when what one removes would be work for another.
            try await api.send(.put, "/v1/cache/large/entries/due", bytes: large)
            api.clock.advance(seconds: 301)
            let all = try await removed(["dry_run": true])
            #expect(all.contains { $0["task"] == "cache_expiry" && $0["removed"] == 1 })
            #expect(try await removed([:]) == all)
            // Those that the others create work for go first, so that each does what was announced.
            #expect(
                all.map { $0["task"]?.stringValue } == [
                    "space", "blob_orphans", "cache_expiry", "cache_caps", "session_expiry", "history_caps",
                    "state_temporaries", "debounce_marks", "sample_rollup", "sample_retention",
                ])
        }
    }
}
