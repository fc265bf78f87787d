// Namespaces: policies, clearing.

import Domain
import Synchronization

extension SQLiteStorage {
    public func setPolicy(
        _ policy: CachePolicy, of name: Name
    ) async throws -> (namespace: CacheNamespace, created: Bool) {
        let (created, mustRank) = try await transaction { transaction in
            let old = try transaction.namespace(name)
            let namespace = try transaction.namespaceOrNew(name)
            let isRanked = policy.isCapped || self.databaseLimit != nil
            let mustRank = isRanked && (!namespace.isRanked || namespace.policy.eviction != policy.eviction)
            try transaction.connection.run(
                """
                UPDATE cache_namespaces SET has_ttl = ?2, ttl_ms = ?3, max_entries = ?4, max_bytes = ?5,
                    max_entry_bytes = ?6, eviction = ?7,
                    is_ranked = CASE WHEN NOT ?8 THEN 0 WHEN ?9 THEN 1 ELSE is_ranked END
                WHERE namespace_id = ?1
                """,
                .integer(namespace.id), .integer(policy.timeToLive == nil ? 0 : 1),
                .optional(policy.timeToLive?.milliseconds, Value.integer), .optional(policy.maxEntries, Value.integer),
                .optional(policy.maxBytes, Value.integer), .optional(policy.maxEntryBytes, Value.integer),
                .text(policy.eviction.rawValue), .integer(isRanked ? 1 : 0), .integer(mustRank ? 1 : 0))
            return (old == nil, mustRank)
        }
        if policy.isCapped || mustRank { _ = try await holdCaps(of: name, mustRank: mustRank) }
        return (try await namespace(name), created)
    }

    /// Evicts what is over the caps of a namespace, after ranking its entries if they must be. If it fails, the
    /// background task will continue.
    func holdCaps(of name: Name, mustRank: Bool) async throws -> Removal {
        do {
            if mustRank { try await rankEntries(of: name) }
            return try await evictExcess(of: name)
        } catch {
            signals.hasExceededCaps.store(true, ordering: .relaxed)
            throw error
        }
    }

    /// Gives every entry of a namespace its rank under the current policy, in steps. `is_ranked` is 1 while this is in
    /// progress and 2 afterwards; if it is interrupted, the background task repeats it. That takes little space, and is
    /// what makes room under max_database_bytes, so the limit is no reason against it.
    private func rankEntries(of name: Name) async throws {
        var key: String? = ""
        while let start = key {
            key = try await transaction(.background, .shrinking) { try $0.rankEntries(of: name, after: start) }
        }
    }

    /// Evicts entries until a namespace is within its caps, in steps.
    private func evictExcess(of name: Name) async throws -> Removal {
        var total = Removal()
        while true {
            let step: CacheTransaction.CapStep = try await transaction(.background, .shrinking) { transaction in
                guard let namespace = try transaction.namespace(name) else { return (Removal(), isDone: true) }
                return try transaction.holdCaps(of: namespace, sparing: nil)
            }
            total += step.evicted
            if step.isDone { return total }
        }
    }

    public func removeNamespace(_ name: Name) async throws {
        let hold = SweepHold(on: self)
        defer { hold.release() }
        let retired = try await transaction(.foreground, .shrinking) { transaction in
            guard let namespace = try transaction.namespace(name) else { throw Failure.namespaceNotFound(name) }
            let retired = try transaction.retire(namespace, hold)
            if retired.rows == 0 {
                try transaction.connection.run(
                    "DELETE FROM cache_generations WHERE generation_id = ?1", .integer(namespace.generationID))
            }
            try transaction.connection.run(
                "DELETE FROM cache_namespaces WHERE namespace_id = ?1", .integer(namespace.id))
            return retired
        }
        _ = try await removal(by: [retired])
    }

    // MARK: Clearing

