// Sessions as rows: statistics kept by triggers, removal in steps, views.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct SessionRowTests {
    @Test func activityNotedBetweenFlushAndSweepCounts() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(ttl: 10)
            fixture.advance(seconds: 8)
            // As if the read came after the sweep's own flush: recorded in memory only.
            _ = try await storage.session(.s)
            fixture.advance(seconds: 4)
            let (removal, isDone) = try await storage.sessionTransaction { try $0.removeExpired() }
            #expect(removal == Removal() && isDone)
            #expect(try await storage.session(.s).timeToLive == .finite(milliseconds: 10_000))
        }
    }

    @Test func figuresFollowWhateverChangesRows() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.define(defaults: ["d": "default", "temp_d": 1])
            try await storage.create(template: .template)
            var seed: UInt64 = 7
            func random(_ bound: UInt64) -> Int {
                seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Int((seed >> 33) % bound)
            }
            let prefixes = ["temp_", "cache_", "k", "tempX", "d"]
            for _ in 0..<200 {
                let key = prefixes[random(5)] + "\(random(4))"
                switch random(5) {
                case 0: try await storage.patch(delete: [Key(stored: key)])
                case 1: try await storage.patch(deletePrefixes: [prefixes[random(5)]])
                case 2: try await storage.append("i\(random(30))", data: .text(bytes: 2 + random(50)))
                default: try await storage.patch(set: [key: .text(bytes: 2 + random(300))])
                }
            }
            try await storage.expectRightFigures()
            let session = try await storage.session(.s)
            let state = try await storage.state(of: .s, keys: nil, condition: .none).entries!
            #expect(session.stateKeyCount == state.count)
            #expect(session.stateSizeBytes == state.reduce(0) { $0 + $1.value.sizeBytes })
            try await storage.execute(
                """
                UPDATE session_state SET key = 'temp_' || key, value = '"é"';
                UPDATE history_items SET data = '[]';
                DELETE FROM history_items WHERE item_ref % 2 = 0;
                UPDATE session_template_defaults SET value = '"longer than before"';
                """)
            try await storage.expectRightFigures()
        }
    }

    @Test func removingTakesEverythingAlong() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create(state: ["a": 1])
            try await storage.append("i")
            _ = try await storage.debounce(.s, of: .s, delayMilliseconds: 500)
            try await storage.removeSession(.s)
            #expect(await code { try await storage.removeSession(.s) } == .sessionNotFound)
            #expect(
                try await storage.number(
                    """
                    SELECT (SELECT count(*) FROM sessions) + (SELECT count(*) FROM session_state)
                        + (SELECT count(*) FROM history_items) + (SELECT count(*) FROM debounce_marks)
                    """) == 0)
        }
    }

    @Test func aLargeSessionGoesAtOnceForEverybodyAndStepByStepFromTheFile() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(cap: 10_000, state: ["a": 1])
            try await storage.execute(
                """
                WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000)
                INSERT INTO history_items (session_ref, id, created_at_ms, updated_at_ms, data)
                SELECT 1, 'i' || n, 1800000000000, 1800000000000, '[1,2,3]' FROM numbers
                """)
            try await storage.removeSession(.s)
            #expect(await code { try await storage.session(.s) } == .sessionNotFound)
            #expect(try await storage.history(HistoryFilter(), after: nil, limit: 10).items.isEmpty)
            #expect(try await storage.number("SELECT count(*) FROM history_items") == 3000)
            try await storage.create()
            #expect(try await storage.itemIDs() == [])
            #expect(storage.backlog().deadlines[.sessionExpiry].map { $0 <= fixture.now } == true)
            let expected = Removal(removed: 1, freedBytes: 3000 * 7 + 1)
            #expect(try await storage.perform(.sessionExpiry, isDryRun: true) == expected)
            #expect(try await storage.perform(.sessionExpiry, isDryRun: false) == expected)
            #expect(try await storage.number("SELECT count(*) FROM history_items") == 0)
            #expect(try await storage.number("SELECT count(*) FROM sessions") == 1)
        }
    }

    @Test func aDryRunOfAllTasksTellsWhatARunRemoves() async throws {
        try await SessionFixture.run(settings: Settings.with(.cleanupInterval, .decimal(60))) { fixture, storage in
            try await storage.define(cap: 6)
            for number in 0..<150 {
                let id = Name(stored: "s\(number)")
                try await storage.create(
                    id, ttl: number % 3 == 0 ? 50 : nil, template: number % 2 == 0 ? .template : nil,
                    cap: number % 5 == 0 ? 8 : nil,
                    state: ["temp_x": .text(bytes: 2 + number), "k": 1, "temp_current_generation": 1])
                for item in 0..<7 { try await storage.append("i\(item)", data: .text(bytes: 2 + item), to: id) }
                _ = try await storage.debounce(.s, of: id, delayMilliseconds: 1)
            }
            fixture.advance(seconds: 4000)
            fixture.settings.apply(SettingOverrides(values: ["max_history_items": "3"], version: 1))
            try await storage.define(cap: 2)
            let tasks: [MaintenanceTask] = [.sessionExpiry, .historyCaps, .stateTemporaries, .debounceMarks]
            var announced: [Removal] = []
            for task in tasks { announced.append(try await storage.perform(task, isDryRun: true)) }
            #expect(try await storage.number("SELECT count(*) FROM sessions") == 150)
            var removed: [Removal] = []
            for task in tasks { removed.append(try await storage.perform(task, isDryRun: false)) }
            #expect(announced == removed)
            #expect(removed.allSatisfy { $0.removed > 0 })
            for task in tasks { #expect(try await storage.perform(task, isDryRun: false) == Removal(), "\(task)") }
            let wrong = try await storage.number(
                """
                SELECT count(*) FROM sessions
                WHERE history_count > coalesce(max_history_items, 3) OR (max_history_items = 8 AND history_count <> 7)
                """)
            #expect(wrong == 0)
            try await storage.expectRightFigures()
        }
    }

    @Test func viewsTellISOTimesAndResolvedFigures() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.define(defaults: ["a": 1, "b": 2])
            try await storage.create(ttl: 10, template: .template, state: ["a": 10])
            try await storage.append("i", kind: "k", data: [1])
            let row = try await storage.writer.perform { connection in
                try connection.first(
                    """
                    SELECT s.session_id, s.created_at, s.expires_at, s.version, s.state_key_count, s.state_size_bytes,
                        h.item_id, h.created_at
                    FROM session_overview s JOIN history_overview h USING (session_id)
                    """
                ) { row in
                    "\(row.text(0)) \(row.text(1)) \(row.text(2)) \(row.int(3)) \(row.int(4)) \(row.int(5)) "
                        + "\(row.text(6)) \(row.text(7))"
                }
            }
            let created = fixture.now.rfc3339
            let expires = fixture.now.advanced(milliseconds: 10_000).rfc3339
            #expect(row == "s \(created) \(expires) 1 2 3 i \(created)")
        }
    }

    /// Statements that remove a key, an item or a template, and those that only record that it existed.
    @Test func nothingIsLeftOfWhatIsGone() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.define(defaults: ["a": 1, "b": 2])
            try await storage.create(ttl: 10, template: .template, state: ["c": 3])
            // Defaults cost no rows.
            #expect(try await storage.number("SELECT count(*) FROM session_state") == 1)
            try await storage.append("i")
            fixture.advance(seconds: 9)
            _ = try await storage.session(.s)
            try await storage.flushCounters()
            #expect(try await storage.number("SELECT last_active_at_ms FROM sessions") == fixture.now.milliseconds)
            // The remains of a deleted template are removed with its last session.
            try await storage.removeTemplate(.template, condition: .none)
            #expect(try await storage.number("SELECT count(*) FROM session_templates") == 1)
            fixture.advance(seconds: 10)
            try await storage.create()
            #expect(try await storage.number("SELECT count(*) FROM history_items") == 0)
            for number in 0...Limits.maxDebounceMarks {
                _ = try await storage.debounce(Name(stored: "d\(number)"), of: .s, delayMilliseconds: 1000)
            }
            #expect(try await storage.number("SELECT count(*) FROM debounce_marks") == 1000)
            fixture.advance(seconds: 3600)
            _ = try await storage.perform(.debounceMarks, isDryRun: false)
            #expect(try await storage.number("SELECT count(*) FROM debounce_marks") == 0)
            _ = try await storage.perform(.sessionExpiry, isDryRun: false)
            #expect(try await storage.number("SELECT count(*) FROM session_templates") == 0)
        }
    }

    @Test func figuresFollowTemplatesTrimmingAndCleanUp() async throws {
        try await SessionFixture.run(settings: Settings.with(.cleanupInterval, .decimal(60))) { fixture, storage in
            try await storage.define(defaults: ["d": "default", "temp_d": 1], cap: 3)
            try await storage.create(template: .template, state: ["temp_a": "xx", "cache_b": 1, "a": 1, "p_1": 1])
            for number in 0..<5 { try await storage.append("i\(number)", data: .text(bytes: 10)) }
            try await storage.expectRightFigures()
            try await storage.patch(
                set: ["a": "longer", "temp_c": 1], setDefault: ["new": [1, 2]], delete: ["cache_b"],
                deletePrefixes: ["p_"])
            try await storage.expectRightFigures()
            try await storage.define(defaults: ["e": "other"], cap: 2)
            _ = try await storage.optimizeSession(.s, keep: ["temp_c"])
            try await storage.expectRightFigures()
            fixture.advance(seconds: 60)
            #expect(try await storage.perform(.stateTemporaries, isDryRun: false).removed == 1)
            try await storage.expectRightFigures()
        }
    }
}
