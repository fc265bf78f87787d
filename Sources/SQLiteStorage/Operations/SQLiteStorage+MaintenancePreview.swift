// What a run of each background task would remove now. Counts what SQLiteStorage+Maintenance.swift removes.

import Domain

extension SQLiteStorage {
    func preview(_ task: MaintenanceTask) async throws -> Removal {
        switch task {
        case .cacheExpiry: return try await previewExpiry()
        case .cacheCaps: return try await previewCaps()
        case .blobOrphans: return try await previewOrphans()
        case .sessionExpiry: return try await removeExpiredSessions(isDryRun: true)
        case .historyCaps: return try await removeExcessHistory(isDryRun: true)
        case .stateTemporaries: return try await removeTemporaryKeys(isDryRun: true)
        case .debounceMarks: return try await removeDebounceMarks(isDryRun: true)
        case .sampleRetention: return try await removeOldSamples(isDryRun: true)
        case .sampleRollup: return Removal()
        case .space: return try await previewSpace()
        }
    }

    /// Due rows, those of cleared generations among them, and all other rows of cleared generations.
    private func previewExpiry() async throws -> Removal {
        let now = clock.now()
        return try await readers.pooled { connection in
            try connection.run("BEGIN")
            defer { try? connection.run("COMMIT") }
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

    private func previewCaps() async throws -> Removal {
        // Uses counted in memory decide the order of eviction.
        try await flushCounters()
        let now = clock.now()
        return try await readers.pooled { connection in
            try connection.run("BEGIN")
            defer { try? connection.run("COMMIT") }
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

    private func previewOrphans() async throws -> Removal {
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

    private func previewSpace() async throws -> Removal {
        try await readers.pooled { connection in
            func pragma(_ sql: StaticString) throws -> Int { try connection.first(sql) { $0.int(0) } ?? 0 }
            var free = try pragma("PRAGMA freelist_count")
            var all = try pragma("PRAGMA page_count")
            var freed = 0
            while case let step = Self.sparePages(free: free, of: all), step > 0 {
                free -= step
                all -= step
                freed += step
            }
            return Removal(removed: 0, freedBytes: freed * Self.pageBytes)
        }
    }
}