    public func clear(_ name: Name, filter: EntryFilter, isDryRun: Bool) async throws -> Removal {
        if filter.isEmpty { return isDryRun ? try await contents(of: [name]) : try await retire([name]) }
        let writtenBefore = signals.nextWriteNumber.load(ordering: .relaxed)
        let updatedBy =
            filter.olderThanMilliseconds.map { clock.now().advanced(milliseconds: -$0) } ?? Instant(milliseconds: .max)
        var total = Removal()
        var last: String? = ""
        while let start = last {
            let range = KeyRange(prefix: filter.prefix, after: start)
            let page = try await readers.pooled { connection in
                guard let tag = filter.tag else {
                    return try connection.all(
                        """
                        SELECT e.entry_id, e.generation_id, e.key, e.size_bytes, e.expires_at_ms, e.write_number,
                            e.updated_at_ms
                        FROM cache_namespaces n JOIN cache_entries e ON e.generation_id = n.generation_id
                        WHERE n.name = ?1 AND e.key >= ?2 AND e.key < ?3 ORDER BY e.key LIMIT ?4
                        """, .text(name.rawValue), range.start, range.end, .integer(StorageLimits.sweepBatchRows),
                        row: ClearingRow.init)
                }
                return try connection.all(
                    """
                    SELECT e.entry_id, t.generation_id, t.key, e.size_bytes, e.expires_at_ms, e.write_number,
                        e.updated_at_ms
                    FROM cache_entry_tags t JOIN cache_entries e USING (entry_id)
                    WHERE t.tag = ?1 AND t.generation_id = (SELECT generation_id FROM cache_namespaces WHERE name = ?2)
                        AND t.key >= ?3 AND t.key < ?4 ORDER BY t.key LIMIT ?5
                    """, .text(tag.rawValue), .text(name.rawValue), range.start, range.end,
                    .integer(StorageLimits.sweepBatchRows), row: ClearingRow.init)
            }
            let rows = page.filter { $0.updatedAt <= updatedBy }
            total += try await clear(rows, writtenBefore: writtenBefore, isDryRun: isDryRun)
            last = page.last?.key
        }
        return total
    }

    public func clearAll(tag: Tag?, isDryRun: Bool) async throws -> Removal {
        guard let tag else {
            let names = try await readers.pooled { connection in
                try connection.all(
                    "SELECT name FROM cache_namespaces ORDER BY name LIMIT ?1", .integer(Limits.maxNamespaces)
                ) { Name(stored: $0.text(0)) }
            }
            return isDryRun ? try await contents(of: names) : try await retire(names)
        }
        let writtenBefore = signals.nextWriteNumber.load(ordering: .relaxed)
        var total = Removal()
        var last: (generation: Int64, key: String)? = (-1, "")
        while let start = last {
            // CROSS keeps the tags as the outer loop: https://sqlite.org/optoverview.html#crossjoin
            let page = try await readers.pooled { connection in
                try connection.all(
                    """
                    SELECT e.entry_id, t.generation_id, t.key, e.size_bytes, e.expires_at_ms, e.write_number,
                        e.updated_at_ms
                    FROM cache_entry_tags t CROSS JOIN cache_namespaces n ON n.generation_id = t.generation_id
                    CROSS JOIN cache_entries e ON e.entry_id = t.entry_id
                    WHERE t.tag = ?1 AND (t.generation_id, t.key) > (?2, ?3) ORDER BY t.generation_id, t.key LIMIT ?4
                    """, .text(tag.rawValue), .integer(start.generation), .text(start.key),
                    .integer(StorageLimits.sweepBatchRows), row: ClearingRow.init)
            }
            total += try await clear(page, writtenBefore: writtenBefore, isDryRun: isDryRun)
            last = page.last.map { ($0.generationID, $0.key) }
        }
        return total
    }

    /// The live entries among the rows of a page that were written before the clear began, removed unless it is a dry
    /// run.
    private func clear(_ rows: [ClearingRow], writtenBefore number: Int64, isDryRun: Bool) async throws -> Removal {
        let rows = rows.filter { $0.writeNumber < number }
        guard isDryRun else { return try await remove(rows.map(\.id), writtenBefore: number) }
        let now = clock.now()
        return rows.filter { row in row.expiresAt.map { $0 > now } ?? true }.reduce(into: Removal()) {
            $0 += Removal(removed: 1, freedBytes: $1.sizeBytes)
        }
    }

