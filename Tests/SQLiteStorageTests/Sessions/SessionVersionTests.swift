// Versions are entity tags: what increments them, and that none is used twice for the same id.

import Domain
import Migrations
import TestSupport
import Testing

@testable import SQLiteStorage

struct SessionVersionTests {
    /// Asserts that versions only ever go up.
    private func expectRising(_ versions: [Int64], sourceLocation: SourceLocation = #_sourceLocation) {
        let isRising = zip(versions, versions.dropFirst()).allSatisfy { $0 < $1 }
        #expect(isRising, "\(versions)", sourceLocation: sourceLocation)
    }

    @Test func aNewDatabaseCountsFromOne() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.define(defaults: ["a": 1])
            try await storage.define(defaults: ["a": 2])
            #expect(try await storage.create().version == 1)
            #expect(try await storage.create(Name(stored: "other"), template: .template).version == 1)
        }
    }

    @Test func noVersionComesTwiceForAnID() async throws {
        try await SessionFixture.run { fixture, storage in
            var versions: [Int64] = []
            func create(ttl: Double? = nil, template: Name? = nil) async throws {
                versions.append(try await storage.create(ttl: ttl, template: template).version)
                versions.append(try await storage.patch(set: ["k": .integer(versions.count)]).version)
            }
            // Deleted.
            try await create()
            try await storage.removeSession(.s)
            // Expired, and created while the old rows still exist.
            try await create(ttl: 10)
            fixture.advance(seconds: 10)
            try await create(ttl: 10)
            // Expired and swept.
            fixture.advance(seconds: 10)
            _ = try await storage.perform(.sessionExpiry, isDryRun: false)
            #expect(try await storage.number("SELECT count(*) FROM sessions") == 0)
            // With changes to a template, which is removed before its session.
            try await storage.define(defaults: ["a": 1])
            try await create(template: .template)
            for value in 2...9 { try await storage.define(defaults: ["a": .integer(value)]) }
            try await storage.removeTemplate(.template, condition: .none)
            versions.append(try await storage.session(.s).version)
            try await storage.removeSession(.s)
            _ = try await storage.perform(.sessionExpiry, isDryRun: false)
            #expect(try await storage.number("SELECT count(*) FROM session_templates") == 0)
            // With a new template of that name, which counts from the start.
            try await storage.define(defaults: ["a": 1])
            try await create(template: .template)
            // The clock is set back by a day.
            fixture.advance(seconds: -86_400)
            try await storage.removeSession(.s)
            try await create()
            try await storage.removeSession(.s)
            expectRising(versions)
            let last = SessionDraft(metadata: JSONText(["version": .integer(versions.last!)]))
            _ = try await storage.createSession(Name(stored: "last"), last)
        } reopened: { _, storage in
            let last = try await storage.session(Name(stored: "last"))
            let before = try #require(last.metadata.parsed()["version"]?.integerValue)
            #expect(try await storage.create().version > before)
        }
    }

    /// Such a session keeps its rows for the sweep, but not its id.
    @Test func noVersionComesTwiceForTheIDOfALargeSession() async throws {
        try await SessionFixture.run(settings: Settings.with(.maxHistoryItems, .integer(10_000))) { fixture, storage in
            try await storage.create()
            for value in 0..<5 { try await storage.patch(set: ["k": .integer(value)]) }
            let data = JSON.text(bytes: Limits.maxHistoryItemBytes)
            let isTooLarge = StorageLimits.sweepBatchBytes / Limits.maxHistoryItemBytes + 1
            for _ in 0..<isTooLarge { try await storage.append(data: data) }
            let many = Array(repeating: "(1,hex(randomblob(9)),0,0,'0')", count: StorageLimits.sweepBatchSessionRows)
            try await storage.execute(
                "INSERT INTO history_items (session_ref, id, created_at_ms, updated_at_ms, data) VALUES "
                    + many.joined(separator: ","))
            try await storage.removeSession(.s)
            #expect(try await storage.number("SELECT count(*) FROM sessions WHERE id IS NULL") == 1)
            #expect(try await storage.create().version == 7)
            _ = try await storage.perform(.sessionExpiry, isDryRun: false)
            #expect(try await storage.number("SELECT count(*) FROM sessions") == 1)
            #expect(try await storage.create(Name(stored: "other")).version == 7)
        }
    }

    @Test func defaultsAloneCountTheVersionUp() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create(state: ["a": 1])
            let only = try await storage.patch(setDefault: ["a": 2, "b": 2])
            #expect(only.version == 2 && only.initializedKeys == ["b"])
            // Along with changes that change nothing.
            let change = try await storage.patch(set: ["a": 1], setDefault: ["c": 3], delete: ["none"])
            #expect(change.version == 3 && change.initializedKeys == ["c"])
            #expect(try await storage.session(.s).version == 3)
            #expect(try await storage.state(of: .s, keys: nil, condition: .none).version == 3)
        }
    }

    @Test func eachWriteThatChangesTheStateCountsOnce() async throws {
        try await SessionFixture.run { _, storage in
            var versions = [try await storage.create(state: ["temp_a": 1, "b": 1]).version]
            versions.append(try await storage.open(defaults: ["c": 1]).session.version)
            versions.append(try await storage.patch(delete: ["b"]).version)
            versions.append(try await storage.patch(deletePrefixes: ["c"]).version)
            _ = try await storage.optimizeSession(.s, keep: [])
            versions.append(try await storage.session(.s).version)
            let entry = stateEntries(["d": 1])[0]
            versions.append(try await storage.setStateValue(entry, of: .s, condition: .none).version)
            try await storage.removeStateValue("d", of: .s, condition: .none)
            versions.append(try await storage.session(.s).version)
            #expect(versions == Array(1...7))
        }
    }

    @Test func noTagOfATemplateComesTwice() async throws {
        try await SessionFixture.run { _, storage in
            var tags = [try await storage.define(defaults: ["a": 1]).tag]
            // No session refers to it: its row is removed.
            try await storage.removeTemplate(.template, condition: .none)
            tags.append(try await storage.define(defaults: ["a": 1]).tag)
            // A session refers to it: its count stays.
            try await storage.create(template: .template)
            try await storage.removeTemplate(.template, condition: .none)
            tags.append(try await storage.define(defaults: ["a": 1]).tag)
            // Its last row is removed.
            try await storage.removeSession(.s)
            try await storage.removeTemplate(.template, condition: .none)
            _ = try await storage.perform(.sessionExpiry, isDryRun: false)
            tags.append(try await storage.define(defaults: ["a": 1]).tag)
            tags.append(try await storage.define(defaults: ["a": 1], ttl: 10).tag)
            tags.append(try await storage.define(defaults: ["a": 1], cap: 10).tag)
            #expect(Set(tags).count == tags.count, "\(tags)")
        }
    }

    @Test func noTagOfAHistoryItemComesTwice() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create()
            var tags = [try await storage.append("i", data: 1).item.tag]
            let patched = try await storage.patchHistoryItem(Name(stored: "i"), of: .s, patch: 2, condition: .none)
            tags.append(patched.tag)
            try await storage.removeHistoryItem(Name(stored: "i"), of: .s, condition: .none)
            tags.append(try await storage.append("i", data: 1).item.tag)
            _ = try await storage.clearHistory(of: .s)
            tags.append(try await storage.append("i", data: 1).item.tag)
            try await storage.removeSession(.s)
            try await storage.create()
            tags.append(try await storage.append("i", data: 1).item.tag)
            #expect(Set(tags).count == tags.count, "\(tags)")
        }
    }

    /// A database from before the highest version was recorded.
    @Test(arguments: [false, true])
    func anOlderDatabaseCountsOnAboveWhatItForgot(hasLostSessions: Bool) throws {
        let folder = TemporaryFolder()
        let connection = try Connection(path: folder.file("test.db"), mode: .writer)
        let before = Migration.all.prefix { $0.name != "session_versions" }
        _ = try Migrator(migrations: Array(before)).migrate(connection, now: Instant(milliseconds: 0))
        for id in ["kept", "lost"] {
            try connection.run(
                "INSERT INTO sessions (id, own_version, created_at_ms, last_active_at_ms) VALUES (?1, 5, 0, 0)",
                .text(id))
        }
        if hasLostSessions { try connection.execute("DELETE FROM sessions WHERE id = 'lost'") }
        _ = try Migrator().migrate(connection, now: Instant(milliseconds: 0))
        func highest() throws -> Int64? {
            try connection.first("SELECT highest_removed FROM session_versions") { $0.integer(0) }
        }
        let start: Int64 = hasLostSessions ? 1_000_000_000_000 : 0
        #expect(try highest() == start)
        try connection.execute("DELETE FROM sessions WHERE id = 'kept'")
        #expect(try highest() == max(start, 5))
    }
}
