// The background work: sweeping, evicting, flushing counters, giving space back. All in steps that let writes go first.

import Domain
import Glibc
import Synchronization

extension SQLiteStorage: MaintenanceStore {
    public func perform(_ task: MaintenanceTask, isDryRun: Bool) async throws -> Removal {
        if isDryRun { return try await preview(task) }
        switch task {
        case .cacheExpiry:
            var removal = try await removeExpired()
            removal += try await removeCleared()
            try await trimRemovals()
            return removal
        case .cacheCaps: return try await holdAllCaps()
        case .blobOrphans: return try await removeOrphans()
        case .sessionExpiry: return try await removeExpiredSessions(isDryRun: false)
        case .historyCaps: return try await removeExcessHistory(isDryRun: false)
        case .stateTemporaries: return try await removeTemporaryKeys(isDryRun: false)
        case .debounceMarks: return try await removeDebounceMarks(isDryRun: false)
        case .sampleRetention: return try await removeOldSamples(isDryRun: false)
        case .sampleRollup:
            try await rollUpSamples()
            return Removal()
        case .space: return try await returnSpace()
        }
    }

    public func backlog() -> MaintenanceBacklog {
        let earliest = signals.earliestExpiry.load(ordering: .relaxed)
        let earliestSession = signals.earliestSessionExpiry.load(ordering: .relaxed)
        return MaintenanceBacklog(
            nextExpiry: earliest == .max ? nil : Instant(milliseconds: earliest),
            nextSessionExpiry: earliestSession == .max ? nil : Instant(milliseconds: earliestSession),
            hasClearedRows: signals.hasClearedRows.load(ordering: .relaxed),
            hasExceededCaps: signals.hasExceededCaps.load(ordering: .relaxed),
            hasOrphans: signals.hasOrphans.load(ordering: .relaxed),
            hasSpareSpace: signals.hasSpareSpace.load(ordering: .relaxed) || logBytes > Limits.maxLogBytes,
            hasCounters: !ledger.isEmpty || !activity.isEmpty,
            newSamples: Int(
                signals.nextSampleID.load(ordering: .relaxed) - 1 - signals.rolledUpTo.load(ordering: .relaxed)))
    }

    public func record(_ run: MaintenanceRun) async throws {
        taskRuns.withLock { $0[run.task, default: OperationalFigures.TaskRuns()].add(run) }
        try await writer.perform(.background) { connection in
            try connection.run(
                """
                INSERT INTO maintenance_runs
                    (task, trigger, started_at_ms, duration_seconds, rows_removed, bytes_freed, error)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                """,
                .text(run.task.rawValue), .text(run.trigger.rawValue), .instant(run.startedAt),
                .real(run.durationSeconds), .integer(run.rowsRemoved), .integer(run.bytesFreed),
                .optional(run.error, Value.text))
            try connection.run(
                "DELETE FROM maintenance_runs WHERE run_id <= (SELECT max(run_id) FROM maintenance_runs) - ?1",
                .integer(Limits.maxMaintenanceRuns))
        }
    }

    public func maintenanceRuns(before: Int64?, limit: Int) async throws -> [MaintenanceRun] {
        try await readers.pooled { connection in
            try connection.all(
                """
                SELECT run_id, task, trigger, started_at_ms, duration_seconds, rows_removed, bytes_freed, error
                FROM maintenance_runs WHERE run_id < ?1 ORDER BY run_id DESC LIMIT ?2
                """, .integer(before ?? .max), .integer(limit)
            ) { row in
                MaintenanceRun(
                    id: row.integer(0), task: MaintenanceTask(rawValue: row.text(1))!,
                    trigger: MaintenanceTrigger(rawValue: row.text(2))!, startedAt: row.instant(3),
                    durationSeconds: row.real(4), rowsRemoved: row.int(5), bytesFreed: row.int(6),
                    error: row.optionalText(7))
            }
        }
    }

    // MARK: Counters

