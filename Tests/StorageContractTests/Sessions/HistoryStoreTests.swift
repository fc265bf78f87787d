// The contract of HistoryStore: caps, order, pages, patches, under racing callers too.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct HistoryStoreTests {
    @Test func theOldestBeyondTheCapGoWithTheAppend() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create()
            for number in 0..<25 {
                let append = try await storage.append("i\(number)", data: ["n": .integer(number)])
                #expect(append.isNew && append.removed == (number < 20 ? 0 : 1))
            }
            #expect(try await storage.itemIDs() == (5..<25).reversed().map { "i\($0)" })
            #expect(try await storage.itemIDs(order: .oldest) == (5..<25).map { "i\($0)" })
            let session = try await storage.session(.s)
            #expect(session.historyCount == 20 && session.historySizeBytes == 5 * 7 + 15 * 8)
            try await storage.expectRightFigures()
        }
    }

    @Test func capsComeFromSessionThenTemplateThenSetting() async throws {
        try await SessionFixture.run(settings: Settings.with(.maxHistoryItems, .integer(4))) { _, storage in
            try await storage.define(cap: 3)
            let ids = ["setting", "template", "own"].map { Name(stored: $0) }
            try await storage.create(ids[0])
            try await storage.create(ids[1], template: .template)
            try await storage.create(ids[2], template: .template, cap: 2)
            for id in ids {
                for _ in 0..<6 { try await storage.append(to: id) }
            }
            var counts: [Int] = []
            for id in ids { counts.append(try await storage.session(id).historyCount) }
            #expect(counts == [4, 3, 2])
            try await storage.removeTemplate(.template, condition: .none)
            try await storage.append(to: ids[1])
            #expect(try await storage.session(ids[1]).historyCount == 4)
        }
    }

    @Test func loweredCapsAreHeldByTheNextAppendOrCleanup() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.define(cap: 9)
            try await storage.create()
            try await storage.create(Name(stored: "t"), template: .template)
            for number in 0..<9 {
                try await storage.append("i\(number)")
                try await storage.append("i\(number)", to: Name(stored: "t"))
            }
            fixture.settings.apply(SettingOverrides(values: ["max_history_items": "4"], version: 1))
            try await storage.define(cap: 2)
            #expect(try await storage.itemIDs().count == 9)
            #expect(try await storage.perform(.historyCaps, isDryRun: true) == Removal(removed: 12, freedBytes: 12))
            #expect(try await storage.append("new").removed == 6)
            #expect(try await storage.itemIDs() == ["new", "i8", "i7", "i6"])
            #expect(try await storage.perform(.historyCaps, isDryRun: false) == Removal(removed: 7, freedBytes: 7))
            #expect(try await storage.itemIDs(of: Name(stored: "t")) == ["i8", "i7"])
        }
    }

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

    @Test func appendingTheSameIdAgainAppendsNothing() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(cap: 2)
            let first = try await storage.append("i", kind: "k", data: 1)
            fixture.advance(seconds: 1)
            let again = try await storage.append("i", data: 2)
            #expect(!again.isNew && again.removed == 0 && again.item == first.item)
            try await storage.append("j")
            try await storage.append("i")
            #expect(try await storage.itemIDs() == ["j", "i"])
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
            // Keys are given in the order of commits, without gaps: the newest 20 are those left.
            #expect(try await storage.number("SELECT min(item_ref) FROM history_items") == 181)
            #expect(try await storage.number("SELECT max(item_ref) FROM history_items") == 200)
        }
    }

    @Test func racingAppendsOfOneIdAppendOnce() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create()
            let appends = try await withThrowingTaskGroup(of: HistoryAppend.self) { group in
                for number in 0..<30 { group.addTask { try await storage.append("same", data: .integer(number)) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(appends.count { $0.isNew } == 1)
            #expect(Set(appends.map(\.item.data)).count == 1)
        }
    }

    // MARK: Pages

    @Test func pagesStayRightWhileItemsComeAndGo() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create(cap: 1000)
            for number in 0..<30 { try await storage.append("i\(number)") }
            for order in HistoryOrder.allCases {
                var seen: [String] = []
                var position: CollectionPosition?
                var round = 0
                repeat {
                    let page = try await storage.history(of: .s, kind: nil, order: order, after: position, limit: 4)
                    seen += page.items.map(\.id.rawValue)
                    position = page.next
                    try await storage.append("\(order)\(round)")
                    // The very item the next page begins after goes.
                    if round == 1 {
                        try await storage.removeHistoryItem(page.items.last!.id, of: .s, condition: .none)
                    }
                    round += 1
                } while position != nil && round < 100
                #expect(Set(seen).count == seen.count, "none comes twice")
                let stayed = try await storage.itemIDs().filter { $0.hasPrefix("i") }
                #expect(Set(stayed).isSubset(of: seen), "none is left out")
            }
        }
    }

    @Test func pagesEndAtABoundOfBytes() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create(cap: 100)
            for number in 0..<20 {
                try await storage.append("i\(number)", data: .text(bytes: Limits.maxHistoryItemBytes))
            }
            let page = try await storage.history(of: .s, kind: nil, order: .oldest, after: nil, limit: 500)
            #expect(page.items.count == 16 && page.next != nil)
            #expect(try await storage.itemIDs(order: .oldest) == (0..<20).map { "i\($0)" })
            #expect(
                await code { try await storage.append(data: .text(bytes: Limits.maxHistoryItemBytes + 1)) }
                    == .payloadTooLarge)
        }
    }

    @Test func kindsAreFiltered() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create()
            for number in 0..<10 { try await storage.append("i\(number)", kind: number % 3 == 0 ? "a" : nil) }
            #expect(try await storage.itemIDs(kind: "a", limit: 2) == ["i9", "i6", "i3", "i0"])
            #expect(try await storage.itemIDs(kind: "b") == [])
        }
    }

    // MARK: Single items

    @Test func itemsAreMergedAndRemoved() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create()
            let item = try await storage.append("i", data: ["prompt": "calm", "rating": nil]).item
            fixture.advance(seconds: 1)
            let rated = try await storage.patchHistoryItem(
                item.id, of: .s, patch: ["rating": 5, "prompt": nil],
                condition: EntityCondition(match: .strong(item.tag)))
            #expect(rated.data == JSONText(["rating": 5]))
            #expect(rated.updatedAt == fixture.now && rated.createdAt == item.createdAt && rated.tag != item.tag)
            #expect(try await storage.historyItem(item.id, of: .s) == rated)
            fixture.advance(seconds: 1)
            let same = try await storage.patchHistoryItem(item.id, of: .s, patch: ["rating": 5], condition: .none)
            #expect(same == rated)
            let stale = EntityCondition(match: .strong(item.tag))
            #expect(
                await code { try await storage.patchHistoryItem(item.id, of: .s, patch: 1, condition: stale) }
                    == .preconditionFailed)
            #expect(
                await code { try await storage.removeHistoryItem(item.id, of: .s, condition: stale) }
                    == .preconditionFailed)
            let grown: JSON = ["x": .text(bytes: Limits.maxHistoryItemBytes)]
            #expect(
                await code {
                    try await storage.patchHistoryItem(item.id, of: .s, patch: grown, condition: .none)
                }
                    == .payloadTooLarge)
            try await storage.removeHistoryItem(item.id, of: .s, condition: .none)
            for work in [
                { _ = try await storage.historyItem(item.id, of: .s) },
                { try await storage.removeHistoryItem(item.id, of: .s, condition: .none) },
                { _ = try await storage.patchHistoryItem(item.id, of: .s, patch: 1, condition: .none) },
            ] as [() async throws -> Void] {
                #expect(await code(of: work) == .historyItemNotFound)
            }
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

    // MARK: Across sessions

    @Test func historyAcrossSessions() async throws {
        try await SessionFixture.run { fixture, storage in
            let (a, b) = (Name(stored: "a"), Name(stored: "b"))
            try await storage.create(a, ttl: 100)
            try await storage.create(b)
            let start = fixture.now
            for number in 0..<6 {
                try await storage.append("i\(number)", kind: number < 4 ? "x" : "y", to: number % 2 == 0 ? a : b)
                fixture.advance(seconds: number == 2 ? 0 : 1)
            }
            func ids(_ filter: HistoryFilter, limit: Int = 2) async throws -> [String] {
                var ids: [String] = []
                var position: CollectionPosition?
                repeat {
                    let page = try await storage.history(filter, after: position, limit: limit)
                    ids += page.items.map { "\($0.sessionID)/\($0.id)" }
                    position = page.next
                } while position != nil
                return ids
            }
            #expect(try await ids(HistoryFilter()) == ["b/i5", "a/i4", "b/i3", "a/i2", "b/i1", "a/i0"])
            #expect(try await ids(HistoryFilter(kind: Name(stored: "x"))) == ["b/i3", "a/i2", "b/i1", "a/i0"])
            let window = HistoryFilter(
                since: start.advanced(milliseconds: 1000), until: start.advanced(milliseconds: 3000))
            #expect(try await ids(window) == ["b/i3", "a/i2", "b/i1"])
            var kindWindow = window
            kindWindow.kind = Name(stored: "y")
            #expect(try await ids(kindWindow) == [])
            // Kept alive by a read alone, then not.
            fixture.advance(seconds: 60)
            _ = try await storage.session(a)
            fixture.advance(seconds: 60)
            #expect(try await ids(HistoryFilter()).count == 6)
            fixture.advance(seconds: 40)
            #expect(try await ids(HistoryFilter()) == ["b/i5", "b/i3", "b/i1"])
        }
    }
}
