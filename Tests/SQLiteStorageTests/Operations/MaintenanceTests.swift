// Background work: what it removes, what it keeps, and that nothing grows without bound.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct MaintenanceTests {
    private func count(_ storage: SQLiteStorage, _ sql: StaticString) async throws -> Int {
        try await storage.readers.pooled { try $0.first(sql) { $0.int(0) } ?? 0 }
    }

    private func fill(_ storage: SQLiteStorage, _ count: Int, in namespace: Name = .n, lifetime: TimeToLive? = nil)
        async throws
    {
        let operations: [CacheOperation] = (0..<count).map { .set(CacheWrite("key\($0)", [1], lifetime: lifetime)) }
        _ = try await storage.batch(operations, namespace: namespace, atomic: true)
    }

    /// Returns what a dry run reports, and what the run then removes.
    private func announcedAndDone(
        _ task: MaintenanceTask, _ storage: SQLiteStorage
    ) async throws -> (announced: Removal, done: Removal) {
        let announced = try await storage.perform(task, isDryRun: true)
        #expect(try await storage.perform(task, isDryRun: true) == announced)
        return (announced, try await storage.perform(task, isDryRun: false))
    }

    // MARK: Expiry

    @Test func expiredRowsGoInSteps() async throws {
        try await withStorage { storage, clock in
            let expired = StorageLimits.sweepBatchRows * 2 + 1
            try await fill(storage, expired, lifetime: .milliseconds(1000))
            try await storage.put("live", lifetime: .milliseconds(5000))
            try await storage.put("forever", lifetime: .never)
            #expect(storage.backlog().deadlines[.cacheExpiry] == clock.now.advanced(milliseconds: 1000))
            clock.advance(milliseconds: 1000)
            let (announced, done) = try await announcedAndDone(.cacheExpiry, storage)
            #expect(done == Removal(removed: expired, freedBytes: expired))
            #expect(announced == done)
            #expect(try await storage.keys() == ["forever", "live"])
            #expect(try await count(storage, "SELECT count(*) FROM cache_entries") == 2)
            #expect(try await count(storage, "SELECT count(*) FROM cache_values") == 2)
            #expect(storage.backlog().deadlines[.cacheExpiry] == clock.now.advanced(milliseconds: 4000))
            #expect(try await storage.namespace(.n).expirations == expired)
        }
    }

    @Test func clearedRowsGoInSteps() async throws {
        try await withStorage { storage, clock in
            let cleared = StorageLimits.sweepBatchRows * 2 + 1
            try await fill(storage, cleared)
            #expect(!storage.backlog().waiting.contains(.cacheExpiry))
            _ = try await storage.clear(.n, filter: EntryFilter())
            try await storage.put("kept")
            #expect(storage.backlog().waiting.contains(.cacheExpiry))
            let (announced, done) = try await announcedAndDone(.cacheExpiry, storage)
            #expect(done == Removal(removed: cleared, freedBytes: cleared))
            #expect(announced == done)
            #expect(!storage.backlog().waiting.contains(.cacheExpiry))
            #expect(try await storage.keys() == ["kept"])
            #expect(try await count(storage, "SELECT count(*) FROM cache_entries") == 1)
            #expect(try await count(storage, "SELECT count(*) FROM cache_generations") == 1)
        }
    }

    @Test func aRemovedNamespaceLeavesNoRows() async throws {
        try await withStorage { storage, _ in
            try await fill(storage, 10)
            try await storage.put("tagged", tags: ["t"])
            try await storage.upload("large", noise(100_000))
            _ = await storage.missReason("absent")
            try await storage.flushCounters()
            try await storage.removeNamespace(.n)
            _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            _ = try await storage.perform(.blobOrphans, isDryRun: false)
            for table: StaticString in [
                "SELECT count(*) FROM cache_entries", "SELECT count(*) FROM cache_values",
                "SELECT count(*) FROM cache_entry_tags", "SELECT count(*) FROM cache_generations",
                "SELECT count(*) FROM cache_blobs", "SELECT count(*) FROM cache_chunks",
                "SELECT count(*) FROM cache_misses", "SELECT count(*) FROM cache_namespaces",
            ] {
                #expect(try await count(storage, table) == 0, "\(table)")
            }
        }
    }

    // MARK: Reasons for removal

    private func reasons(_ storage: SQLiteStorage) async throws -> [String: String] {
        let rows = try await storage.readers.pooled { connection in
            try connection.all("SELECT key, reason FROM cache_removals") { ($0.text(0), $0.text(1)) }
        }
        return Dictionary(uniqueKeysWithValues: rows)
    }

    @Test func everyWayOutIsRecorded() async throws {
        try await withStorage { storage, clock in
            _ = try await storage.setPolicy(CachePolicy(maxEntries: 5), of: .n)
            try await storage.put("evicted")
            for key in ["expired", "deleted", "filtered", "cleared", "replaced"] {
                try await storage.put(key, lifetime: .milliseconds(key == "expired" ? 1000 : 5000))
            }
            try await storage.delete("deleted")
            _ = try await storage.clear(.n, filter: EntryFilter(prefix: "filtered"))
            clock.advance(milliseconds: 1000)
            _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            _ = try await storage.clear(.n, filter: EntryFilter())
            try await storage.put("replaced")
            // A cleared entry counts as cleared, even if its lifetime ends before the sweep.
            clock.advance(milliseconds: 10_000)
            _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            let recorded = try await reasons(storage)
            #expect(recorded["evicted"] == "evicted")
            #expect(recorded["expired"] == "expired")
            #expect(recorded["deleted"] == "deleted")
            #expect(recorded["filtered"] == "cleared")
            #expect(recorded["cleared"] == "cleared")
        }
    }

    @Test func whatExpiredBeforeAClearExpired() async throws {
        try await withStorage { storage, clock in
            try await storage.put("key", lifetime: .milliseconds(1000))
            try await storage.put("live")
            clock.advance(milliseconds: 1000)
            _ = try await storage.clear(.n, filter: EntryFilter())
            _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            #expect(try await reasons(storage) == ["key": "expired", "live": "cleared"])
            #expect(await storage.missReason("key") == .expired)
        }
    }

    @Test func reasonsAreForgottenAfterADay() async throws {
        try await withStorage { storage, clock in
            try await storage.put("key", lifetime: .milliseconds(1000))
            clock.advance(milliseconds: 1000)
            _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            clock.advance(milliseconds: Limits.removalMemoryMilliseconds)
            _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            #expect(await storage.missReason("key") == .expired)
            clock.advance(milliseconds: 1)
            _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            #expect(await storage.missReason("key") == .absent)
            #expect(try await reasons(storage).isEmpty)
        }
    }

    @Test func reasonsAreBoundedInNumberOldestFirst() async throws {
        try await withStorage { storage, clock in
            let now = clock.now
            let excess = StorageLimits.sweepBatchRows + 10
            try await storage.writer.perform { connection in
                try connection.run(
                    """
                    INSERT INTO cache_removals (namespace_id, key, reason, removed_at_ms)
                    SELECT 1, 'key' || value, 'expired', ?1 + value FROM (
                        WITH RECURSIVE c (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c LIMIT ?2)
                        SELECT value FROM c)
                    """, .instant(now), .integer(Limits.maxRememberedRemovals + excess))
            }
            _ = try await storage.perform(.cacheExpiry, isDryRun: false)
            #expect(try await count(storage, "SELECT count(*) FROM cache_removals") == Limits.maxRememberedRemovals)
            let oldest = try await count(storage, "SELECT min(removed_at_ms) FROM cache_removals")
            #expect(Int64(oldest) == now.milliseconds + Int64(excess) + 1)
        }
    }

    // MARK: Caps

    @Test func capsBrokenOffAreHeldLater() async throws {
        try await withStorage { storage, _ in
            try await fill(storage, 500)
            // As if the service had ended between setting the policy and applying it.
            try await storage.writer.perform { connection in
                try connection.run(
                    "UPDATE cache_namespaces SET max_entries = 10, eviction = 'fifo', is_ranked = 1 WHERE name = 'n'")
            }
            let done = try await storage.perform(.cacheCaps, isDryRun: false)
            #expect(done == Removal(removed: 490, freedBytes: 490))
            #expect(try await storage.namespace(.n).entryCount == 10)
            #expect(try await storage.perform(.cacheCaps, isDryRun: false) == Removal())
            try await storage.put("new")
            #expect(try await storage.namespace(.n).entryCount == 10)
        }
    }

    /// Runs `body` on a storage whose steps take no time, so that only the number of rows ends them.
    private func withStandingTime(_ body: (SQLiteStorage) async throws -> Void) async throws {
        let folder = TemporaryFolder()
        let storage = try SQLiteStorage(
            path: folder.file("reprise.db"), settings: LiveSettings(.quick), clock: ManualClock().wallClock,
            logger: quietLogger, microseconds: { 0 })
        do {
            try await body(storage)
        } catch {
            await storage.close()
            throw error
        }
        await storage.close()
    }

    @Test func oneLargeValueInPlaceOfManySmallOnes() async throws {
        try await withStandingTime { storage in
            let count = StorageLimits.maxEvictionsPerWrite * 2
            _ = try await storage.setPolicy(CachePolicy(maxBytes: count), of: .n)
            try await fill(storage, count)
            try await storage.put("large", [UInt8](repeating: 1, count: count))
            // One write evicts only a bounded number; the background task continues immediately.
            #expect(storage.backlog().waiting.contains(.cacheCaps))
            let (announced, done) = try await announcedAndDone(.cacheCaps, storage)
            let rest = count - StorageLimits.maxEvictionsPerWrite
            #expect(done == Removal(removed: rest, freedBytes: rest))
            #expect(announced == done)
            #expect(!storage.backlog().waiting.contains(.cacheCaps))
            #expect(try await storage.keys() == ["large"])
        }
    }

    // MARK: Orphans

    @Test func orphansGoInSteps() async throws {
        try await withStorage { storage, _ in
            let size = StorageLimits.sweepBatchBytes + Limits.chunkBytes
            try await storage.put("key", [UInt8](repeating: 7, count: size))
            try await storage.upload("other", noise(100_000))
            for key in ["key", "other"] { try await storage.delete(key) }
            #expect(storage.backlog().waiting.contains(.blobOrphans))
            let (announced, done) = try await announcedAndDone(.blobOrphans, storage)
            #expect(done == Removal(removed: 2, freedBytes: size + 100_000))
            #expect(announced == done)
            #expect(try await count(storage, "SELECT count(*) FROM cache_blobs") == 0)
            #expect(try await count(storage, "SELECT count(*) FROM cache_chunks") == 0)
            #expect(!storage.backlog().waiting.contains(.blobOrphans))
        }
    }

    /// A missing chunk is damage: it must be reported, not searched for forever.
    @Test func aValueThatIsGoneIsDamage() async throws {
        try await withStorage { storage, _ in
            try await storage.upload("blob", noise(100_000))
            try await storage.upload("chunk", noise(100_000))
            try await storage.writer.perform { connection in
                try connection.run(
                    "DELETE FROM cache_blobs WHERE blob_id = (SELECT blob_id FROM cache_entries WHERE key = 'blob')")
                try connection.run(
                    "DELETE FROM cache_chunks WHERE blob_id = (SELECT blob_id FROM cache_entries WHERE key = 'chunk')")
            }
            #expect(await code { try await storage.bytes("chunk") } == .databaseDamaged)
            #expect(await code { try await storage.bytes("blob") } == .databaseDamaged)
        }
    }

    // MARK: Space

    @Test func theFileShrinksAfterAClear() async throws {
        let folder = TemporaryFolder()
        let storage = try makeStorage(in: folder, clock: ManualClock())
        for number in 0..<16 { try await storage.upload("key\(number)", noise(1_000_000, seed: number)) }
        try await storage.writer.checkpoint(truncating: true)
        let full = folder.size("reprise.db")
        #expect(full > 16_000_000)
        _ = try await storage.clear(.n, filter: EntryFilter())
        _ = try await storage.perform(.cacheExpiry, isDryRun: false)
        _ = try await storage.perform(.blobOrphans, isDryRun: false)
        let (announced, done) = try await announcedAndDone(.space, storage)
        #expect(done == announced)
        #expect(done.freedBytes > 10_000_000)
        let free = try await count(storage, "PRAGMA freelist_count")
        #expect(free <= StorageLimits.keptFreePages)
        try await storage.writer.checkpoint(truncating: true)
        #expect(folder.size("reprise.db") <= full - 10_000_000)
        #expect(try await storage.perform(.space, isDryRun: false) == Removal())
        await storage.close()
    }

    @Test(arguments: [
        // free, of all, step
        (0, 1000, 0), (1024, 5000, 0), (1025, 5000, 1), (1024 + 256, 5000, 256), (9999, 10_000, 256),
        (9999, 99_990, 0), (10_001, 100_000, 1),
    ])
    func aTenthOfTheFileMayStayFree(free: Int, all: Int, step: Int) {
        #expect(SQLiteStorage.sparePages(free: free, of: all) == step)
    }

    // MARK: The record

    private func run(_ number: Int, error: String? = nil) -> MaintenanceRun {
        MaintenanceRun(
            task: .cacheExpiry, trigger: .deadline, startedAt: Instant(milliseconds: Int64(number)),
            durationSeconds: 0.25, rowsRemoved: number, bytesFreed: number * 2, error: error)
    }

    @Test func theOldestRunsGo() async throws {
        try await withStorage { storage, _ in
            try await storage.writer.perform { connection in
                try connection.run(
                    """
                    INSERT INTO maintenance_runs
                        (task, trigger, started_at_ms, duration_seconds, rows_removed, bytes_freed)
                    SELECT 'space', 'interval', 0, 0, 0, 0 FROM (
                        WITH RECURSIVE c (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c LIMIT ?1)
                        SELECT value FROM c)
                    """, .integer(Limits.maxMaintenanceRuns))
            }
            for number in 1...3 { try await storage.record(run(number)) }
            #expect(try await count(storage, "SELECT count(*) FROM maintenance_runs") == Limits.maxMaintenanceRuns)
            #expect(try await count(storage, "SELECT min(run_id) FROM maintenance_runs") == 4)
        }
    }

    // MARK: Counters

    @Test func countersWaitUntilTheyAreWritten() async throws {
        try await withStorage { storage, _ in
            try await storage.put("key")
            #expect(!storage.backlog().hasCounters)
            _ = try await storage.read(EntryAddress("key"))
            #expect(storage.backlog().hasCounters)
            try await storage.flushCounters()
            #expect(!storage.backlog().hasCounters)
            #expect(try await count(storage, "SELECT hits FROM cache_namespaces") == 1)
            try await storage.flushCounters()
            #expect(try await count(storage, "SELECT hits FROM cache_namespaces") == 1)
        }
    }

    @Test func manyEntriesCountersAreWritten() async throws {
        try await withStorage { storage, _ in
            let entries = StorageLimits.sweepBatchRows + 10
            try await fill(storage, entries)
            for number in 0..<entries { _ = try await storage.read(EntryAddress("key\(number)")) }
            try await storage.flushCounters()
            #expect(try await count(storage, "SELECT sum(hit_count) FROM cache_entries") == entries)
            #expect(try await storage.namespace(.n).hits == entries)
        }
    }
}

