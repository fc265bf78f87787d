// Background work on the cache: sweeping, evicting, removing chunks, in steps that let waiting writes go first.

import Domain
import Synchronization

extension SQLiteStorage {
    // MARK: Expired and cleared entries

    func removeExpired() async throws -> Removal {
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

    func removeCleared() async throws -> Removal {
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
    func trimRemovals() async throws {
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

    func holdAllCaps() async throws -> Removal {
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

    func removeOrphans() async throws -> Removal {
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

    // MARK: Dry runs

    /// Due rows, those of cleared generations among them, and all other rows of cleared generations.
    func previewExpiry() async throws -> Removal {
        let now = clock.now()
        return try await readers.consistently { connection in
            let due = try connection.due(now: now)
            let cleared = try connection.all(
                "SELECT generation_id, entry_count, size_bytes FROM cache_generations WHERE cleared_at_ms IS NOT NULL"
            ) { (id: $0.integer(0), Removal(removed: $0.int(1), freedBytes: $0.int(2))) }
            var total = due.values.reduce(into: Removal()) { $0 += $1 }
            for (id, all) in cleared {
                let counted = due[id] ?? Removal()
                total += Removal(
                    removed: all.removed - counted.removed, freedBytes: all.freedBytes - counted.freedBytes)
            }
            return total
        }
    }

    func previewCaps() async throws -> Removal {
        // Uses counted in memory decide the order of eviction.
        try await flushCounters()
        let now = clock.now()
        return try await readers.consistently { connection in
            let due = try connection.due(now: now)
            let namespaces = try connection.all(
                """
                SELECT g.generation_id, g.entry_count, g.size_bytes, n.has_ttl, n.ttl_ms, n.max_entries, n.max_bytes,
                    n.max_entry_bytes, n.eviction
                FROM cache_namespaces n JOIN cache_generations g USING (generation_id)
                WHERE n.is_ranked <> 0 AND (g.entry_count > n.max_entries OR g.size_bytes > n.max_bytes)
                """
            ) { ($0.integer(0), Removal(removed: $0.int(1), freedBytes: $0.int(2)), CachePolicy($0, from: 3)) }
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

    func previewOrphans() async throws -> Removal {
        let orphans = try await readers.pooled { connection in
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
}

extension CacheTransaction {
    /// Writes a namespace's counters, and those of a bounded number of its entries.
    func writeCounters(namespaceID: Int64) throws {
        let tally = withdrawal.takeCounters(namespaceID: namespaceID, entries: Limits.sweepBatchRows)
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
