// Background work on the cache: sweeping, evicting, removing chunks, in steps that let waiting writes go first. A dry
// run counts what a run would remove.

import Domain
import Synchronization

extension SQLiteStorage {
    // MARK: Expired and cleared entries

    /// Removes expired rows of namespaces and all rows of cleared generations, and forgets old reasons for removal,
    /// which are not counted.
    func removeDueEntries(isDryRun: Bool) async throws -> Removal {
        if isDryRun { return try await countDueEntries() }
        try await repairDeadlines()
        var total = try await removeCleared()
        if clockWatch.holdsSweeps { return total }
        total += try await removeExpired()
        try await trimRemovals()
        return total
    }

    private func countDueEntries() async throws -> Removal {
        let now = clock.now()
        return try await readers.consistently(.upkeep) { connection in
            let due = try connection.due(now: now)
            let cleared = try connection.all(
                "SELECT entry_count, size_bytes FROM cache_generations WHERE cleared_at_ms IS NOT NULL"
            ) { Removal(removed: $0.int(0), freedBytes: $0.int(1)) }
            return (Array(due.values) + cleared).reduce(into: Removal()) { $0 += $1 }
        }
    }

    private func removeExpired() async throws -> Removal {
        var total = Removal()
        let now = clock.now()
        for generationID in try await readers.pooled(.upkeep, { try $0.dueGenerations(now: now) }) {
            while true {
                let step = try await transaction(.background, .shrinking) { try $0.removeExpired(of: generationID) }
                total += step.removal
                if step.isDone { break }
                signals.hasSpareSpace.store(true, ordering: .relaxed)
            }
        }
        // An entry written in the meantime has either lowered the mark itself or is found by this look-up: a write that
        // noted its expiry before the mark was raised is committed once a later operation is.
        signals.earliestExpiry.store(.max, ordering: .relaxed)
        try await writer.perform(.background, .durable, .shrinking) { _ in }
        signals.note(expiry: try await readers.pooled(.upkeep) { try $0.earliestExpiry() })
        return total
    }

    private func removeCleared() async throws -> Removal {
        signals.hasClearedRows.store(false, ordering: .relaxed)
        var total = Removal()
        while let step = try await transaction(.background, .shrinking, { try $0.removeCleared() }) {
            total += step
            signals.hasSpareSpace.store(true, ordering: .relaxed)
        }
        return total
    }

    /// Forgets the oldest reasons for removal: those past the maximum age and, if many were added since the last time,
    /// those in excess of the maximum number.
    private func trimRemovals() async throws {
        let horizon = clock.now().advanced(milliseconds: -Limits.removalMemoryMilliseconds)
        var excess = 0
        if signals.newRemovals.load(ordering: .relaxed) > Limits.maxRememberedRemovals / 10 {
            signals.newRemovals.store(0, ordering: .relaxed)
            let count = try await readers.pooled(.upkeep) {
                try $0.first("SELECT count(*) FROM cache_removals") { $0.int(0) } ?? 0
            }
            excess = count - Limits.maxRememberedRemovals
        }
        while true {
            let limit = excess > 0 ? min(excess, StorageLimits.sweepBatchRows) : StorageLimits.sweepBatchRows
            let until = excess > 0 ? Instant(milliseconds: .max) : horizon
            let step = try await writer.perform(.background, .durable, .shrinking) { connection in
                try self.writer.step(rows: limit) { rows in
                    try connection.removeEach(
                        """
                        SELECT namespace_id, key FROM cache_removals WHERE removed_at_ms < ?1
                        ORDER BY removed_at_ms LIMIT ?2
                        """, .instant(until), .integer(rows),
                        by: "DELETE FROM cache_removals WHERE namespace_id = ?1 AND key = ?2"
                    ) { [.integer($0.integer(0)), .text($0.text(1))] }
                }
            }
            excess -= step.rows
            if step.isExhausted { return }
        }
    }

    // MARK: Caps

