// Making room under max_database_bytes: the cache gives way to whatever is written.

import Domain
import Synchronization

// How room is made
//
// While there is a limit, every namespace has ranks, not only those with caps, so that each knows its next victim
// (CacheTransaction+Eviction). Ranks of different namespaces cannot be compared if one counts uses and the other
// orders them; the instants of the last use can. So among the next victims of all namespaces, the one used longest ago
// goes first.
//
// Only what is in the cache gives way. Values go with their chunks, at once: the sweep would come too late.

extension SQLiteStorage {
    /// Evicts entries until this many pages of the database are free, or nothing is left to evict, or the bound for one
    /// transaction is reached. Inside a transaction of the writer.
    /// - Returns: to be called when the transaction is over, with whether it was committed.
    func makeRoom(pages: Int, on connection: Connection) throws -> @Sendable (_ isCommitted: Bool) -> Void {
        let withdrawal = AccessLedger.Withdrawal(from: ledger)
        let transaction = CacheTransaction(
            connection: connection, storage: self, withdrawal: withdrawal, now: clock.now())
        var relief = CacheRelief(transaction)
        do {
            try relief.run(until: pages)
        } catch {
            // The transaction is rolled back, so the values are there again.
            withdrawal.undo()
            for blobID in relief.condemned { leases.forget(blobID) }
            throw error
        }
        let condemned = relief.condemned
        return { [leases] isCommitted in
            if !isCommitted { withdrawal.undo() }
            for blobID in condemned { leases.forget(blobID) }
        }
    }
}

private struct CacheRelief {
    private let transaction: CacheTransaction
    private(set) var condemned: [Int64] = []

    private struct Candidate {
        var namespace: CacheTransaction.Namespace
        var search: VictimSearch
        var victim: VictimSearch.Victim
        /// When it was last used, in milliseconds.
        var lastUse: Int64
    }

    init(_ transaction: CacheTransaction) { self.transaction = transaction }

    mutating func run(until pages: Int) throws {
        let connection = transaction.connection
        var candidates = try namespaces().compactMap { try candidate(of: $0, VictimSearch(sparing: nil)) }
        candidates.sort { $0.lastUse > $1.lastUse }
        var evicted: [Int64: Int] = [:]
        for _ in 0..<StorageLimits.maxEvictionsPerRelief {
            if try connection.freePages() >= pages { break }
            guard let next = candidates.popLast() else {
                if try !removeOldest() { break }
                continue
            }
            try transaction.remember(next.victim.key, in: next.namespace.id, reason: .evicted, at: transaction.now)
            try remove(next.victim.id, blobID: next.victim.blobID)
            evicted[next.namespace.id, default: 0] += 1
            if let following = try candidate(of: next.namespace, next.search) {
                let place = candidates.firstIndex { $0.lastUse < following.lastUse } ?? candidates.endIndex
                candidates.insert(following, at: place)
            }
        }
        for (id, count) in evicted { try transaction.countEvictions(count, namespaceID: id) }
        transaction.storage.signals.hasSpareSpace.store(true, ordering: .relaxed)
    }

    private func namespaces() throws -> [CacheTransaction.Namespace] {
        try transaction.connection.all(
            "SELECT * FROM cache_namespaces WHERE is_ranked <> 0 AND name > '' ORDER BY name LIMIT ?1",
            .integer(Limits.maxNamespaces)
        ) { CacheTransaction.Namespace($0) }
    }

    private func candidate(
        of namespace: CacheTransaction.Namespace, _ search: VictimSearch
    ) throws -> Candidate? {
        var search = search
        guard let victim = try search.next(of: namespace, in: transaction) else { return nil }
        let lastUse =
            try transaction.connection.first(
                "SELECT max(coalesce(last_accessed_at_ms, 0), updated_at_ms) FROM cache_entries WHERE entry_id = ?1",
                .integer(victim.id)
            ) { $0.integer(0) } ?? 0
        return Candidate(namespace: namespace, search: search, victim: victim, lastUse: lastUse)
    }

    /// Entries that have no rank yet, because the limit is new, and rows that wait for the sweep.
    private mutating func removeOldest() throws -> Bool {
        let oldest = try transaction.connection.first(
            "SELECT entry_id, blob_id FROM cache_entries WHERE entry_id > 0 ORDER BY entry_id LIMIT 1"
        ) { (id: $0.integer(0), blobID: $0.optionalInteger(1)) }
        guard let oldest else { return false }
        try remove(oldest.id, blobID: oldest.blobID)
        return true
    }

    private mutating func remove(_ entryID: Int64, blobID: Int64?) throws {
        try transaction.removeRow(entryID, blobID: blobID)
        // One that is being read is left to the sweep.
        guard let blobID, transaction.storage.leases.condemn(blobID) else { return }
        condemned.append(blobID)
        let connection = transaction.connection
        let chunks = try connection.all(
            "SELECT chunk_id FROM cache_chunks WHERE blob_id = ?1 ORDER BY number", .integer(blobID)
        ) { $0.integer(0) }
        for chunk in chunks { try connection.run("DELETE FROM cache_chunks WHERE chunk_id = ?1", .integer(chunk)) }
        try connection.run("DELETE FROM cache_blobs WHERE blob_id = ?1", .integer(blobID))
    }
}