    /// The live entries of namespaces.
    private func contents(of names: [Name]) async throws -> Removal {
        let now = clock.now()
        return try await readers.consistently { connection in
            try names.reduce(into: Removal()) { total, name in
                guard let (id, all) = try connection.generation(of: name) else { return }
                let expired = try connection.expired(in: id, at: now)
                total += Removal(
                    removed: all.removed - expired.removed, freedBytes: all.freedBytes - expired.freedBytes)
            }
        }
    }

    /// Empties namespaces.
    /// - Returns: the live entries that were removed.
    private func retire(_ names: [Name]) async throws -> Removal {
        let hold = SweepHold(on: self)
        defer { hold.release() }
        var retired: [RetiredGeneration] = []
        while retired.count < names.count {
            let part = names[retired.count...]
            retired += try await transaction(.foreground, .shrinking) { transaction in
                try transaction.step(part) { try transaction.clear($0, hold) }
            }
        }
        return try await removal(by: retired)
    }

    /// Removes entries unless they were written since the clear began or are in a cleared generation already.
    /// - Returns: those that were live.
    private func remove(_ ids: [Int64], writtenBefore number: Int64) async throws -> Removal {
        var total = Removal()
        var rest = ids[...]
        while !rest.isEmpty {
            let part = rest
            let removals = try await transaction(.foreground, .shrinking) { transaction in
                try transaction.step(part) { try transaction.remove($0, writtenBefore: number) }
            }
            total = removals.reduce(into: total) { $0 += $1 }
            rest = part.dropFirst(removals.count)
        }
        return total
    }
}

extension CacheTransaction {
    /// One step of ranking a namespace's entries, in the order of their keys.
    /// - Returns: the last key that was ranked; nil once all are.
    fileprivate func rankEntries(of name: Name, after start: String) throws -> String? {
        guard let namespace = try namespace(name), namespace.isRanked else { return nil }
        let eviction = namespace.policy.eviction
        var last = start
        let step = try storage.writer.step(rows: StorageLimits.sweepBatchRows) { rows in
            let entries = try connection.all(
                """
                SELECT entry_id, key, created_at_ms, max(coalesce(last_accessed_at_ms, 0), updated_at_ms), hit_count
                FROM cache_entries WHERE generation_id = ?1 AND key > ?2 ORDER BY key LIMIT ?3
                """, .integer(namespace.generationID), .text(last), .integer(rows)
            ) { row in
                let rank = eviction.rank(createdAt: row.instant(2), lastUsedAt: row.instant(3), hits: row.int(4))
                return (id: row.integer(0), key: row.text(1), rank: rank)
            }
            for entry in entries {
                try connection.run(
                    "UPDATE cache_entries SET eviction_rank = ?2 WHERE entry_id = ?1", .integer(entry.id),
                    .integer(entry.rank))
                // Its last use may have been before the clock was set back.
                storage.ledger.raiseTick(to: entry.rank)
                last = entry.key
            }
            return entries.count
        }
        guard step.isExhausted else { return last }
        try connection.run(
            "UPDATE cache_namespaces SET is_ranked = 2 WHERE namespace_id = ?1", .integer(namespace.id))
        return nil
    }

    /// Handles items one by one, at least one, until the writer's step is over.
    /// - Returns: the result of each item that was handled.
    func step<Item, Result>(_ items: ArraySlice<Item>, _ body: (Item) throws -> Result) rethrows -> [Result] {
        var results: [Result] = []
        for item in items {
            results.append(try body(item))
            if storage.writer.isStepOver { break }
        }
        return results
    }