    public func flushCounters() async throws {
        try await flushActivity(.background)
        for (namespaceID, entries) in ledger.waiting() {
            for _ in 0...entries / Limits.sweepBatchRows {
                try await transaction(.background) { try $0.writeCounters(namespaceID: namespaceID) }
            }
        }
    }

    // MARK: Expired and cleared entries

    private func removeExpired() async throws -> Removal {
        var total = Removal()
        while true {
            let step = try await transaction(.background) { try $0.removeExpired(limit: Limits.sweepBatchRows) }
            total += step
            guard step.removed == Limits.sweepBatchRows else { break }
            signals.hasSpareSpace.store(true, ordering: .relaxed)
        }
        // Entries written meanwhile have lowered the mark themselves or are found by this look-up.
        signals.earliestExpiry.store(.max, ordering: .relaxed)
        let earliest = try await writer.perform(.background) { connection in
            try connection.first("SELECT min(expires_at_ms) FROM cache_entries WHERE expires_at_ms IS NOT NULL") {
                $0.optionalInstant(0)
            } ?? nil
        }
        signals.note(expiry: earliest)
        return total
    }

    private func removeCleared() async throws -> Removal {
        signals.hasClearedRows.store(false, ordering: .relaxed)
        var total = Removal()
        while let step = try await transaction(.background, { try $0.removeCleared(limit: Limits.sweepBatchRows) }) {
            total += step
            signals.hasSpareSpace.store(true, ordering: .relaxed)
        }
        return total
    }

    /// Forgets the oldest reasons of removal: beyond their age, and beyond their number when many came since the last
    /// time.
    private func trimRemovals() async throws {
        let horizon = clock.now().advanced(milliseconds: -Limits.removalMemoryMilliseconds)
        var excess = 0
        if signals.newRemovals.load(ordering: .relaxed) > Limits.maxRememberedRemovals / 10 {
            signals.newRemovals.store(0, ordering: .relaxed)
            let count = try await readers.pooled {
                try $0.first("SELECT count(*) FROM cache_removals") { $0.int(0) } ?? 0
            }
            excess = count - Limits.maxRememberedRemovals
        }
        while true {
            let limit = excess > 0 ? min(excess, Limits.sweepBatchRows) : Limits.sweepBatchRows
            let until = excess > 0 ? Instant(milliseconds: .max) : horizon
            let removed = try await writer.perform(.background) { connection in
                try connection.run(
                    """
                    DELETE FROM cache_removals WHERE (namespace_id, key) IN (
                        SELECT namespace_id, key FROM cache_removals WHERE removed_at_ms < ?1
                        ORDER BY removed_at_ms LIMIT ?2)
                    """, .instant(until), .integer(limit))
                return connection.changes
            }
            excess -= removed
            guard removed == limit else { return }
        }
    }

    // MARK: Caps

    private func holdAllCaps() async throws -> Removal {
        signals.hasExceededCaps.store(false, ordering: .relaxed)
        let names = try await readers.pooled { connection in
            try connection.all(
                """
                SELECT n.name, n.is_ranked FROM cache_namespaces n JOIN cache_generations g USING (generation_id)
                WHERE n.is_ranked <> 0
                    AND (n.is_ranked = 1 OR g.entry_count > n.max_entries OR g.size_bytes > n.max_bytes)
                """
            ) { (name: Name(stored: $0.text(0)), isHalfRanked: $0.int(1) == 1) }
        }
        var total = Removal()
        for (name, isHalfRanked) in names {
            if isHalfRanked { try await rankEntries(of: name) }
            total += try await evictExcess(of: name)
        }
        return total
    }

    // MARK: Orphaned chunks

    private func removeOrphans() async throws -> Removal {
        signals.hasOrphans.store(false, ordering: .relaxed)
        var total = Removal()
        var last: Int64 = 0
        while true {
            let start = last
            let orphans = try await readers.pooled { connection in
                try connection.all(
                    """
                    SELECT blob_id FROM cache_blobs INDEXED BY cache_blobs_orphaned
                    WHERE is_attached = 0 AND blob_id > ?1 ORDER BY blob_id LIMIT ?2
                    """,
                    .integer(start), .integer(Limits.sweepBatchRows)
                ) { $0.integer(0) }
            }
            guard let newest = orphans.last else { return total }
            last = newest
            for blobID in orphans { total += try await removeBlob(blobID) }
        }
    }

