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

    @Test func commitsAndFilesAreMeasured() async throws {
        try await withStorage { storage, _ in
            for number in 0..<5 { try await storage.put("k\(number)", in: name) }
            let figures = await storage.operationalFigures()
            var numbers: [String: Double] = [:]
            var histograms: [String: Histogram] = [:]
            for figure in figures.engine {
                switch figure.value {
                case .gauge(let value), .counter(let value): numbers[figure.name] = value
                case .histogram(let histogram): histograms[figure.name] = histogram
                }
            }
            let groups = try #require(histograms["reprise_writer_group_size"])
            let commits = try #require(histograms["reprise_writer_commit_duration_seconds"])
            #expect(groups.sum == Double(figures.writes))
            #expect(groups.count == commits.count)
            #expect(commits.sum > 0)
            #expect(numbers["reprise_writer_commits_total"] == Double(groups.count))
            #expect(numbers["reprise_writer_queued_writes"] == 0)
            #expect(numbers["reprise_writer_queued_bytes"] == 0)
            #expect(try #require(numbers["reprise_database_size_bytes"]) > 0)
            #expect(try #require(numbers["reprise_database_wal_size_bytes"]) > 0)
            // A new database has no free pages.
            #expect(numbers["reprise_database_free_bytes"] == 0)
            #expect(numbers.count + histograms.count == 8)
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
        let own = Set(figures.engine.map(\.name))
        #expect(own.contains("reprise_writer_commits_total") && !own.contains("reprise_database_free_bytes"))
    }
}
