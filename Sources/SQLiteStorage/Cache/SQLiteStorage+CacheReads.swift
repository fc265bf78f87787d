// Reading the cache.

import Domain

extension SQLiteStorage {
    public func read(_ address: EntryAddress) async throws -> CacheHit {
        var missingBlob: Int64?
        while true {
            let now = clock.now()
            let found = try readers.point { try $0.find(address, now: now) }
            guard let namespaceID = found.namespaceID else { throw Failure.miss(.absent) }
            guard case .live(let entry) = found.outcome else {
                ledger.countMiss(namespaceID: namespaceID, found.miss, at: now)
                throw Failure.miss(found.miss)
            }
            guard let content = try content(of: entry) else {
                // If the blob was deleted after the look-up, its value had been replaced, so the next look-up finds
                // another; otherwise the database is damaged.
                guard entry.blobID != missingBlob else { throw Failure.valueMissing }
                missingBlob = entry.blobID
                continue
            }
            ledger.countHit(namespaceID: namespaceID, entryID: entry.id, at: now)
            return entry.hit(content: content, now: now)
        }
    }

    /// - Returns: nil if the blob no longer exists.
    func content(of entry: FoundEntry) throws -> StoredContent? {
        guard let blobID = entry.blobID else {
            try valueCheck.require(entry.value, toBe: entry.digest, entryID: entry.id)
            return .bytes(entry.value)
        }
        guard let lease = leases.lease(blobID), try readers.point({ try $0.hasBlob(blobID) }) else { return nil }
        let check =
            valueCheck.isDue(sizeBytes: entry.sizeBytes, digest: entry.digest)
            ? StreamedCheck(valueCheck, entryID: entry.id, digest: entry.digest, sizeBytes: entry.sizeBytes) : nil
        return .large(StoredBlob(readers: readers, lease: lease, check: check))
    }

    public func metadata(_ address: EntryAddress) async throws -> CacheMetadata {
        let now = clock.now()
        return try readers.point { connection in
            if let metadata = try connection.metadata(key: address.key, namespace: address.namespace, now: now) {
                return metadata
            }
            throw Failure.miss(try connection.find(address, now: now).miss)
        }
    }

    public func list(
        _ namespace: Name, filter: EntryFilter, after key: String?, limit: Int
    ) async throws -> [CacheMetadata] {
        let now = clock.now()
        let range = KeyRange(prefix: filter.prefix, after: key)
        return try await readers.pooled { connection in
            guard let tag = filter.tag else {
                return try connection.all(
                    """
                    SELECT * FROM cache_contents
                    WHERE namespace = ?1 AND key >= ?2 AND key < ?3
                        AND (expires_at_ms IS NULL OR expires_at_ms > ?4)
                    ORDER BY key LIMIT ?5
                    """, .text(namespace.rawValue), range.start, range.end, .instant(now), .integer(limit)
                ) { CacheMetadata($0, now: now) }
            }
            return try connection.all(
                """
                SELECT c.* FROM cache_entry_tags t JOIN cache_contents c ON c.entry_id = t.entry_id
                WHERE t.tag = ?1 AND t.generation_id = (SELECT generation_id FROM cache_namespaces WHERE name = ?2)
                    AND t.key >= ?3 AND t.key < ?4 AND (c.expires_at_ms IS NULL OR c.expires_at_ms > ?5)
                ORDER BY t.key LIMIT ?6
                """, .text(tag.rawValue), .text(namespace.rawValue), range.start, range.end, .instant(now),
                .integer(limit)
            ) { CacheMetadata($0, now: now) }
        }
    }
}

/// An entry's row with its value, if the value is kept in the row.
struct FoundEntry: Sendable {
    var id: Int64
    var sizeBytes: Int
    var blobID: Int64?
    var digest: [UInt8]
    var description: ContentDescription
    var updatedAt: Instant
    var expiresAt: Instant?
    var value: [UInt8]

    func hit(content: StoredContent, now: Instant) -> CacheHit {
        CacheHit(
            content: content, description: description, sizeBytes: sizeBytes, entityTag: EntityTag(digest: digest),
            updatedAt: updatedAt, expiresAt: expiresAt, asOf: now)
    }
}

/// What a look-up found.
struct Found: Sendable {
    enum Outcome: Sendable {
        case live(FoundEntry)
        case missing(CacheMiss)
    }

    /// nil: the namespace does not exist.
    var namespaceID: Int64?
    var outcome: Outcome

    var miss: CacheMiss {
        if case .missing(let miss) = outcome { miss } else { .absent }
    }
}

