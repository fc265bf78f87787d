// History as rows: the order of commits, and long histories.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct HistoryRowTests {
    @Test func aCapLoweredByMuchIsHeldWhenTheAppendReturns() async throws {
        try await SessionFixture.run(settings: Settings.with(.maxHistoryItems, .integer(10_000))) { fixture, storage in
            try await storage.create()
            try await storage.execute(
                """
                WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 5000)
                INSERT INTO history_items (session_ref, id, created_at_ms, updated_at_ms, data)
                SELECT 1, 'i' || n, 1800000000000, 1800000000000, '1' FROM numbers
                """)
            fixture.settings.apply(SettingOverrides(values: ["max_history_items": "3"], version: 1))
            #expect(try await storage.append("new").removed == 4998)
            #expect(try await storage.itemIDs() == ["new", "i5000", "i4999"])
        }
    }

    @Test func fiftyRacingAppendersLeaveTheNewestByOrderOfCommit() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create()
            let removed = try await withThrowingTaskGroup(of: Int.self) { group in
                for appender in 0..<50 {
                    group.addTask {
                        var removed = 0
                        for number in 0..<4 { removed += try await storage.append("a\(appender)-\(number)").removed }
                        return removed
                    }
                }
                return try await group.reduce(0, +)
            }
            #expect(removed == 180)
            let left = try await storage.itemIDs()
            let newest = try await storage.writer.perform { connection in
                try connection.all("SELECT id FROM history_items ORDER BY item_ref DESC") { $0.text(0) }
            }
            #expect(left.count == 20 && left == newest)
            // Keys are assigned in the order of commits, without gaps: the newest 20 are left.
            #expect(try await storage.number("SELECT min(item_ref) FROM history_items") == 181)
            #expect(try await storage.number("SELECT max(item_ref) FROM history_items") == 200)
        }
    }

    @Test func clearingRemovesAll() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create(cap: 10_000)
            try await storage.execute(
                """
                WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2500)
                INSERT INTO history_items (session_ref, id, created_at_ms, updated_at_ms, data)
                SELECT 1, 'i' || n, 1800000000000, 1800000000000, '1' FROM numbers
                """)
            #expect(try await storage.clearHistory(of: .s) == 2500)
            #expect(try await storage.clearHistory(of: .s) == 0)
            #expect(try await storage.session(.s).historyCount == 0)
        }
    }
}
