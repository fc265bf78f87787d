// What a write does to the cache, inside one transaction. The storage's public methods wrap these.

import Crypto
import Domain
import Synchronization

/// The cache as one transaction sees and changes it. The clock is read once for all of it.
struct CacheTransaction {
    let connection: Connection
    let storage: SQLiteStorage
    let withdrawal: AccessLedger.Withdrawal
    let now: Instant

    /// A namespace's row, as far as writing needs it.
    struct Namespace {
        var id: Int64
        var generationID: Int64
        var policy: CachePolicy
        var isRanked: Bool

        /// From all columns of `cache_namespaces`.
        init(_ row: borrowing Row) {
            id = row.integer("namespace_id")
            generationID = row.integer("generation_id")
            policy = CachePolicy(row)
            isRanked = row.bool("is_ranked")
        }
    }

    /// An entry's row, live or expired.
    struct Entry {
        var id: Int64
        var digest: [UInt8]
        var sizeBytes: Int
        var blobID: Int64?
        var updatedAt: Instant
        var expiresAt: Instant?
        var timeToLiveMilliseconds: Int64?
        /// Its place in the order of eviction; nil if none is kept.
        var rank: Int64?
        var hasTags: Bool

        func isLive(at now: Instant) -> Bool { expiresAt.map { $0 > now } ?? true }
    }

    // MARK: Looking up

    func namespace(_ name: Name) throws -> Namespace? {
        try connection.first("SELECT * FROM cache_namespaces WHERE name = ?1", .text(name.rawValue)) { Namespace($0) }
    }

    /// The namespace, created with defaults if it does not exist.
    /// - Throws: `too_many_namespaces`.
    func namespaceOrNew(_ name: Name) throws -> Namespace {
        if let namespace = try namespace(name) { return namespace }
        let count = try connection.first("SELECT count(*) FROM cache_namespaces") { $0.int(0) } ?? 0
        guard count < Limits.maxNamespaces else {
            throw Failure(
                .tooManyNamespaces,
                "There are \(count) namespaces already, which is the maximum. Put ids into keys, not into namespaces.")
        }
        let generationID = try newGeneration()
        try connection.run(
            "INSERT INTO cache_namespaces (name, generation_id, created_at_ms, is_ranked) VALUES (?1, ?2, ?3, ?4)",
            .text(name.rawValue), .integer(generationID), .instant(now),
            .integer(storage.databaseLimit == nil ? 0 : 2))
        return try namespace(name)!
    }

    func newGeneration() throws -> Int64 {
        try connection.first("INSERT INTO cache_generations DEFAULT VALUES RETURNING generation_id") { $0.integer(0) }!
    }

    func entry(_ key: Key, in namespace: Namespace) throws -> Entry? {
        try connection.first(
            """
            SELECT entry_id, sha256, size_bytes, blob_id, updated_at_ms, expires_at_ms, ttl_ms, eviction_rank,
                EXISTS (SELECT 1 FROM cache_entry_tags t WHERE t.entry_id = cache_entries.entry_id)
            FROM cache_entries WHERE generation_id = ?1 AND key = ?2
            """, .integer(namespace.generationID), .text(key.rawValue)
        ) { row in
            Entry(
                id: row.integer(0), digest: row.blob(1), sizeBytes: row.int(2), blobID: row.optionalInteger(3),
                updatedAt: row.instant(4), expiresAt: row.optionalInstant(5),
                timeToLiveMilliseconds: row.optionalInteger(6), rank: row.optionalInteger(7),
                hasTags: row.bool(8))
        }
    }

    /// - Throws: `precondition_failed`.
    private func require(_ condition: EntityCondition, of live: Entry?) throws(Failure) {
        guard condition != .none else { return }
        try condition.check(
            live.map { .present(EntityTag(digest: $0.digest).hex, updatedAt: $0.updatedAt) } ?? .absent)
    }

    /// The live entry under a key.
    /// - Throws: `cache_miss`.
    private func liveEntry(_ key: Key, in name: Name) throws -> (namespace: Namespace, entry: Entry) {
        guard let namespace = try namespace(name) else { throw Failure.miss(.absent) }
        guard let entry = try entry(key, in: namespace) else {
            throw Failure.miss(try connection.miss(key: key, namespaceID: namespace.id, now: now))
        }
        if let expiresAt = entry.expiresAt, !entry.isLive(at: now) {
            throw Failure.miss(CacheMiss(after: [EntryRemoval(.expired, at: expiresAt)], now: now))
        }
        return (namespace, entry)
    }

