// The activity of the cache and the background tasks in a span of time: exact, bounded, kept across restarts.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct CacheFiguresTests {
    private static let minute: Int64 = 60_000
    private static let hour: Int64 = 3_600_000

    private func figures(
        _ storage: SQLiteStorage, _ clock: ManualClock, last milliseconds: Int64, step: Int64? = nil, limit: Int = 50
    ) async throws -> CacheFigures {
        let until = clock.now.advanced(milliseconds: 1)
        return try await storage.figures(
            in: MetricRange(since: until.advanced(milliseconds: -milliseconds), until: until), stepMilliseconds: step,
            limit: limit)
    }

    private func look(_ storage: SQLiteStorage, _ key: String, in name: Name = .n, times: Int = 1) async {
        for _ in 0..<times { _ = try? await storage.read(EntryAddress(key, in: name)) }
    }

    private func rows(_ storage: SQLiteStorage) async throws -> [String] {
        try await storage.readers.pooled { connection in
            try connection.all(
                "SELECT period_seconds, namespace_id, hits FROM cache_activity ORDER BY 1, start_ms, 2"
            ) { "\($0.int(0)) \($0.int(1)) \($0.int(2))" }
        }
    }

    @Test func everyReasonHasAColumn() {
        let columns: Set = ["absent", "expired", "evicted", "deleted", "cleared"]
        #expect(columns.isSuperset(of: MissReason.allCases.map(\.rawValue)))
    }

    @Test func countsAreThoseOfTheRange() async throws {
        try await withStorage { storage, clock in
            try await storage.put("k", lifetime: .never)
            await look(storage, "k", times: 3)
            clock.advance(milliseconds: 10 * Self.minute)
            // Counts in memory belong to the minute in which they happened, written or not.
            for isFlushed in [false, true] {
                if isFlushed { try await storage.flushCounters() }
                #expect(try await figures(storage, clock, last: 5 * Self.minute).totals == CacheActivity())
                #expect(try await figures(storage, clock, last: 15 * Self.minute).totals == CacheActivity(hits: 3))
            }
            await look(storage, "k")
            await look(storage, "absent", times: 2)
            let recent = CacheActivity(hits: 1, misses: [.absent: 2])
            #expect(try await figures(storage, clock, last: 5 * Self.minute).totals == recent)
            let all = try await figures(storage, clock, last: 15 * Self.minute, step: Self.minute)
            #expect(all.totals == CacheActivity(hits: 4, misses: [.absent: 2]))
            #expect(all.busiest.map(\.activity) == [all.totals])
            #expect(all.steps.values.sorted { $0.hits > $1.hits } == [CacheActivity(hits: 3), recent])
            let lifetime = try await storage.namespace(.n)
            #expect(lifetime.hits == 4 && lifetime.missCount == 2)
        }
    }

    @Test func expirationsAndEvictionsAreThoseOfTheRange() async throws {
        try await withStorage { storage, clock in
            _ = try await storage.setPolicy(CachePolicy(maxEntries: 2), of: .n)
            for key in ["a", "b", "c"] { try await storage.put(key, lifetime: .milliseconds(1000)) }
            #expect(try await figures(storage, clock, last: Self.minute).totals == CacheActivity(evictions: 1))
            clock.advance(milliseconds: 10 * Self.minute)
            for _ in 0..<2 {
                let recent = try await figures(storage, clock, last: Self.minute)
                #expect(recent.totals == CacheActivity(expirations: 2))
                #expect(recent.entryCount == 0)
                _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            }
            let all = try await figures(storage, clock, last: 20 * Self.minute)
            #expect(all.totals == CacheActivity(expirations: 2, evictions: 1))
        }
    }

    @Test func nothingIsLostOrCountedTwiceOverARestart() async throws {
        let folder = TemporaryFolder()
        let clock = ManualClock()
        for round in 1...3 {
            let storage = try makeStorage(in: folder, clock: clock)
            try await storage.put("k", lifetime: .never)
            await look(storage, "k", times: 2)
            try await storage.flushCounters()
            await look(storage, "k")
            #expect(try await figures(storage, clock, last: Self.hour).totals == CacheActivity(hits: 3 * round))
            await storage.close()
            clock.advance(milliseconds: Self.minute)
        }
    }

    @Test func anUndoneFlushCountsNothingTwice() async throws {
        try await withStorage { storage, clock in
            try await storage.put("k", lifetime: .never)
            await look(storage, "k", times: 5)
            let id = try #require(storage.ledger.waiting().first?.namespaceID)
            let withdrawal = AccessLedger.Withdrawal(from: storage.ledger)
            _ = withdrawal.takeCounters(namespaceID: id, entries: 10)
            withdrawal.undo()
            clock.advance(milliseconds: 3 * Self.minute)
            #expect(try await figures(storage, clock, last: Self.minute).totals == CacheActivity())
            try await storage.flushCounters()
            #expect(try await figures(storage, clock, last: Self.hour).totals == CacheActivity(hits: 5))
        }
    }

    @Test func moreNamespacesThanAPageAreAllCounted() async throws {
        try await withStorage { storage, clock in
            let count = Limits.maxPageItems + 3
            for number in 0..<count {
                try await storage.put("k", in: Name(stored: "n\(number)"))
            }
            // By name, the busiest come last.
            let busiest = [("z1", 4), ("z0", 3), ("z2", 2)]
            for (name, times) in busiest {
                try await storage.put("k", in: Name(stored: name))
                await look(storage, "k", in: Name(stored: name), times: times)
            }
            let found = try await figures(storage, clock, last: Self.hour, limit: 2)
            #expect(found.namespaceCount == count + 3)
            #expect(found.entryCount == count + 3)
            #expect(found.totals == CacheActivity(hits: 9))
            #expect(found.busiest.map(\.name.rawValue) == ["z1", "z0"])
        }
    }

    @Test func aRemovedNamespaceStaysInTheTotals() async throws {
        try await withStorage { storage, clock in
            try await storage.put("k", lifetime: .never)
            await look(storage, "k", times: 2)
            try await storage.flushCounters()
            try await storage.removeNamespace(.n)
            let found = try await figures(storage, clock, last: Self.hour)
            #expect(found.totals == CacheActivity(hits: 2))
            #expect(found.busiest == [] && found.namespaceCount == 0)
            try await storage.put("k", lifetime: .never)
            #expect(try await figures(storage, clock, last: Self.hour).busiest.first?.activity == CacheActivity())
        }
    }

    // MARK: Bounds

    @Test func minutesBecomeHoursAndHoursGo() async throws {
        try await withStorage { storage, clock in
            clock.advance(milliseconds: Self.hour - clock.now.milliseconds % Self.hour)
            let gone = Name(stored: "gone")
            try await storage.put("k", lifetime: .never)
            try await storage.put("k", in: gone, lifetime: .never)
            for _ in 0..<3 {
                await look(storage, "k", times: 2)
                await look(storage, "k", in: gone)
                try await storage.flushCounters()
                clock.advance(milliseconds: Self.minute)
            }
            try await storage.removeNamespace(gone)
            clock.advance(milliseconds: 24 * Self.hour - 3 * Self.minute)
            _ = try await storage.perform(.sampleRollup, isDryRun: false)
            #expect(try await rows(storage).count == 6)
            let day = try await figures(storage, clock, last: 24 * Self.hour)
            #expect(day.resolution == .minute && day.totals == CacheActivity(hits: 6 + 3))
            clock.advance(milliseconds: 2 * Self.hour)
            for _ in 0..<2 {
                _ = try await storage.perform(.sampleRollup, isDryRun: false)
                #expect(try await rows(storage) == ["3600 0 3", "3600 1 6"])
            }
            let all = try await figures(storage, clock, last: 30 * Self.hour, step: Self.hour)
            #expect(all.resolution == .hour && all.totals == day.totals && all.busiest == day.busiest)
            #expect(Array(all.steps.values) == [day.totals])
            // Late counts of the same hour are added to it.
            try await storage.transaction { transaction in
                try transaction.record(
                    CacheActivity(hits: 1), namespaceID: 1, at: clock.now.advanced(milliseconds: -26 * Self.hour))
            }
            _ = try await storage.perform(.sampleRollup, isDryRun: false)
            #expect(try await rows(storage) == ["3600 0 3", "3600 1 7"])
            let retention = storage.settings.current.milliseconds(.rollupRetention)
            clock.advance(milliseconds: retention - 26 * Self.hour)
            _ = try await storage.perform(.sampleRetention, isDryRun: false)
            #expect(try await rows(storage).count == 2)
            clock.advance(milliseconds: Self.hour)
            _ = try await storage.perform(.sampleRetention, isDryRun: false)
            #expect(try await rows(storage) == [])
        }
    }

    @Test func aMergeOfHoursKeepsTheSum() async throws {
        try await withStorage { storage, clock in
            for id in 1...5 {
                _ = try await storage.setPolicy(CachePolicy(), of: Name(stored: "n\(id)"))
                try await storage.transaction { transaction in
                    for minute in 0..<100 {
                        try transaction.record(
                            CacheActivity(hits: 1, misses: [.expired: 2], evictions: 3), namespaceID: Int64(id),
                            at: clock.now.advanced(milliseconds: Int64(-minute) * Self.minute))
                    }
                }
            }
            let before = try await figures(storage, clock, last: 3 * Self.hour).totals
            #expect(before == CacheActivity(hits: 500, misses: [.expired: 1000], evictions: 1500))
            for period in [MetricResolution.minute, .hour] {
                var (steps, last) = (0, 1)
                while last > 0 {
                    last = try await storage.transaction {
                        try $0.mergeActivity(of: period, before: clock.now, atMost: StorageLimits.sweepBatchRows)
                    }
                    #expect(last <= StorageLimits.sweepBatchRows)
                    steps += 1
                }
                #expect(steps > 1)
                #expect(try await figures(storage, clock, last: 3 * Self.hour).totals == before)
            }
            #expect(try await rows(storage).allSatisfy { $0.hasPrefix("3600 0 ") || $0.hasPrefix("60 ") })
        }
    }

    // MARK: Background tasks

    @Test func whatTasksRemovedIsThatOfTheRange() async throws {
        try await withStorage { storage, clock in
            func run(_ rows: Int, error: String? = nil) async throws {
                try await storage.record(
                    MaintenanceRun(
                        task: .cacheExpiry, trigger: .deadline, startedAt: clock.now, durationSeconds: 1,
                        rowsRemoved: rows, bytesFreed: rows * 10, error: error))
            }
            func figures(_ milliseconds: Int64) async throws -> MaintenanceFigures {
                let until = clock.now.advanced(milliseconds: 1)
                return try await storage.maintenanceFigures(
                    in: MetricRange(since: until.advanced(milliseconds: -milliseconds), until: until), runs: 2)
            }
            for rows in 1...3 { try await run(rows) }
            clock.advance(milliseconds: 10 * Self.minute)
            try await run(100, error: "x")
            let recent = MaintenanceFigures.Work(runs: 1, failures: 1, rowsRemoved: 100, bytesFreed: 1000)
            #expect(try await figures(Self.minute).totals == recent)
            let all = try await figures(Self.hour)
            #expect(all.tasks == [.cacheExpiry: .init(runs: 4, failures: 1, rowsRemoved: 106, bytesFreed: 1060)])
            #expect(all.latest.map(\.rowsRemoved) == [100, 3])
            clock.advance(milliseconds: 30 * Self.hour)
            _ = try await storage.perform(.sampleRollup, isDryRun: false)
            #expect(try await figures(40 * Self.hour).totals == all.totals)
            #expect(try await figures(Self.hour) == MaintenanceFigures(tasks: [:], latest: []))
        }
    }
}
