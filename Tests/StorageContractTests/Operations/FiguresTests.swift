// The contract of OperationalStore, run over every storage engine: correct, monotonic, and available without a
// database.

import Domain
import TestSupport
import Testing

struct FiguresTests {
    private let name = Name(stored: "n")

    private func stored(_ store: any Engine.Store) async throws -> OperationalFigures.Stored {
        try #require(await store.operationalFigures().stored)
    }

    private func figures(_ store: any Engine.Store) async throws -> OperationalFigures.NamespaceFigures {
        try #require(try await stored(store).namespaces.first { $0.name == name })
    }

    private func look(_ store: any Engine.Store, _ key: String) async {
        _ = try? await store.read(EntryAddress(namespace: name, key: Key(stored: key)))
    }

    @Test(arguments: Engine.allCases)
    func lookupsAreThoseSinceTheStart(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            try await countLookups(store)
        } reopened: { store, _ async throws in
            try await countLookups(store)
        }
    }

    private func countLookups(_ store: any Engine.Store) async throws {
        try await store.put("k", in: name)
        for round in 1...3 {
            await look(store, "k")
            await look(store, "absent")
            // Whether or not it was written in between.
            if round != 2 { try await store.flushCounters() }
            let figures = try await figures(store)
            #expect(figures.hits == round)
            #expect(figures.misses == [.absent: round])
        }
    }

    @Test(arguments: Engine.allCases)
    func aRemovedNamespaceIsForgotten(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            try await store.put("k", in: name)
            await look(store, "k")
            try await store.flushCounters()
            try await store.removeNamespace(name)
            #expect(try await stored(store).namespaces == [])
            try await store.put("k", in: name)
            #expect(try await figures(store).hits == 0)
        }
    }

    @Test(arguments: Engine.allCases)
    func entriesAreThoseThatLive(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            _ = try await store.batch(
                [
                    .set(CacheWrite("a", [1, 2, 3], lifetime: .milliseconds(1000))),
                    .set(CacheWrite("b", [1], lifetime: .milliseconds(9000))),
                ], namespace: name, atomic: true)
            var figures = try await figures(store)
            #expect((figures.entryCount, figures.sizeBytes, figures.expirations) == (2, 4, 0))
            clock.advance(milliseconds: 1000)
            for _ in 0..<2 {
                figures = try await self.figures(store)
                #expect((figures.entryCount, figures.sizeBytes, figures.expirations) == (1, 1, 1))
                _ = try await store.perform(.cacheExpiry, isDryRun: false)
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func lagIsHowLateTheOldestIs(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            #expect(try await stored(store).lagSeconds == [.cache: 0, .cleared: 0, .sessions: 0, .debounces: 0])
            _ = try await store.batch(
                [.set(CacheWrite("a", [1], lifetime: .milliseconds(1000)))], namespace: name, atomic: true)
            #expect(try await stored(store).lagSeconds[.cache] == 0)
            clock.advance(milliseconds: 3500)
            #expect(try await stored(store).lagSeconds[.cache] == 2.5)
            _ = try await store.clear(name, filter: EntryFilter())
            clock.advance(milliseconds: 500)
            #expect(try await stored(store).lagSeconds[.cleared] == 0.5)
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            #expect(try await stored(store).lagSeconds == [.cache: 0, .cleared: 0, .sessions: 0, .debounces: 0])
        }
    }

    @Test(arguments: Engine.allCases)
    func writesAreCounted(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            for number in 0..<5 { try await store.put("k\(number)", in: name) }
            #expect(await store.operationalFigures().writes >= 5)
        }
    }

    /// Monitoring takes them as they are.
    @Test(arguments: Engine.allCases)
    func theEnginesOwnFiguresAreWellNamed(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let figures = await store.operationalFigures().engine
            #expect(Set(figures.map(\.name)).count == figures.count)
            for figure in figures {
                #expect(figure.name.wholeMatch(of: /reprise(_[a-z]+)+/) != nil, "\(figure.name)")
                var isCounter = false
                if case .counter = figure.value { isCounter = true }
                #expect(figure.name.hasSuffix("_total") == isCounter, "\(figure.name)")
                #expect(figure.help.hasSuffix("."), "\(figure.name)")
                #expect(!figure.help.contains { $0 == "\\" || $0 == "\n" }, "\(figure.name)")
            }
            // The same metrics each time, and a name means one thing.
            try await store.put("k", in: name)
            #expect(await store.operationalFigures().engine.map(\.name) == figures.map(\.name))
        }
    }

    @Test(arguments: Engine.allCases)
    func readingThemWritesNothing(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            try await store.put("k", in: name)
            await look(store, "k")
            let writes = await store.operationalFigures().writes
            for _ in 0..<3 { _ = await store.operationalFigures() }
            #expect(await store.operationalFigures().writes == writes)
        }
    }
}