    // MARK: Storing

    func set(_ write: CacheWrite, namespace name: Name) throws -> CacheWriteOutcome {
        let namespace = try namespaceOrNew(name)
        let settings = storage.settings.current
        try namespace.policy.admit(sizeBytes: write.sizeBytes, ceiling: settings.integer(.maxEntryBytes))
        let old = try entry(write.key, in: namespace)
        let live = old.flatMap { $0.isLive(at: now) ? $0 : nil }
        try require(write.condition, of: live)
        let lifetime = namespace.policy.lifetime(
            asked: write.timeToLive, standard: .finite(milliseconds: settings.milliseconds(.cacheTTL)))
        let expiresAt = lifetime.expiry(from: now)
        let blobID = try store(write.content)
        let entryID: Int64
        if let live {
            entryID = live.id
            try replace(live, with: write, blobID: blobID, lifetime: lifetime, expiresAt: expiresAt, in: namespace)
        } else {
            if let old {
                try countExpirations(1, namespaceID: namespace.id)
                try removeRow(old.id, blobID: old.blobID)
            }
            entryID = storage.signals.nextEntryID.wrappingAdd(1, ordering: .relaxed).oldValue
            try insert(entryID, write, blobID: blobID, lifetime: lifetime, expiresAt: expiresAt, in: namespace)
        }
        if blobID == nil {
            // An empty upload has no blob.
            let bytes = if case .bytes(let bytes) = write.content { bytes } else { [] as [UInt8] }
            try connection.run(
                """
                INSERT INTO cache_values (entry_id, value) VALUES (?1, ?2)
                ON CONFLICT (entry_id) DO UPDATE SET value = excluded.value
                """, .integer(entryID), .blob(bytes))
        } else if let live, live.blobID == nil {
            try connection.run("DELETE FROM cache_values WHERE entry_id = ?1", .integer(entryID))
        }
        try setTags(write.tags, of: entryID, key: write.key, in: namespace, replacing: live)
        if live?.blobID != nil { storage.signals.hasOrphans.store(true, ordering: .relaxed) }
        storage.signals.note(expiry: expiresAt)
        if namespace.policy.isCapped { try holdCaps(of: namespace, sparing: entryID) }
        return CacheWriteOutcome(created: live == nil, entityTag: write.entityTag, expiresAt: expiresAt)
    }

    /// Stores content that does not fit in its row.
    /// - Returns: its blob; nil if it fits.
    private func store(_ content: NewContent) throws -> Int64? {
        switch content {
        case .uploaded(let upload):
            guard let upload = upload as? BlobUpload else { preconditionFailure("an upload of another engine") }
            return upload.isEmpty ? nil : upload.blobID
        case .bytes(let bytes):
            guard bytes.count > Limits.maxInlineValueBytes else { return nil }
            let blobID = storage.signals.nextBlobID.wrappingAdd(1, ordering: .relaxed).oldValue
            try connection.insertBlob(blobID, now: now)
            for (number, start) in stride(from: 0, to: bytes.count, by: Limits.chunkBytes).enumerated() {
                let chunk = Array(bytes[start..<min(start + Limits.chunkBytes, bytes.count)])
                try connection.insertChunk(chunk, number: number, of: blobID)
            }
            return blobID
        }
    }

    private func insert(
        _ entryID: Int64, _ write: CacheWrite, blobID: Int64?, lifetime: TimeToLive, expiresAt: Instant?,
        in namespace: Namespace
    ) throws {
        try connection.run(
            """
            INSERT INTO cache_entries (entry_id, generation_id, key, size_bytes, blob_id, sha256, content_type,
                content_encoding, created_at_ms, updated_at_ms, expires_at_ms, ttl_ms, compute_seconds, eviction_rank,
                write_number)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11, ?12, ?13, ?14)
            """,
            .integer(entryID), .integer(namespace.generationID), .text(write.key.rawValue), .integer(write.sizeBytes),
            .optional(blobID, Value.integer), .blob(write.entityTag.digest),
            .optional(write.description.type, Value.text),
            .optional(write.description.encoding, Value.text), .instant(now), .optional(expiresAt, Value.instant),
            .optional(lifetime.milliseconds, Value.integer), .optional(write.computeSeconds, Value.real),
            rankOfNewEntry(in: namespace), nextWriteNumber())
        // The reason why an earlier entry was removed says nothing about this one.
        try connection.run(
            "DELETE FROM cache_removals WHERE namespace_id = ?1 AND key = ?2",
            .integer(namespace.id), .text(write.key.rawValue))
    }