    /// Evicts what is over the caps of its namespace, after a ranking that was interrupted has been completed.
    func holdAllCaps(isDryRun: Bool) async throws -> Removal {
        if isDryRun { return try await countExcess() }
        signals.hasExceededCaps.store(false, ordering: .relaxed)
        if databaseLimit != nil, !space.isShort {
            // From now on, any of them may have to give way.
            try await writer.perform(.background, .durable, .shrinking) { connection in
                try connection.run("UPDATE cache_namespaces SET is_ranked = 1 WHERE is_ranked = 0 AND name > ''")
            }
        }
        let names = try await readers.pooled(.upkeep) { connection in
            try connection.all(
                """
                SELECT n.name, n.is_ranked FROM cache_namespaces n JOIN cache_generations g USING (generation_id)
                WHERE n.is_ranked <> 0
                    AND (n.is_ranked = 1 OR g.entry_count > n.max_entries OR g.size_bytes > n.max_bytes)
                """
            ) { (name: Name(stored: $0.text(0)), isHalfRanked: $0.int(1) == 1) }
        }
        var total = Removal()
        // Ranks take space.
        for (name, isHalfRanked) in names where !(isHalfRanked && space.isShort) {
            total += try await holdCaps(of: name, mustRank: isHalfRanked)
        }
        return total
    }

    private func countExcess() async throws -> Removal {
        // Uses counted in memory affect the order of eviction.
        try await flushCounters()
        let now = clock.now()
        return try await readers.consistently(.upkeep) { connection in
            let due = try connection.due(now: now)
            let namespaces = try connection.all(
                """
                SELECT n.*, g.entry_count, g.size_bytes
                FROM cache_namespaces n JOIN cache_generations g USING (generation_id)
                WHERE n.is_ranked <> 0 AND (g.entry_count > n.max_entries OR g.size_bytes > n.max_bytes)
                """
            ) { row in
                let all = Removal(removed: row.int("entry_count"), freedBytes: row.int("size_bytes"))
                return (row.integer("generation_id"), all, CachePolicy(row))
            }
            var total = Removal()
            for (generationID, all, policy) in namespaces {
                let expired = due[generationID] ?? Removal()
                var left = Removal(
                    removed: all.removed - expired.removed, freedBytes: all.freedBytes - expired.freedBytes)
                try connection.each(
                    """
                    SELECT size_bytes FROM cache_entries
                    WHERE generation_id = ?1 AND eviction_rank IS NOT NULL
                        AND (expires_at_ms IS NULL OR expires_at_ms > ?2)
                    ORDER BY eviction_rank
                    """, .integer(generationID), .instant(now)
                ) { row in
                    guard policy.isExceeded(entries: left.removed, bytes: left.freedBytes) else { return false }
                    let victim = Removal(removed: 1, freedBytes: row.int(0))
                    left.removed -= 1
                    left.freedBytes -= victim.freedBytes
                    total += victim
                    return true
                }
            }
            return total
        }
    }

    // MARK: Orphaned chunks

    /// Removes the chunks of values that no entry refers to and nobody reads or writes.
    func removeOrphans(isDryRun: Bool) async throws -> Removal {
        if isDryRun { return try await countOrphans() }
        signals.hasOrphans.store(false, ordering: .relaxed)
        var total = Removal()
        var last: Int64 = 0
        while true {
            let start = last
            let orphans = try await readers.pooled(.upkeep) { connection in
                try connection.all(
                    """
                    SELECT blob_id FROM cache_blobs INDEXED BY cache_blobs_orphaned
                    WHERE is_attached = 0 AND blob_id > ?1 ORDER BY blob_id LIMIT ?2
                    """,
                    .integer(start), .integer(StorageLimits.sweepBatchRows)
                ) { $0.integer(0) }
            }
            guard let newest = orphans.last else { return total }
            last = newest
            for blobID in orphans { total += try await removeBlob(blobID) }
        }
    }

