// Keeping a namespace within its caps.

import Domain
import Synchronization

// How eviction works
//
// Entries of a namespace with caps have an `eviction_rank`, and an index keeps them in that order; the lowest is
// evicted first. The rank depends on the policy (Domain/Cache/EvictionRank.swift): for lru it is the tick of the last
// use, for lfu the number of hits, for fifo the tick of creation.
//
// A write that leaves its namespace over a cap makes room in the same transaction: expired entries first, then the
// lowest ranks, never the entry just written. One write removes a bounded number of entries; if that is not enough (one
// large value in place of thousands of small ones), the background task continues immediately.
//
// An entry with uses that are only counted in memory so far is too low in the index. The search therefore walks the
// index upwards from the lowest rank, adds the uses in memory to each rank, keeps the lowest sum, and stops at the
// first stored rank that is not below it, because uses only ever raise a rank. The next write would pass over the same
// entries again, so the uses of some of them are written. If very many entries were read since the counters were last
// written, the search ends with the lowest sum among those it may look at.
//
// Entries of namespaces without caps have no rank, and take no space in the index. When a policy first sets a cap, or
// changes the order, existing entries are ranked in steps (see SQLiteStorage+CacheNamespaces).

/// An expired entry's row.
struct DueEntry {
    var id: Int64
    var key: String
    var expiry: Instant
    var sizeBytes: Int
    var blobID: Int64?
}

extension CacheTransaction {
    /// The rank of an entry that is created now; NULL if the namespace has no ranks.
    func rankOfNewEntry(in namespace: Namespace) -> Value {
        guard namespace.isRanked else { return .null }
        return .integer(namespace.policy.eviction.rank(createdAt: storage.ledger.tick(now)))
    }

    /// The rank of an entry whose value or lifetime is renewed now; NULL if the namespace has no ranks, or if the
    /// ranking in progress has not reached the entry.
    func rank(ofRenewed entry: Entry, in namespace: Namespace) -> Value {
        guard namespace.isRanked, let rank = entry.rank else { return .null }
        return .integer(namespace.policy.eviction.rank(rank, renewedAt: storage.ledger.tick(now)))
    }

    /// What was evicted, and whether the namespace is done.
    typealias CapStep = (evicted: Removal, isDone: Bool)

    /// Removes entries until the namespace is within its caps, or the bound for one write is reached: in rows, and
    /// after the first few also in time.
    /// - Parameter entryID: an entry that must stay; nil in the background.
    @discardableResult
    func holdCaps(of namespace: Namespace, sparing entryID: Int64?) throws -> CapStep {
        guard try isExceeded(namespace) else { return (Removal(), isDone: true) }
        var search = VictimSearch(sparing: entryID)
        // Expired by a clock that may be wrong: no better to evict than others.
        search.mayFindExpired = !storage.clockWatch.holdsSweeps
        var (evicted, expired) = (Removal(), 0)
        let step = try storage.writer.step(rows: StorageLimits.maxEvictionsPerWrite) { rows in
            for row in 0..<rows {
                guard try isExceeded(namespace) else { return row }
                // As long as expired entries are left, no live one is evicted.
                if let entry = search.mayFindExpired ? try dueEntries(of: namespace.generationID, 1).first : nil {
                    try removeExpired(entry, namespaceID: namespace.id)
                    expired += 1
                } else if let victim = try search.next(of: namespace, in: self) {
                    search.mayFindExpired = false
                    try remember(victim.key, in: namespace.id, reason: .evicted, at: now)
                    try removeRow(victim.id, blobID: victim.blobID)
                    evicted += Removal(removed: 1, freedBytes: victim.sizeBytes)
                } else {
                    return row
                }
            }
            return rows
        }
        if expired > 0 { try countExpirations(expired, namespaceID: namespace.id) }
        if evicted.removed > 0 { try countEvictions(evicted.removed, namespaceID: namespace.id) }
        let isDone = try step.isExhausted || !isExceeded(namespace)
        // In the background the caller continues by itself.
        if !isDone && entryID != nil { storage.signals.hasExceededCaps.store(true, ordering: .relaxed) }
        return (evicted, isDone)
    }