    /// Removes an entry unless it was written since the clear began or is in a cleared generation already.
    /// - Returns: it, if it was live.
    fileprivate func remove(_ id: Int64, writtenBefore number: Int64) throws -> Removal {
        let row = try connection.first(
            """
            SELECT n.namespace_id, e.key, e.size_bytes, e.blob_id, e.expires_at_ms FROM cache_entries e
            JOIN cache_namespaces n USING (generation_id) WHERE e.entry_id = ?1 AND e.write_number < ?2
            """, .integer(id), .integer(number)
        ) { (namespaceID: $0.integer(0), $0.text(1), $0.int(2), $0.optionalInteger(3), $0.optionalInstant(4)) }
        guard let (namespaceID, key, size, blobID, expiry) = row else { return Removal() }
        try removeRow(id, blobID: blobID)
        if let expiry, expiry <= now {
            try remember(key, in: namespaceID, reason: .expired, at: expiry)
            try countExpirations(1, namespaceID: namespaceID)
            return Removal()
        }
        try remember(key, in: namespaceID, reason: .cleared, at: now)
        return Removal(removed: 1, freedBytes: size)
    }
}

/// An entry that a clear may remove.
private struct ClearingRow: Sendable {
    var id: Int64
    var generationID: Int64
    var key: String
    var sizeBytes: Int
    var expiresAt: Instant?
    var writeNumber: Int64
    var updatedAt: Instant

    /// From the columns `entry_id, generation_id, key, size_bytes, expires_at_ms, write_number, updated_at_ms`.
    init(_ row: borrowing Row) {
        id = row.integer(0)
        generationID = row.integer(1)
        key = row.text(2)
        sizeBytes = row.int(3)
        expiresAt = row.optionalInstant(4)
        writeNumber = row.integer(5)
        updatedAt = row.instant(6)
    }
}

/// The rows of a namespace that was cleared or removed: look-ups no longer find them, and the sweep will remove them.
struct RetiredGeneration: Sendable {
    var id: Int64
    var namespaceID: Int64
    var clearedAt: Instant
    /// All its entries, and the expired ones among them; nil until these have been counted.
    var all = Removal()
    var expired: Removal? = Removal()

    var rows: Int { all.removed }
}

/// Keeps the sweep from the rows of retired generations until their expired ones are counted.
final class SweepHold: Sendable {
    private let storage: SQLiteStorage
    private let held = Mutex<Set<Int64>>([])

    init(on storage: SQLiteStorage) { self.storage = storage }

    /// Called within the write that retires the generation, which may be run twice or fail.
    func add(_ generationID: Int64) {
        guard held.withLock({ $0.insert(generationID).inserted }) else { return }
        storage.heldGenerations.withLock { $0[generationID, default: 0] += 1 }
    }

    func release() {
        let ids = held.withLock { held in
            defer { held = [] }
            return held
        }
        guard !ids.isEmpty else { return }
        storage.heldGenerations.withLock { generations in
            for id in ids { generations[id] = generations[id].flatMap { $0 == 1 ? nil : $0 - 1 } }
        }
        storage.signals.hasClearedRows.store(true, ordering: .relaxed)
    }
}

extension SQLiteStorage {
    /// The live entries that were removed with these generations.
    ///
    /// If there were too many expired ones to count within the write, they are counted here: only the sweep changes the
    /// rows of a retired generation, and it is held off. If the process ends first, these expirations are not counted.
    fileprivate func removal(by retired: [RetiredGeneration]) async throws -> Removal {
        var live = Removal()
        for generation in retired {
            let expired: Removal
            if let counted = generation.expired {
                expired = counted
            } else {
                expired = try await readers.pooled { try $0.expired(in: generation.id, at: generation.clearedAt) }
                try await transaction(.foreground, .shrinking) {
                    try $0.countExpirations(expired.removed, namespaceID: generation.namespaceID)
                }
            }
            live.removed += generation.all.removed - expired.removed
            live.freedBytes += generation.all.freedBytes - expired.freedBytes
        }
        return live
    }
}

extension CacheTransaction {
    /// Empties a namespace by giving it a new generation.
    fileprivate func clear(_ name: Name, _ hold: SweepHold) throws -> RetiredGeneration {
        guard let namespace = try namespace(name) else {
            return RetiredGeneration(id: 0, namespaceID: 0, clearedAt: now)
        }
        let retired = try retire(namespace, hold)
        guard retired.rows > 0 else { return retired }
        try connection.run(
            "UPDATE cache_namespaces SET generation_id = ?2 WHERE namespace_id = ?1",
            .integer(namespace.id), .integer(try newGeneration()))
        return retired
    }