    /// A replaced entry stays the same entry, with its age and hits.
    private func replace(
        _ old: Entry, with write: CacheWrite, blobID: Int64?, lifetime: TimeToLive, expiresAt: Instant?,
        in namespace: Namespace
    ) throws {
        try connection.run(
            """
            UPDATE cache_entries SET size_bytes = ?2, blob_id = ?3, sha256 = ?4, content_type = ?5,
                content_encoding = ?6, updated_at_ms = ?7, expires_at_ms = ?8, ttl_ms = ?9, compute_seconds = ?10,
                eviction_rank = ?11, write_number = ?12
            WHERE entry_id = ?1
            """,
            .integer(old.id), .integer(write.sizeBytes), .optional(blobID, Value.integer),
            .blob(write.entityTag.digest),
            .optional(write.description.type, Value.text), .optional(write.description.encoding, Value.text),
            .instant(now),
            .optional(expiresAt, Value.instant), .optional(lifetime.milliseconds, Value.integer),
            .optional(write.computeSeconds, Value.real), rank(ofRenewed: old, in: namespace),
            nextWriteNumber())
    }

    /// The number of a write of a value: higher than those of all earlier ones.
    private func nextWriteNumber() -> Value {
        .integer(storage.signals.nextWriteNumber.wrappingAdd(1, ordering: .relaxed).oldValue)
    }

    private func setTags(
        _ tags: [Tag], of entryID: Int64, key: Key, in namespace: Namespace, replacing old: Entry?
    ) throws {
        if let old, old.hasTags {
            try connection.run("DELETE FROM cache_entry_tags WHERE entry_id = ?1", .integer(entryID))
        }
        for tag in tags {
            try connection.run(
                "INSERT INTO cache_entry_tags (tag, generation_id, key, entry_id) VALUES (?1, ?2, ?3, ?4)",
                .text(tag.rawValue), .integer(namespace.generationID), .text(key.rawValue), .integer(entryID))
        }
    }

    // MARK: Changing and removing

    /// - Returns: whether a live entry was removed.
    func delete(_ key: Key, namespace name: Name, condition: EntityCondition) throws -> Bool {
        let namespace = try namespace(name)
        let old = try namespace.flatMap { try entry(key, in: $0) }
        let live = old.flatMap { $0.isLive(at: now) ? $0 : nil }
        try require(condition, of: live)
        guard let namespace, let old else { return false }
        if live == nil {
            try remember(key.rawValue, in: namespace.id, reason: .expired, at: old.expiresAt ?? now)
            try countExpirations(1, namespaceID: namespace.id)
        } else {
            try remember(key.rawValue, in: namespace.id, reason: .deleted, at: now)
        }
        try removeRow(old.id, blobID: old.blobID)
        return live != nil
    }

    /// Renews an entry's lifetime. A touch is a use: the entry moves back in the order of eviction.
    func touch(
        _ key: Key, namespace name: Name, timeToLive: TimeToLive?, condition: EntityCondition
    ) throws -> CacheMetadata {
        let (namespace, entry) = try liveEntry(key, in: name)
        try require(condition, of: entry)
        let lifetime = timeToLive ?? TimeToLive(storedMilliseconds: entry.timeToLiveMilliseconds)
        let expiresAt = lifetime.expiry(from: now)
        try setExpiry(expiresAt, lifetime, of: entry, in: namespace)
        return try connection.metadata(key: key, namespace: name, now: now)!
    }

    private func setExpiry(_ expiresAt: Instant?, _ lifetime: TimeToLive, of entry: Entry, in namespace: Namespace)
        throws
    {
        try connection.run(
            "UPDATE cache_entries SET expires_at_ms = ?2, ttl_ms = ?3, eviction_rank = ?4 WHERE entry_id = ?1",
            .integer(entry.id), .optional(expiresAt, Value.instant), .optional(lifetime.milliseconds, Value.integer),
            rank(ofRenewed: entry, in: namespace))
        storage.signals.note(expiry: expiresAt)
    }