    func isExceeded(_ namespace: Namespace) throws -> Bool {
        try connection.first(
            "SELECT entry_count, size_bytes FROM cache_generations WHERE generation_id = ?1",
            .integer(namespace.generationID)
        ) { namespace.policy.isExceeded(entries: $0.int(0), bytes: $0.int(1)) } ?? false
    }

    /// Expired entries of a generation, in order of expiry.
    func dueEntries(of generationID: Int64, _ limit: Int) throws -> [DueEntry] {
        try connection.all(
            """
            SELECT entry_id, key, expires_at_ms, size_bytes, blob_id FROM cache_entries INDEXED BY cache_entries_due
            WHERE generation_id = ?1 AND expires_at_ms <= ?2 ORDER BY expires_at_ms LIMIT ?3
            """, .integer(generationID), .instant(now), .integer(limit)
        ) {
            DueEntry(
                id: $0.integer(0), key: $0.text(1), expiry: $0.instant(2), sizeBytes: $0.int(3),
                blobID: $0.optionalInteger(4))
        }
    }

    /// Removes an expired entry. The caller counts its expiration, together with others.
    func removeExpired(_ entry: DueEntry, namespaceID: Int64) throws {
        try remember(entry.key, in: namespaceID, reason: .expired, at: entry.expiry)
        try removeRow(entry.id, blobID: entry.blobID)
    }

    /// Writes uses of a namespace's entries that were counted in memory.
    func apply(_ accesses: [Int64: AccessLedger.Access], namespaceID: Int64) throws {
        guard !accesses.isEmpty else { return }
        // nil: the namespace has no caps, or was removed, and its entries wait for the sweep.
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

/// The search of one write for entries to evict, bounded as a whole.
struct VictimSearch {
    typealias Victim = (id: Int64, key: String, sizeBytes: Int, blobID: Int64?)

    /// An entry that must stay.
    private let sparedID: Int64
    /// Whether there may be expired entries left.
    var mayFindExpired = true
    /// How many entries it may still look at; after that, the lowest so far is evicted.
    private var looks = StorageLimits.maxEvictionLooks

    init(sparing entryID: Int64?) { sparedID = entryID ?? 0 }

    /// The entry with the lowest rank, including the uses counted in memory.
    mutating func next(of namespace: CacheTransaction.Namespace, in transaction: CacheTransaction) throws -> Victim? {
        let (ledger, eviction) = (transaction.storage.ledger, namespace.policy.eviction)
        var lowest: (id: Int64, rank: Int64)?
        var passed: [Int64] = []
        try transaction.connection.each(
            """
            SELECT entry_id, eviction_rank FROM cache_entries
            WHERE generation_id = ?1 AND eviction_rank IS NOT NULL AND entry_id <> ?2 ORDER BY eviction_rank
            """, .integer(namespace.generationID), .integer(sparedID)
        ) { row in
            let (id, stored) = (row.integer(0), row.integer(1))
            // Of equal ranks the older entry is evicted first, and the index has them in that order.
            if let lowest, looks <= 0 || (stored, id) >= (lowest.rank, lowest.id) { return false }
            looks -= 1
            var rank = stored
            if let access = ledger.access(namespaceID: namespace.id, entryID: id) {
                rank = eviction.rank(stored, readTimes: access.hits, lastAt: access.tick)
                if rank > stored && passed.count < StorageLimits.sweepReadRows { passed.append(id) }
            }
            if lowest.map({ (rank, id) < ($0.rank, $0.id) }) ?? true { lowest = (id, rank) }
            return true
        }
        guard let lowest else { return nil }
        passed.removeAll { $0 == lowest.id }
        let accesses = transaction.withdrawal.takeAccesses(namespaceID: namespace.id, of: passed)
        try transaction.apply(accesses, namespaceID: namespace.id)
        return try transaction.connection.first(
            "SELECT entry_id, key, size_bytes, blob_id FROM cache_entries WHERE entry_id = ?1", .integer(lowest.id)
        ) { ($0.integer(0), $0.text(1), $0.int(2), $0.optionalInteger(3)) }
    }
}