    /// Removes a blob unless it is in use, or has become a value since it was listed.
    private func removeBlob(_ blobID: Int64) async throws -> Removal {
        defer { leases.forget(blobID) }
        var freed = 0
        while true {
            let step: Int? = try await writer.perform(.background) { connection in
                let isOrphan = try connection.first(
                    "SELECT 1 FROM cache_blobs WHERE blob_id = ?1 AND is_attached = 0", .integer(blobID)
                ) { _ in true }
                guard isOrphan != nil else { return nil }
                // Condemned only here, between two writes: whoever uploads it holds it until it is attached.
                guard self.leases.condemn(blobID) else {
                    self.signals.hasOrphans.store(true, ordering: .relaxed)
                    return nil
                }
                let chunks = try connection.all(
                    "SELECT chunk_id, length(data) FROM cache_chunks WHERE blob_id = ?1 ORDER BY number LIMIT ?2",
                    .integer(blobID), .integer(Limits.sweepBatchBytes / Limits.chunkBytes)
                ) { (id: $0.integer(0), bytes: $0.int(1)) }
                for chunk in chunks {
                    try connection.run("DELETE FROM cache_chunks WHERE chunk_id = ?1", .integer(chunk.id))
                }
                if chunks.isEmpty { try connection.run("DELETE FROM cache_blobs WHERE blob_id = ?1", .integer(blobID)) }
                return chunks.isEmpty ? nil : chunks.reduce(0) { $0 + $1.bytes }
            }
            guard let step else { return Removal(removed: freed > 0 ? 1 : 0, freedBytes: freed) }
            freed += step
            signals.hasSpareSpace.store(true, ordering: .relaxed)
        }
    }

    // MARK: Space

    private func returnSpace() async throws -> Removal {
        signals.hasSpareSpace.store(false, ordering: .relaxed)
        var freed = 0
        while true {
            let pages = try await writer.perform(.background) { connection in
                func pragma(_ sql: StaticString) throws -> Int { try connection.first(sql) { $0.int(0) } ?? 0 }
                let free = try pragma("PRAGMA freelist_count")
                let step = Self.sparePages(free: free, of: try pragma("PRAGMA page_count"))
                guard step > 0 else { return 0 }
                try connection.execute("PRAGMA incremental_vacuum(\(step))")
                return free - (try pragma("PRAGMA freelist_count"))
            }
            guard pages > 0 else { break }
            freed += pages * Self.pageBytes
        }
        try await writer.checkpoint(truncating: logBytes > Limits.maxLogBytes)
        return Removal(removed: 0, freedBytes: freed)
    }

    static let pageBytes = 4096

    /// Pages to give back in the next step. A tenth of the file may stay free: the next writes use it without growing
    /// it.
    static func sparePages(free: Int, of all: Int) -> Int {
        max(0, min(free - max(Limits.keptFreePages, all / 10), Limits.vacuumStepPages))
    }

    /// Size of the write-ahead log's file.
    private var logBytes: Int {
        var status = stat()
        return stat(path + "-wal", &status) == 0 ? Int(status.st_size) : 0
    }
}

extension CacheTransaction {
    /// Writes a namespace's counters, and those of a bounded number of its entries.
    fileprivate func writeCounters(namespaceID: Int64) throws {
        let tally = withdrawal.takeCounters(namespaceID: namespaceID, entries: Limits.sweepBatchRows)
        if tally.hits > 0 {
            try connection.run(
                "UPDATE cache_namespaces SET hits = hits + ?2 WHERE namespace_id = ?1",
                .integer(namespaceID), .integer(tally.hits))
        }
        for (reason, count) in tally.misses {
            try connection.run(
                """
                INSERT INTO cache_misses (namespace_id, reason, misses)
                SELECT namespace_id, ?2, ?3 FROM cache_namespaces WHERE namespace_id = ?1
                ON CONFLICT (namespace_id, reason) DO UPDATE SET misses = misses + excluded.misses
                """, .integer(namespaceID), .text(reason.rawValue), .integer(count))
        }
        try apply(tally.entries)
    }