    private func countOrphans() async throws -> Removal {
        let orphans = try await readers.pooled(.upkeep) { connection in
            try connection.all(
                """
                SELECT b.blob_id, (SELECT sum(length(c.data)) FROM cache_chunks c WHERE c.blob_id = b.blob_id)
                FROM cache_blobs b INDEXED BY cache_blobs_orphaned WHERE b.is_attached = 0
                """
            ) { (id: $0.integer(0), bytes: $0.int(1)) }
        }
        return orphans.filter { $0.bytes > 0 && !leases.isLeased($0.id) }.reduce(into: Removal()) {
            $0 += Removal(removed: 1, freedBytes: $1.bytes)
        }
    }

    /// Removes a blob unless it is in use, or has been attached to an entry since it was listed.
    private func removeBlob(_ blobID: Int64) async throws -> Removal {
        defer { leases.forget(blobID) }
        var freed = 0
        while true {
            let step: Int? = try await writer.perform(.background, .durable, .shrinking) { connection in
                let isOrphan = try connection.first(
                    "SELECT 1 FROM cache_blobs WHERE blob_id = ?1 AND is_attached = 0", .integer(blobID)
                ) { _ in true }
                guard isOrphan != nil else { return nil }
                // Condemned only here, between two writes: its upload holds a lease until it is attached.
                guard self.leases.condemn(blobID) else {
                    self.signals.hasOrphans.store(true, ordering: .relaxed)
                    return nil
                }
                let chunks = try connection.all(
                    "SELECT chunk_id, length(data) FROM cache_chunks WHERE blob_id = ?1 ORDER BY number LIMIT ?2",
                    .integer(blobID), .integer(StorageLimits.sweepBatchBytes / Limits.chunkBytes)
                ) { (id: $0.integer(0), bytes: $0.int(1)) }
                if chunks.isEmpty { try connection.run("DELETE FROM cache_blobs WHERE blob_id = ?1", .integer(blobID)) }
                var removed = 0
                for chunk in chunks {
                    try connection.run("DELETE FROM cache_chunks WHERE chunk_id = ?1", .integer(chunk.id))
                    removed += chunk.bytes
                    if self.writer.isStepOver { break }
                }
                return chunks.isEmpty ? nil : removed
            }
            guard let step else { return Removal(removed: freed > 0 ? 1 : 0, freedBytes: freed) }
            freed += step
            signals.hasSpareSpace.store(true, ordering: .relaxed)
        }
    }
}

extension CacheTransaction {
    /// Writes a namespace's counters, and those of a bounded number of its entries.
    /// - Returns: how many entries' counters may have been written; never 0.
    func writeCounters(namespaceID: Int64) throws -> Int {
        try storage.writer.step(rows: StorageLimits.sweepBatchRows) { rows in
            try writeCounters(namespaceID: namespaceID, entries: rows)
            return rows
        }.rows
    }

    private func writeCounters(namespaceID: Int64, entries: Int) throws {
        let tally = withdrawal.takeCounters(namespaceID: namespaceID, entries: entries)
        let lookups = tally.lookups
        if lookups.hits > 0 {
            try connection.run(
                "UPDATE cache_namespaces SET hits = hits + ?2 WHERE namespace_id = ?1",
                .integer(namespaceID), .integer(lookups.hits))
        }
        for (reason, count) in lookups.misses {
            try connection.run(
                """
                INSERT INTO cache_misses (namespace_id, reason, misses)
                SELECT namespace_id, ?2, ?3 FROM cache_namespaces WHERE namespace_id = ?1
                ON CONFLICT (namespace_id, reason) DO UPDATE SET misses = misses + excluded.misses
                """, .integer(namespaceID), .text(reason.rawValue), .integer(count))
        }
        for minute in tally.minutes {
            try record(minute.lookups.activity, namespaceID: namespaceID, at: minute.start)
        }
        try apply(tally.entries, namespaceID: namespaceID)
    }

