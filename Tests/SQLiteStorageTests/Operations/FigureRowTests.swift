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
            #expect(numbers["reprise_storage_full"] == 0)
            #expect(numbers["reprise_storage_refused_writes_total"] == 0)
            #expect(numbers["reprise_storage_reserve_bytes"] == Double(StorageLimits.reserveBytes))
            #expect(try #require(numbers["reprise_storage_free_bytes"]) > 0)
            #expect(numbers["reprise_cache_damaged_reads_total"] == 0)
            #expect(numbers["reprise_clock_jumps_total"] == 0)
            #expect(numbers["reprise_clock_last_jump_seconds"] == 0)
            #expect(numbers["reprise_database_limit_bytes"] == 0)
            #expect(numbers["reprise_uploads_unfinished_bytes"] == 0)
            #expect(numbers.count + histograms.count == 24)
        }
    }

    @Test func backupsAreMeasured() async throws {
        try await withStorage(settings: Settings.with(.backupInterval, .decimal(3600))) { storage, clock in
            func numbers() async -> [String: Double] {
                await storage.operationalFigures().engine.reduce(into: [:]) { numbers, figure in
                    switch figure.value {
                    case .gauge(let value), .counter(let value): numbers[figure.name] = value
                    case .histogram: break
                    }
                }
            }
            let before = await numbers()
            #expect(before["reprise_backups"] == 0 && before["reprise_backup_last_success_timestamp_seconds"] == 0)
            #expect(before["reprise_backup_interval_seconds"] == 3600)
            let made = try await storage.createBackup()
            let after = await numbers()
            #expect(after["reprise_backups"] == 1 && after["reprise_backup_failures_total"] == 0)
            #expect(
                after["reprise_backup_last_success_timestamp_seconds"] == Double(clock.now.milliseconds) / 1000)
            for name in ["reprise_backups_size_bytes", "reprise_backup_last_size_bytes"] {
                #expect(after[name] == Double(made.sizeBytes))
            }
            #expect(after["reprise_backup_last_duration_seconds"] == made.durationSeconds)
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
