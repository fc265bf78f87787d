// The contract of HistoryStore, run over every storage engine: caps, order, pages, patches, also with racing callers.

import Domain
import TestSupport
import Testing

struct HistoryStoreTests {
    @Test(arguments: Engine.allCases)
    func theOldestBeyondTheCapGoWithTheAppend(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.create()
            for number in 0..<25 {
                let append = try await store.append("i\(number)", data: ["n": .integer(number)])
                #expect(append.isNew && append.removed == (number < 20 ? 0 : 1))
            }
            #expect(try await store.itemIDs() == (5..<25).reversed().map { "i\($0)" })
            #expect(try await store.itemIDs(order: .oldest) == (5..<25).map { "i\($0)" })
            let session = try await store.session(.s)
            #expect(session.historyCount == 20 && session.historySizeBytes == 5 * 7 + 15 * 8)
        }
    }

    @Test(arguments: Engine.allCases)
    func capsComeFromSessionThenTemplateThenSetting(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(4))) { store, _ async throws in
            try await store.define(cap: 3)
            let ids = ["setting", "template", "own"].map { Name(stored: $0) }
            try await store.create(ids[0])
            try await store.create(ids[1], template: .template)
            try await store.create(ids[2], template: .template, cap: 2)
            for id in ids {
                for _ in 0..<6 { try await store.append(to: id) }
            }
            var counts: [Int] = []
            for id in ids { counts.append(try await store.session(id).historyCount) }
            #expect(counts == [4, 3, 2])
            try await store.removeTemplate(.template, condition: .none)
            try await store.append(to: ids[1])
            #expect(try await store.session(ids[1]).historyCount == 4)
        }
    }

    @Test(arguments: Engine.allCases)
    func loweredCapsAreHeldByTheNextAppendOrCleanup(engine: Engine) async throws {
        let settings = Settings.with(.maxHistoryItems, .integer(20))
        try await engine.run(settings: settings) { store, clock async throws in
            try await store.define(cap: 9)
            try await store.create()
            try await store.create(Name(stored: "t"), template: .template)
            for number in 0..<9 {
                try await store.append("i\(number)")
                try await store.append("i\(number)", to: Name(stored: "t"))
            }
            settings.apply(SettingOverrides(values: ["max_history_items": "4"], version: 1))
            try await store.define(cap: 2)
            #expect(try await store.itemIDs().count == 9)
            #expect(try await store.perform(.historyCaps, isDryRun: true) == Removal(removed: 12, freedBytes: 12))
            #expect(try await store.append("new").removed == 6)
            #expect(try await store.itemIDs() == ["new", "i8", "i7", "i6"])
            #expect(try await store.perform(.historyCaps, isDryRun: false) == Removal(removed: 7, freedBytes: 7))
            #expect(try await store.itemIDs(of: Name(stored: "t")) == ["i8", "i7"])
        }
    }

    @Test(arguments: Engine.allCases)
    func appendingTheSameIdAgainAppendsNothing(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create(cap: 2)
            let first = try await store.append("i", kind: "k", data: 1)
            clock.advance(seconds: 1)
            let again = try await store.append("i", data: 2)
            #expect(!again.isNew && again.removed == 0 && again.item == first.item)
            try await store.append("j")
            try await store.append("i")
            #expect(try await store.itemIDs() == ["j", "i"])
        }
    }

    @Test(arguments: Engine.allCases)
    func racingAppendsOfOneIdAppendOnce(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.create()
            let appends = try await withThrowingTaskGroup(of: HistoryAppend.self) { group in
                for number in 0..<30 { group.addTask { try await store.append("same", data: .integer(number)) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(appends.count { $0.isNew } == 1)
            #expect(Set(appends.map(\.item.data)).count == 1)
        }
    }

    // MARK: Pages

    @Test(arguments: Engine.allCases)
    func pagesStayRightWhileItemsComeAndGo(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.create(cap: 1000)
            for number in 0..<30 { try await store.append("i\(number)") }
            for order in HistoryOrder.allCases {
                var seen: [String] = []
                var position: CollectionPosition?
                var round = 0
                repeat {
                    let page = try await store.history(of: .s, kind: nil, order: order, after: position, limit: 4)
                    seen += page.items.map(\.id.rawValue)
                    position = page.next
                    try await store.append("\(order)\(round)")
                    // Exactly the item after which the next page begins is removed.
                    if round == 1 {
                        try await store.removeHistoryItem(page.items.last!.id, of: .s, condition: .none)
                    }
                    round += 1
                } while position != nil && round < 100
                #expect(Set(seen).count == seen.count, "none comes twice")
                let stayed = try await store.itemIDs().filter { $0.hasPrefix("i") }
                #expect(Set(stayed).isSubset(of: seen), "none is left out")
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func pagesEndAtABoundOfBytes(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.create(cap: 100)
            for number in 0..<20 {
                try await store.append("i\(number)", data: .text(bytes: Limits.maxHistoryItemBytes))
            }
            let page = try await store.history(of: .s, kind: nil, order: .oldest, after: nil, limit: 500)
            #expect(page.items.count == 16 && page.next != nil)
            #expect(try await store.itemIDs(order: .oldest) == (0..<20).map { "i\($0)" })
            #expect(
                await code { try await store.append(data: .text(bytes: Limits.maxHistoryItemBytes + 1)) }
                    == .payloadTooLarge)
        }
    }

    @Test(arguments: Engine.allCases)
    func kindsAreFiltered(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.create()
            for number in 0..<10 { try await store.append("i\(number)", kind: number % 3 == 0 ? "a" : nil) }
            #expect(try await store.itemIDs(kind: "a", limit: 2) == ["i9", "i6", "i3", "i0"])
            #expect(try await store.itemIDs(kind: "b") == [])
        }
    }

    // MARK: Single items

    @Test(arguments: Engine.allCases)
    func itemsAreMergedAndRemoved(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create()
            let item = try await store.append("i", data: ["prompt": "calm", "rating": nil]).item
            clock.advance(seconds: 1)
            let rated = try await store.patchHistoryItem(
                item.id, of: .s, patch: ["rating": 5, "prompt": nil],
                condition: EntityCondition(match: .strong(item.tag)))
            #expect(rated.data == JSONText(["rating": 5]))
            #expect(rated.updatedAt == clock.now && rated.createdAt == item.createdAt && rated.tag != item.tag)
            #expect(try await store.historyItem(item.id, of: .s) == rated)
            clock.advance(seconds: 1)
            let same = try await store.patchHistoryItem(item.id, of: .s, patch: ["rating": 5], condition: .none)
            #expect(same == rated)
            let stale = EntityCondition(match: .strong(item.tag))
            #expect(
                await code { try await store.patchHistoryItem(item.id, of: .s, patch: 1, condition: stale) }
                    == .preconditionFailed)
            #expect(
                await code { try await store.removeHistoryItem(item.id, of: .s, condition: stale) }
                    == .preconditionFailed)
            let grown: JSON = ["x": .text(bytes: Limits.maxHistoryItemBytes)]
            #expect(
                await code {
                    try await store.patchHistoryItem(item.id, of: .s, patch: grown, condition: .none)
                }
                    == .payloadTooLarge)
            try await store.removeHistoryItem(item.id, of: .s, condition: .none)
            for work in [
                { _ = try await store.historyItem(item.id, of: .s) },
                { try await store.removeHistoryItem(item.id, of: .s, condition: .none) },
                { _ = try await store.patchHistoryItem(item.id, of: .s, patch: 1, condition: .none) },
            ] as [() async throws -> Void] {
                #expect(await code(of: work) == .historyItemNotFound)
            }
        }
    }

    // MARK: Across sessions

    @Test(arguments: Engine.allCases)
    func historyAcrossSessions(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            let (a, b) = (Name(stored: "a"), Name(stored: "b"))
            try await store.create(a, ttl: 100)
            try await store.create(b)
            let start = clock.now
            for number in 0..<6 {
                try await store.append("i\(number)", kind: number < 4 ? "x" : "y", to: number % 2 == 0 ? a : b)
                clock.advance(seconds: number == 2 ? 0 : 1)
            }
            func ids(_ filter: HistoryFilter, limit: Int = 2) async throws -> [String] {
                var ids: [String] = []
                var position: CollectionPosition?
                repeat {
                    let page = try await store.history(filter, after: position, limit: limit)
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
            clock.advance(seconds: 60)
            _ = try await store.session(a)
            clock.advance(seconds: 60)
            #expect(try await ids(HistoryFilter()).count == 6)
            clock.advance(seconds: 40)
            #expect(try await ids(HistoryFilter()) == ["b/i5", "b/i3", "b/i1"])
        }
    }
}
