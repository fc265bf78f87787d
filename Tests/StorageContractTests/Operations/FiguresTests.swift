// The engine's figures for monitoring: right, monotonic, and there when the database is not.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct FiguresTests {
    private let name = Name(stored: "n")

    private func stored(_ storage: SQLiteStorage) async throws -> OperationalFigures.Stored {
        try #require(await storage.operationalFigures().stored)
    }

    private func figures(_ storage: SQLiteStorage) async throws -> OperationalFigures.NamespaceFigures {
        try #require(try await stored(storage).namespaces.first { $0.name == name })
    }

    private func look(_ storage: SQLiteStorage, _ key: String) async {
        _ = try? await storage.read(EntryAddress(namespace: name, key: Key(stored: key)))
    }

    @Test func lookupsAreThoseSinceTheStart() async throws {
        let folder = TemporaryFolder()
        let clock = ManualClock()
        for _ in 0..<2 {
            let storage = try makeStorage(in: folder, clock: clock)
            try await storage.put("k", in: name)
            for round in 1...3 {
                await look(storage, "k")
                await look(storage, "absent")
                // Written in between or not.
                if round != 2 { try await storage.flushCounters() }
                let figures = try await figures(storage)
                #expect(figures.hits == round)
                #expect(figures.misses == [.absent: round])
            }
            await storage.close()
        }
    }

    @Test func anUndoneFlushCountsNothingTwice() async throws {
        try await withStorage { storage, _ in
            try await storage.put("k", in: name)
            for _ in 0..<5 { await look(storage, "k") }
            let id = try #require(storage.ledger.waiting().first?.namespaceID)
            let withdrawal = AccessLedger.Withdrawal(from: storage.ledger)
            #expect(withdrawal.takeCounters(namespaceID: id, entries: 10).lookups.hits == 5)
            #expect(try await figures(storage).hits == 5)
            withdrawal.undo()
            #expect(try await figures(storage).hits == 5)
            try await storage.flushCounters()
            #expect(try await figures(storage).hits == 5)
        }
    }

    @Test func aRemovedNamespaceIsForgotten() async throws {
        try await withStorage { storage, _ in
            try await storage.put("k", in: name)
            await look(storage, "k")
            try await storage.flushCounters()
            try await storage.removeNamespace(name)
            #expect(try await stored(storage).namespaces == [])
            try await storage.put("k", in: name)
            #expect(try await figures(storage).hits == 0)
        }
    }

    @Test func entriesAreThoseThatLive() async throws {
        try await withStorage { storage, clock in
            _ = try await storage.batch(
                [
                    .set(CacheWrite("a", [1, 2, 3], lifetime: .milliseconds(1000))),
                    .set(CacheWrite("b", [1], lifetime: .milliseconds(9000))),
                ], namespace: name, atomic: true)
            var figures = try await figures(storage)
            #expect((figures.entryCount, figures.sizeBytes, figures.expirations) == (2, 4, 0))
            clock.advance(milliseconds: 1000)
            for _ in 0..<2 {
                figures = try await self.figures(storage)
                #expect((figures.entryCount, figures.sizeBytes, figures.expirations) == (1, 1, 1))
                _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            }
        }
    }

    @Test func lagIsHowLateTheOldestIs() async throws {
        try await withStorage { storage, clock in
            #expect(try await stored(storage).lagSeconds == [.cache: 0, .cleared: 0, .sessions: 0, .debounces: 0])
            _ = try await storage.batch(
                [.set(CacheWrite("a", [1], lifetime: .milliseconds(1000)))], namespace: name, atomic: true)
            #expect(try await stored(storage).lagSeconds[.cache] == 0)
            clock.advance(milliseconds: 3500)
            #expect(try await stored(storage).lagSeconds[.cache] == 2.5)
            _ = try await storage.clear(name, filter: EntryFilter())
            clock.advance(milliseconds: 500)
            #expect(try await stored(storage).lagSeconds[.cleared] == 0.5)
            _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            #expect(try await stored(storage).lagSeconds == [.cache: 0, .cleared: 0, .sessions: 0, .debounces: 0])
        }
    }

    @Test func writesAndCommitsAreCounted() async throws {
        try await withStorage { storage, _ in
            for number in 0..<5 { try await storage.put("k\(number)", in: name) }
            let figures = await storage.operationalFigures()
            #expect(figures.writes >= 5)
            #expect(figures.groupSizes.sum == Double(figures.writes))
            #expect(figures.groupSizes.count == figures.commitSeconds.count)
            #expect(figures.commitSeconds.sum > 0)
            #expect(figures.queuedWrites == 0)
            #expect(figures.databaseBytes > 0 && figures.logBytes > 0)
        }
    }

    @Test func readingThemWritesNothing() async throws {
        try await withStorage { storage, _ in
            try await storage.put("k", in: name)
            await look(storage, "k")
            let writes = storage.writer.statistics.operations
            for _ in 0..<3 { _ = await storage.operationalFigures() }
            #expect(storage.writer.statistics.operations == writes)
        }
    }

    @Test func aClosedDatabaseLeavesWhatMemoryKnows() async throws {
        let folder = TemporaryFolder()
        let storage = try makeStorage(in: folder, clock: ManualClock())
        try await storage.put("k", in: name)
        await storage.close()
        let figures = await storage.operationalFigures()
        #expect(figures.stored == nil)
        #expect(figures.writes >= 1)
    }
}