    /// One step over the expired rows of a namespace's generation; ``removeCleared()`` handles cleared ones.
    fileprivate func removeExpired(of generationID: Int64) throws -> (removal: Removal, isDone: Bool) {
        var removal = Removal()
        let namespaceID = try connection.first(
            "SELECT namespace_id FROM cache_namespaces WHERE generation_id = ?1", .integer(generationID)
        ) { $0.integer(0) }
        guard let namespaceID else { return (removal, isDone: true) }
        let step = try storage.writer.step(rows: StorageLimits.sweepBatchRows) { rows in
            let due = try dueEntries(of: generationID, rows)
            for entry in due {
                try removeExpired(entry, namespaceID: namespaceID)
                removal += Removal(removed: 1, freedBytes: entry.sizeBytes)
            }
            return due.count
        }
        if removal.removed > 0 { try countExpirations(removal.removed, namespaceID: namespaceID) }
        return (removal, step.isExhausted)
    }

    /// - Returns: nil if there is no cleared generation left that may be swept.
    fileprivate func removeCleared() throws -> Removal? {
        let held = storage.heldGenerations.withLock { $0 }
        var next: (id: Int64, clearedAt: Instant, namespaceID: Int64?)?
        try connection.each(
            """
            SELECT g.generation_id, g.cleared_at_ms, n.namespace_id FROM cache_generations g
            LEFT JOIN cache_namespaces n ON n.namespace_id = g.cleared_namespace_id
            WHERE g.cleared_at_ms IS NOT NULL ORDER BY g.cleared_at_ms
            """
        ) { row in
            if held[row.integer(0)] != nil { return true }
            next = (row.integer(0), row.instant(1), row.optionalInteger(2))
            return false
        }
        guard let generation = next else { return nil }
        var removal = Removal()
        let step = try storage.writer.step(rows: StorageLimits.sweepBatchRows) { rows in
            let entries = try connection.all(
                """
                SELECT entry_id, key, size_bytes, blob_id, expires_at_ms FROM cache_entries
                WHERE generation_id = ?1 ORDER BY key LIMIT ?2
                """, .integer(generation.id), .integer(rows)
            ) {
                (
                    id: $0.integer(0), key: $0.text(1), sizeBytes: $0.int(2), blobID: $0.optionalInteger(3),
                    expiry: $0.optionalInstant(4)
                )
            }
            for entry in entries {
                if let namespaceID = generation.namespaceID {
                    let cause = EntryRemoval(clearedAt: generation.clearedAt, expiry: entry.expiry)
                    try remember(entry.key, in: namespaceID, reason: cause.reason, at: cause.instant)
                }
                try removeRow(entry.id, blobID: entry.blobID)
                removal += Removal(removed: 1, freedBytes: entry.sizeBytes)
            }
            return entries.count
        }
        if step.isExhausted {
            try connection.run("DELETE FROM cache_generations WHERE generation_id = ?1", .integer(generation.id))
        }
        return removal
    }
}

extension Connection {
    /// The generations of namespaces that have expired rows.
    fileprivate func dueGenerations(now: Instant) throws(SQLiteError) -> [Int64] {
        try all(
            """
            SELECT n.generation_id FROM cache_namespaces n
            WHERE n.generation_id > 0 AND EXISTS (
                SELECT 1 FROM cache_entries e INDEXED BY cache_entries_due
                WHERE e.generation_id = n.generation_id AND e.expires_at_ms <= ?1)
            """, .instant(now)
        ) { $0.integer(0) }
    }
}

extension Writer {
    /// Repeats `body`, which handles at most the given number of rows and returns how many it handled, until none are
    /// left, `limit` is reached or the step is over.
    /// - Returns: the rows handled, and whether none are left.
    func step(rows limit: Int, _ body: (Int) throws -> Int) rethrows -> (rows: Int, isExhausted: Bool) {
        var rows = 0
        while rows < limit {
            let asked = min(StorageLimits.sweepReadRows, limit - rows)
            let handled = try body(asked)
            rows += handled
            if handled < asked { return (rows, true) }
            if isStepOver { break }
        }
        return (rows, false)
    }
}