struct AccessLedgerTests {
    private let now = Instant(milliseconds: 1000)

    @Test func ticksNeverRepeatNorGoBack() {
        let ledger = AccessLedger()
        let ticks = [now, now, Instant(milliseconds: 1), now, Instant(milliseconds: 2000)].map { ledger.tick($0) }
        #expect(ticks == ticks.sorted())
        #expect(Set(ticks).count == ticks.count)
        #expect(ticks[0] == 1_000_001)
        #expect(ticks[4] == 2_000_001)
    }

    @Test func entriesAreBoundedButTheirNamespacesCountersAreNot() {
        let ledger = AccessLedger()
        for entry in 0..<StorageLimits.maxTrackedAccesses + 10 {
            ledger.countHit(namespaceID: 1, entryID: Int64(entry), at: now)
        }
        #expect(ledger.pending(namespaceID: 1).hits == StorageLimits.maxTrackedAccesses + 10)
        let withdrawal = AccessLedger.Withdrawal(from: ledger)
        #expect(
            withdrawal.takeCounters(namespaceID: 1, entries: .max).entries.count == StorageLimits.maxTrackedAccesses)
        #expect(ledger.isEmpty)
        // Once they are taken out, there is room again.
        ledger.countHit(namespaceID: 1, entryID: -1, at: now)
        #expect(ledger.waiting().map(\.entries) == [1])
    }

    @Test func whatIsTakenOutGoesBackWithTheWriteThatIsUndone() {
        let ledger = AccessLedger()
        for entry: Int64 in 1...3 { ledger.countHit(namespaceID: 1, entryID: entry, at: now) }
        ledger.countMiss(namespaceID: 1, .absent, at: now)
        let withdrawal = AccessLedger.Withdrawal(from: ledger)
        let counters = withdrawal.takeCounters(namespaceID: 1, entries: 2)
        #expect(counters.lookups.hits == 3 && counters.lookups.misses == [.absent: 1] && counters.entries.count == 2)
        #expect(withdrawal.takeAccesses(namespaceID: 1, of: [1, 2, 3, 4]).count == 1)
        #expect(ledger.isEmpty)
        ledger.countHit(namespaceID: 1, entryID: 1, at: now)
        withdrawal.undo()
        withdrawal.undo()
        #expect(ledger.pending(namespaceID: 1).hits == 4)
        let all = AccessLedger.Withdrawal(from: ledger).takeAccesses(namespaceID: 1, of: [1, 2, 3])
        #expect(all.mapValues(\.hits) == [1: 2, 2: 1, 3: 1])
    }
}