    func increment(_ increment: CacheIncrement, namespace name: Name) throws -> Int64 {
        let namespace = try namespaceOrNew(name)
        let old = try entry(increment.key, in: namespace).flatMap { $0.isLive(at: now) ? $0 : nil }
        try require(increment.condition, of: old)
        let sum = try increment.apply(to: try old.map(smallValue))
        let bytes = CacheIncrement.bytes(of: sum)
        let entityTag = EntityTag(digest: Array(SHA256.hash(data: bytes)))
        guard let old else {
            let write = CacheWrite(
                key: increment.key, content: .bytes(bytes), sizeBytes: bytes.count, entityTag: entityTag,
                description: ContentDescription(type: "application/json"), timeToLive: increment.timeToLive)
            _ = try set(write, namespace: name)
            return sum
        }
        try namespace.policy.admit(
            sizeBytes: bytes.count, ceiling: storage.settings.current.integer(.maxEntryBytes))
        let (lifetime, expiresAt) = increment.lifetime(
            keeping: (TimeToLive(storedMilliseconds: old.timeToLiveMilliseconds), old.expiresAt), now: now)
        try connection.run(
            """
            UPDATE cache_entries SET size_bytes = ?2, sha256 = ?3, updated_at_ms = ?4, expires_at_ms = ?5, ttl_ms = ?6,
                eviction_rank = ?7, write_number = ?8
            WHERE entry_id = ?1
            """,
            .integer(old.id), .integer(bytes.count), .blob(entityTag.digest), .instant(now),
            .optional(expiresAt, Value.instant), .optional(lifetime.milliseconds, Value.integer),
            rank(ofRenewed: old, in: namespace), nextWriteNumber())
        try connection.run("UPDATE cache_values SET value = ?2 WHERE entry_id = ?1", .integer(old.id), .blob(bytes))
        storage.signals.note(expiry: expiresAt)
        if namespace.policy.isCapped { try holdCaps(of: namespace, sparing: old.id) }
        return sum
    }

    /// The value of an entry, if it is kept in its row; empty for a large one.
    private func smallValue(of entry: Entry) throws -> [UInt8] {
        try connection.first("SELECT value FROM cache_values WHERE entry_id = ?1", .integer(entry.id)) { $0.blob(0) }
            ?? []
    }

    func removeRow(_ entryID: Int64, blobID: Int64?) throws {
        try connection.run("DELETE FROM cache_entries WHERE entry_id = ?1", .integer(entryID))
        if blobID != nil { storage.signals.hasOrphans.store(true, ordering: .relaxed) }
    }

    /// Records why a key no longer has an entry, unless a later removal is already recorded. A removal in the future
    /// was recorded before the clock was set back, so it does not count as later than now.
    ///
    /// On a full disk nothing is recorded, because removing must not take space.
    func remember(_ key: String, in namespaceID: Int64, reason: RemovalReason, at instant: Instant) throws {
        if storage.space.isShort { return }
        try connection.run(
            """
            INSERT INTO cache_removals (namespace_id, key, reason, removed_at_ms) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (namespace_id, key) DO UPDATE
            SET reason = excluded.reason, removed_at_ms = excluded.removed_at_ms
            WHERE excluded.removed_at_ms >= min(removed_at_ms, ?5)
            """, .integer(namespaceID), .text(key), .text(reason.rawValue), .instant(instant), .instant(now))
        storage.signals.newRemovals.wrappingAdd(1, ordering: .relaxed)
    }

    func countExpirations(_ count: Int, namespaceID: Int64) throws {
        try connection.run(
            "UPDATE cache_namespaces SET expirations = expirations + ?2 WHERE namespace_id = ?1",
            .integer(namespaceID), .integer(count))
        try record(CacheActivity(expirations: count), namespaceID: namespaceID, at: now)
    }

    func countEvictions(_ count: Int, namespaceID: Int64) throws {
        try connection.run(
            "UPDATE cache_namespaces SET evictions = evictions + ?2 WHERE namespace_id = ?1",
            .integer(namespaceID), .integer(count))
        try record(CacheActivity(evictions: count), namespaceID: namespaceID, at: now)
    }
}

extension CachePolicy {
    /// From all columns of `cache_namespaces`.
    init(_ row: borrowing Row) {
        self.init(
            timeToLive: row.bool("has_ttl") ? TimeToLive(storedMilliseconds: row.optionalInteger("ttl_ms")) : nil,
            maxEntries: row.optionalInt("max_entries"), maxBytes: row.optionalInt("max_bytes"),
            maxEntryBytes: row.optionalInt("max_entry_bytes"), eviction: Eviction(rawValue: row.text("eviction"))!)
    }
}
