// Holding a namespace to its caps.

import Domain
import Synchronization

// How eviction works
//
// Entries of a namespace with caps carry an `eviction_rank`, and an index keeps them in its order; the lowest goes
// first. What the rank is depends on the policy (Domain/Cache/EvictionRank.swift): for lru the tick of the last use, for
// lfu the number of hits, for fifo the tick of creation.
//
// A write that leaves its namespace over a cap makes room in the same transaction: expired entries first, then the
// lowest ranks, never the entry just written. Uses still counted in memory are written before ranks are compared, so
// an entry read a moment ago is not taken for an old one. One write removes a bounded number of entries; should that
// not do (one large value in place of thousands of small ones), the background task goes on at once.
//
// Entries of namespaces without caps have no rank, and cost no index. When a policy first sets a cap, or another
// order, existing entries are ranked in steps (see SQLiteStorage+CacheNamespaces).

extension CacheTransaction {
    /// The rank of an entry that is created now; NULL where none is kept.
    func rankOfNewEntry(in namespace: Namespace) -> Value {
        guard namespace.isRanked else { return .null }
        return .integer(namespace.policy.eviction.rank(createdAt: storage.ledger.tick(now)))
    }

    /// The rank of an entry whose value or lifetime is renewed now; NULL where none is kept, or where the ranking
    /// under way has not come to it.
    func rank(ofRenewed entry: Entry, in namespace: Namespace) -> Value {
        guard namespace.isRanked, let rank = entry.rank else { return .null }
        return .integer(namespace.policy.eviction.rank(rank, renewedAt: storage.ledger.tick(now)))
    }

    /// What was evicted, and whether nothing is left to do.
    typealias CapStep = (evicted: Removal, isDone: Bool)

    /// Removes entries until the namespace is within its caps or the bound for one write is reached.
    /// - Parameter entryID: an entry that must stay; nil in the background.
    @discardableResult
    func holdCaps(of namespace: Namespace, sparing entryID: Int64?) throws -> CapStep {
        guard try isExceeded(namespace) else { return (Removal(), isDone: true) }
        // As long as expired entries are left no live one goes.
        var left = Limits.maxEvictionsPerWrite - (try removeExpired(of: namespace))
        var evicted = Removal()
        if try left > 0 && isExceeded(namespace) { try apply(withdrawal.takeAccesses(namespaceID: namespace.id), namespaceID: namespace.id) }
        while try left > 0 && isExceeded(namespace), let victim = try lowestRanked(of: namespace, sparing: entryID) {
            try remember(victim.key, in: namespace.id, reason: .evicted, at: now)
            try removeRow(victim.id, blobID: victim.blobID)
            evicted += Removal(removed: 1, freedBytes: victim.sizeBytes)
            left -= 1
        }
        if evicted.removed > 0 { try countEvictions(evicted.removed, namespaceID: namespace.id) }
        let isDone = try left > 0 || !isExceeded(namespace)
        if !isDone { storage.signals.hasExceededCaps.store(true, ordering: .relaxed) }
        return (evicted, isDone)
    }

    func isExceeded(_ namespace: Namespace) throws -> Bool {
        try connection.first(
            "SELECT entry_count, size_bytes FROM cache_generations WHERE generation_id = ?1",
            .integer(namespace.generationID)
        ) { namespace.policy.isExceeded(entries: $0.int(0), bytes: $0.int(1)) } ?? false
    }

    private func lowestRanked(
        of namespace: Namespace, sparing entryID: Int64?
    ) throws -> (id: Int64, key: String, sizeBytes: Int, blobID: Int64?)? {
        try connection.first(
            """
            SELECT entry_id, key, size_bytes, blob_id FROM cache_entries
            WHERE generation_id = ?1 AND eviction_rank IS NOT NULL AND entry_id <> ?2
            ORDER BY eviction_rank LIMIT 1
            """, .integer(namespace.generationID), .integer(entryID ?? 0)
        ) { ($0.integer(0), $0.text(1), $0.int(2), $0.optionalInteger(3)) }
    }

    /// Removes expired entries of one namespace, a bounded number of them.
    /// - Returns: how many.
    private func removeExpired(of namespace: Namespace) throws -> Int {
        let due = try connection.all(
            """
            SELECT entry_id, key, expires_at_ms, blob_id FROM cache_entries INDEXED BY cache_entries_due
            WHERE expires_at_ms <= ?1 AND generation_id = ?2 ORDER BY expires_at_ms LIMIT ?3
            """, .instant(now), .integer(namespace.generationID), .integer(Limits.maxEvictionsPerWrite)
        ) { (id: $0.integer(0), key: $0.text(1), expiry: $0.instant(2), blobID: $0.optionalInteger(3)) }
        for entry in due {
            try remember(entry.key, in: namespace.id, reason: .expired, at: entry.expiry)
            try removeRow(entry.id, blobID: entry.blobID)
        }
        if !due.isEmpty { try countExpirations(due.count, namespaceID: namespace.id) }
        return due.count
    }

    /// Writes uses of a namespace's entries that were counted in memory.
    func apply(_ accesses: [Int64: AccessLedger.Access], namespaceID: Int64) throws {
        guard !accesses.isEmpty else { return }
        // nil: the namespace has no caps, or is gone, and its entries wait for the sweep.
        let eviction = try connection.first(
            "SELECT eviction FROM cache_namespaces WHERE namespace_id = ?1 AND is_ranked <> 0", .integer(namespaceID)
        ) { Eviction(rawValue: $0.text(0))! }
        for (entryID, access) in accesses {
            let rank = try eviction.flatMap { _ in
                try connection.first(
                    "SELECT eviction_rank FROM cache_entries WHERE entry_id = ?1", .integer(entryID)
                ) { $0.optionalInteger(0) } ?? nil
            }
            try connection.run(
                """
                UPDATE cache_entries SET hit_count = hit_count + ?2,
                    last_accessed_at_ms = max(coalesce(last_accessed_at_ms, 0), ?3),
                    eviction_rank = coalesce(?4, eviction_rank)
                WHERE entry_id = ?1
                """, .integer(entryID), .integer(access.hits), .instant(access.lastAccess),
                .optional(rank) {
                    .integer(eviction!.rank($0, readTimes: access.hits, lastAt: access.tick))
                })
        }
    }
}