    /// Marks a namespace's generation for removal. Takes the same time regardless of the number of entries.
    fileprivate func retire(_ namespace: Namespace, _ hold: SweepHold) throws -> RetiredGeneration {
        var retired = RetiredGeneration(id: namespace.generationID, namespaceID: namespace.id, clearedAt: now)
        retired.all = try connection.first(
            "SELECT entry_count, size_bytes FROM cache_generations WHERE generation_id = ?1",
            .integer(namespace.generationID)
        ) { Removal(removed: $0.int(0), freedBytes: $0.int(1)) }!
        // Nothing to sweep: the generation stays with the namespace, or is removed with it.
        guard retired.rows > 0 else { return retired }
        try connection.run(
            "UPDATE cache_generations SET cleared_at_ms = ?2, cleared_namespace_id = ?3 WHERE generation_id = ?1",
            .integer(namespace.generationID), .instant(now), .integer(namespace.id))
        storage.signals.hasClearedRows.store(true, ordering: .relaxed)
        // The sweep counts expirations of namespaces' current generations only.
        let limit = StorageLimits.maxExpiredCountedPerWrite
        let expired = try connection.expired(in: namespace.generationID, at: now, limit: limit + 1)
        if expired.removed > limit {
            retired.expired = nil
            hold.add(namespace.generationID)
        } else {
            retired.expired = expired
            if expired.removed > 0 { try countExpirations(expired.removed, namespaceID: namespace.id) }
        }
        return retired
    }
}

extension Connection {
    /// The current generation of a namespace, and all its entries.
    fileprivate func generation(of name: Name) throws(SQLiteError) -> (id: Int64, all: Removal)? {
        try first(
            """
            SELECT g.generation_id, g.entry_count, g.size_bytes
            FROM cache_namespaces n JOIN cache_generations g USING (generation_id) WHERE n.name = ?1
            """, .text(name.rawValue)
        ) { ($0.integer(0), Removal(removed: $0.int(1), freedBytes: $0.int(2))) }
    }

    /// The rows of a generation that are expired at an instant, counted from the index alone.
    fileprivate func expired(
        in generationID: Int64, at instant: Instant, limit: Int = .max
    ) throws(SQLiteError) -> Removal {
        try first(
            """
            SELECT count(*), coalesce(sum(size_bytes), 0) FROM (
                SELECT size_bytes FROM cache_entries INDEXED BY cache_entries_due
                WHERE expires_at_ms <= ?1 AND generation_id = ?2 LIMIT ?3)
            """, .instant(instant), .integer(generationID), .integer(limit)
        ) { Removal(removed: $0.int(0), freedBytes: $0.int(1)) }!
    }
}

extension Connection {
    /// When the next entry of any namespace expires; nil if none does. One look-up per namespace.
    func earliestExpiry() throws(SQLiteError) -> Instant? {
        try first(
            """
            SELECT min((
                SELECT min(e.expires_at_ms) FROM cache_entries e INDEXED BY cache_entries_due
                WHERE e.generation_id = n.generation_id AND e.expires_at_ms IS NOT NULL))
            FROM cache_namespaces n WHERE n.generation_id > 0
            """
        ) { $0.optionalInstant(0) } ?? nil
    }
}

extension Connection {
    /// The highest rank of any entry; 0 if there is none. One look-up per namespace with caps.
    func highestRank() throws(SQLiteError) -> Int64 {
        let rank = try first(
            """
            SELECT max((
                SELECT max(e.eviction_rank) FROM cache_entries e
                WHERE e.generation_id = n.generation_id AND e.eviction_rank IS NOT NULL))
            FROM cache_namespaces n WHERE n.is_ranked <> 0 AND n.name > ''
            """
        ) { $0.optionalInteger(0) }
        return (rank ?? nil) ?? 0
    }
}

extension Failure {
    static func namespaceNotFound(_ name: Name) -> Failure {
        Failure(.namespaceNotFound, "There is no namespace '\(name)'. It is created on the first write.")
    }
}