    fileprivate func removeExpired(limit: Int) throws -> Removal {
        let due = try connection.all(
            """
            SELECT e.entry_id, e.key, e.expires_at_ms, e.size_bytes, e.blob_id, n.namespace_id, g.cleared_at_ms
            FROM cache_entries e LEFT JOIN cache_generations g USING (generation_id)
            LEFT JOIN cache_namespaces n ON n.namespace_id = coalesce(g.cleared_namespace_id,
                (SELECT c.namespace_id FROM cache_namespaces c WHERE c.generation_id = e.generation_id))
            WHERE e.expires_at_ms <= ?1 ORDER BY e.expires_at_ms LIMIT ?2
            """, .instant(now), .integer(limit)
        ) {
            (
                id: $0.integer(0), key: $0.text(1), expiry: $0.instant(2), sizeBytes: $0.int(3),
                blobID: $0.optionalInteger(4), namespaceID: $0.optionalInteger(5), clearedAt: $0.optionalInstant(6)
            )
        }
        var removal = Removal()
        var expirations: [Int64: Int] = [:]
        for entry in due {
            if let namespaceID = entry.namespaceID {
                try remember(entry.key, in: namespaceID, expiry: entry.expiry, clearedAt: entry.clearedAt)
                // Those of a cleared generation were counted when it was cleared.
                if entry.clearedAt == nil { expirations[namespaceID, default: 0] += 1 }
            }
            try removeRow(entry.id, blobID: entry.blobID)
            removal += Removal(removed: 1, freedBytes: entry.sizeBytes)
        }
        for (namespaceID, count) in expirations { try countExpirations(count, namespaceID: namespaceID) }
        return removal
    }

    /// - Returns: nil when no cleared generation is left.
    fileprivate func removeCleared(limit: Int) throws -> Removal? {
        let generation = try connection.first(
            """
            SELECT g.generation_id, g.cleared_at_ms, n.namespace_id FROM cache_generations g
            LEFT JOIN cache_namespaces n ON n.namespace_id = g.cleared_namespace_id
            WHERE g.cleared_at_ms IS NOT NULL ORDER BY g.cleared_at_ms LIMIT 1
            """
        ) { (id: $0.integer(0), clearedAt: $0.instant(1), namespaceID: $0.optionalInteger(2)) }
        guard let generation else { return nil }
        let entries = try connection.all(
            """
            SELECT entry_id, key, size_bytes, blob_id, expires_at_ms FROM cache_entries
            WHERE generation_id = ?1 ORDER BY key LIMIT ?2
            """, .integer(generation.id), .integer(limit)
        ) {
            (
                id: $0.integer(0), key: $0.text(1), sizeBytes: $0.int(2), blobID: $0.optionalInteger(3),
                expiry: $0.optionalInstant(4)
            )
        }
        var removal = Removal()
        for entry in entries {
            if let namespaceID = generation.namespaceID {
                try remember(entry.key, in: namespaceID, expiry: entry.expiry, clearedAt: generation.clearedAt)
            }
            try removeRow(entry.id, blobID: entry.blobID)
            removal += Removal(removed: 1, freedBytes: entry.sizeBytes)
        }
        if entries.count < limit {
            try connection.run("DELETE FROM cache_generations WHERE generation_id = ?1", .integer(generation.id))
        }
        return removal
    }

    /// Remembers which came first: an entry's expiry or the clear of its namespace.
    private func remember(_ key: String, in namespaceID: Int64, expiry: Instant?, clearedAt: Instant?) throws {
        if let clearedAt, expiry.map({ $0 > clearedAt }) ?? true {
            try remember(key, in: namespaceID, reason: .cleared, at: clearedAt)
        } else if let expiry {
            try remember(key, in: namespaceID, reason: .expired, at: expiry)
        }
    }
}
