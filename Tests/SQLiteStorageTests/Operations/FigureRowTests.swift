// The monitoring metrics that come from memory.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct FigureRowTests {
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