extension Connection {
    /// The hot path: one statement for a hit, two for a miss.
    func find(_ address: EntryAddress, now: Instant) throws(SQLiteError) -> Found {
        let found: (namespaceID: Int64, outcome: Found.Outcome?)? = try first(
            """
            SELECT n.namespace_id, e.entry_id, e.size_bytes, e.blob_id, e.sha256, e.content_type, e.content_encoding,
                e.updated_at_ms, e.expires_at_ms, v.value
            FROM cache_namespaces n
            LEFT JOIN cache_entries e ON e.generation_id = n.generation_id AND e.key = ?2
            LEFT JOIN cache_values v ON v.entry_id = e.entry_id
            WHERE n.name = ?1
            """, .text(address.namespace.rawValue), .text(address.key.rawValue)
        ) { row in
            let namespaceID = row.integer(0)
            if row.isNull(1) { return (namespaceID, nil) }
            let expiresAt = row.optionalInstant(8)
            if let expiresAt, expiresAt <= now {
                return (namespaceID, .missing(CacheMiss(after: [EntryRemoval(.expired, at: expiresAt)], now: now)))
            }
            let entry = FoundEntry(
                id: row.integer(1), sizeBytes: row.int(2), blobID: row.optionalInteger(3), digest: row.blob(4),
                description: ContentDescription(type: row.optionalText(5), encoding: row.optionalText(6)),
                updatedAt: row.instant(7), expiresAt: expiresAt, value: row.blob(9))
            return (namespaceID, .live(entry))
        }
        guard let (namespaceID, outcome) = found else { return Found(namespaceID: nil, outcome: .missing(.absent)) }
        if let outcome { return Found(namespaceID: namespaceID, outcome: outcome) }
        let miss = try miss(key: address.key, namespaceID: namespaceID, now: now)
        return Found(namespaceID: namespaceID, outcome: .missing(miss))
    }

    /// Why there is no row under a key. For a cleared entry, its row shows the reason until it is swept, and the record
    /// of its removal does after that. CROSS, because the key must be looked up first:
    /// https://sqlite.org/optoverview.html#crossjoin
    func miss(key: Key, namespaceID: Int64, now: Instant) throws(SQLiteError) -> CacheMiss {
        let removals = try all(
            """
            SELECT reason, removed_at_ms, NULL FROM cache_removals WHERE namespace_id = ?1 AND key = ?2
            UNION ALL
            SELECT NULL, g.cleared_at_ms, e.expires_at_ms
            FROM cache_entries e CROSS JOIN cache_generations g ON g.generation_id = e.generation_id
            WHERE e.key = ?2 AND e.generation_id IN (
                SELECT generation_id FROM cache_generations
                WHERE cleared_namespace_id = ?1 AND cleared_at_ms IS NOT NULL
                ORDER BY generation_id DESC LIMIT ?3)
            """, .integer(namespaceID), .text(key.rawValue), .integer(StorageLimits.maxClearsPerMiss)
        ) { row in
            row.optionalText(0).map { EntryRemoval(RemovalReason(rawValue: $0)!, at: row.instant(1)) }
                ?? EntryRemoval(clearedAt: row.instant(1), expiry: row.optionalInstant(2))
        }
        return CacheMiss(after: removals, now: now)
    }

    /// A live entry's metadata.
    func metadata(key: Key, namespace: Name, now: Instant) throws(SQLiteError) -> CacheMetadata? {
        try first(
            """
            SELECT * FROM cache_contents
            WHERE namespace = ?1 AND key = ?2 AND (expires_at_ms IS NULL OR expires_at_ms > ?3)
            """, .text(namespace.rawValue), .text(key.rawValue), .instant(now)
        ) { CacheMetadata($0, now: now) }
    }
}

extension CacheMetadata {
    /// From all columns of the view `cache_contents`.
    init(_ row: borrowing Row, now: Instant) {
        self.init(
            address: EntryAddress(
                namespace: Name(stored: row.text("namespace")), key: Key(stored: row.text("key"))),
            sizeBytes: row.int("size_bytes"),
            description: ContentDescription(
                type: row.optionalText("content_type"), encoding: row.optionalText("content_encoding")),
            entityTag: EntityTag(digest: row.blob("sha256")), createdAt: row.instant("created_at_ms"),
            updatedAt: row.instant("updated_at_ms"), expiresAt: row.optionalInstant("expires_at_ms"),
            timeToLive: TimeToLive(storedMilliseconds: row.optionalInteger("ttl_ms")),
            hitCount: row.int("hit_count"), lastAccessedAt: row.optionalInstant("last_accessed_at_ms"),
            tags: (row.optionalText("tags") ?? "").split(separator: ",").map { Tag(stored: String($0)) }.sorted(),
            computeSeconds: row.optionalReal("compute_seconds"), asOf: now)
    }
}
