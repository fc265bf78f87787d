// What a write does to sessions, inside one transaction. The storage's public methods wrap these.

import Domain
import Synchronization

/// Sessions as one transaction sees and changes them. The clock is read once for all of it.
struct SessionTransaction {
    let connection: Connection
    let storage: SQLiteStorage
    let now: Instant

    // MARK: Looking up

    /// A session's row, including its activity in memory; live, or expired and not swept yet.
    func row(_ id: Name) throws -> SessionRow? {
        guard var row = try connection.session(id) else { return nil }
        row.raiseActivity(to: storage.activity.lastActivity(of: row.ref))
        return row
    }

    /// - Throws: `session_not_found`.
    func live(_ id: Name) throws -> SessionRow {
        guard let row = try row(id), row.isLive(at: now) else { throw Failure.sessionNotFound(id) }
        return row
    }

    /// The same, or a session that is created now.
    /// - Parameter draft: what it is created from; nil to throw.
    /// - Throws: `session_not_found`; `validation_failed` for a template that there is not.
    func live(_ id: Name, orCreating draft: SessionDraft?) throws -> (row: SessionRow, isNew: Bool) {
        guard let draft else { return (try live(id), isNew: false) }
        let old = try row(id)
        if let old, old.isLive(at: now) { return (old, isNew: false) }
        return (try create(id, draft, inPlaceOf: old), isNew: true)
    }

    // MARK: Creating and removing

    /// Creates a session in place of the expired one of its id, if that is still there. Its version continues from the
    /// highest one any removed session had, so that no tag of an earlier session of its id is repeated.
    func create(_ id: Name, _ draft: SessionDraft, inPlaceOf old: SessionRow?) throws -> SessionRow {
        let template = try draft.template.map { name in
            guard let template = try connection.templateRow(name), !template.isDeleted else {
                throw Failure.invalid("template", "'\(name)' is not a session template.")
            }
            return template
        }
        if let old { try remove(old) }
        let lifetime =
            draft.timeToLive ?? template?.timeToLive
            ?? .finite(milliseconds: storage.settings.current.milliseconds(.sessionTTL))
        try connection.run(
            """
            INSERT INTO sessions
                (id, template_name, ttl_ms, max_history_items, own_version, created_at_ms, last_active_at_ms, metadata)
            VALUES (?1, ?2, ?3, ?4, (SELECT highest_removed FROM session_versions) + 1 - ?5, ?6, ?6, ?7)
            """,
            .text(id.rawValue), .optional(draft.template) { .text($0.rawValue) },
            .optional(lifetime.milliseconds, Value.integer), .optional(draft.maxHistoryItems, Value.integer),
            .integer(template?.revision ?? 0), .instant(now), .textBytes(draft.metadata.bytes))
        storage.signals.note(sessionExpiry: lifetime.expiry(from: now))
        let row = try row(id)!
        for entry in draft.state { try store(entry, in: row) }
        return row
    }

    /// Removes a session at once or, if that would keep other writes waiting, frees its id and leaves its rows to the
    /// sweep.
    func remove(_ row: SessionRow) throws { try remove(row.ref, rows: row.rowCount, bytes: row.storedBytes) }

    /// Removes a session if it is live and its latest activity, including that in memory, was at `cutoff` or earlier.
    /// - Parameter condemnation: held until the write is committed or has failed.
    /// - Returns: whether it was removed.
    func removeInactive(_ ref: Int64, since cutoff: Instant, _ condemnation: ActivityLedger.Condemnation) throws -> Bool
    {
        let found = try connection.first(
            """
            SELECT state_key_count + history_count, state_size_bytes + history_size_bytes FROM sessions
            WHERE session_ref = ?1 AND last_active_at_ms <= ?2 AND (expires_at_ms IS NULL OR expires_at_ms > ?3)
            """, .integer(ref), .instant(cutoff), .instant(now)
        ) { (rows: $0.int(0), bytes: $0.int(1)) }
        guard let found, condemnation.condemn(ref, ifInactiveSince: cutoff) else { return false }
        try remove(ref, rows: found.rows, bytes: found.bytes)
        return true
    }

    private func remove(_ ref: Int64, rows: Int, bytes: Int) throws {
        let rows = rows + (try debounceMarks(of: ref, atMost: StorageLimits.sweepBatchSessionRows))
        guard rows > StorageLimits.sweepBatchSessionRows || bytes > StorageLimits.sweepReadBytes else {
            try connection.run("DELETE FROM sessions WHERE session_ref = ?1", .integer(ref))
            return
        }
        // Without an id it cannot be found, and it expired in 1970.
        try connection.run(
            "UPDATE sessions SET id = NULL, ttl_ms = 0, last_active_at_ms = 0 WHERE session_ref = ?1",
            .integer(ref))
        storage.signals.note(sessionExpiry: Instant(milliseconds: 0))
    }

    // MARK: Changing

    /// Notes a write as activity, and increments the version if the write changed the state.
    func touch(_ row: inout SessionRow, changingState: Bool = false) throws {
        try connection.run(
            """
            UPDATE sessions SET last_active_at_ms = max(last_active_at_ms, ?2), own_version = own_version + ?3
            WHERE session_ref = ?1
            """, .integer(row.ref), .instant(now), .integer(changingState ? 1 : 0))
        row.raiseActivity(to: now)
        if changingState { row.ownVersion += 1 }
    }

    /// Sets one key.
    /// - Returns: whether that changed anything.
    @discardableResult
    func store(_ entry: StateEntry, in row: SessionRow) throws -> Bool {
        try StateBounds.check(entry)
        try connection.run(
            """
            INSERT INTO session_state (session_ref, key, value, updated_at_ms) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (session_ref, key) DO UPDATE SET value = excluded.value, updated_at_ms = excluded.updated_at_ms
            WHERE value <> excluded.value
            """,
            .integer(row.ref), .text(entry.key.rawValue), .textBytes(entry.value.bytes), .instant(now))
        return connection.changes > 0
    }

    /// Sets defaults whose keys are absent.
    /// - Returns: their keys.
    func initialize(_ defaults: [StateEntry], in row: SessionRow) throws -> [Key] {
        var initialized: [Key] = []
        for entry in defaults where try !connection.hasValue(entry.key, in: row) {
            try store(entry, in: row)
            initialized.append(entry.key)
        }
        return initialized
    }

    /// Removes one stored key.
    /// - Returns: whether it was there.
    func removeKey(_ key: Key, from row: SessionRow) throws -> Bool {
        try connection.run(
            "DELETE FROM session_state WHERE session_ref = ?1 AND key = ?2", .integer(row.ref), .text(key.rawValue))
        return connection.changes > 0
    }

    /// The stored keys that begin with `prefix`, and the bytes of their values.
    func storedKeys(prefix: String, of row: SessionRow) throws -> [(key: Key, sizeBytes: Int)] {
        let range = KeyRange(prefix: prefix, after: nil)
        return try connection.all(
            "SELECT key, size_bytes FROM session_state WHERE session_ref = ?1 AND key >= ?2 AND key < ?3 ORDER BY key",
            .integer(row.ref), range.start, range.end
        ) { (Key(stored: $0.text(0)), $0.int(1)) }
    }

    /// The row as it is now, after its state changed, with the figures of its resolved state.
    /// - Parameter before: the same before the change; nil for a session that is new.
    /// - Throws: `too_many_keys`, `payload_too_large`.
    func checked(_ row: SessionRow, before: Session?) throws -> Session {
        var changed = try connection.session(row.id)!
        changed.raiseActivity(to: row.lastActiveAt)
        let session = try connection.resolved(changed)
        try StateBounds.check(
            keys: session.stateKeyCount, keysBefore: before?.stateKeyCount ?? 0, bytes: session.stateSizeBytes,
            bytesBefore: before?.stateSizeBytes ?? 0)
        return session
    }

    /// How many debounces a session remembers, counted up to a number.
    func debounceMarks(of ref: Int64, atMost limit: Int) throws -> Int {
        try connection.first(
            "SELECT count(*) FROM (SELECT 1 FROM debounce_marks WHERE session_ref = ?1 LIMIT ?2)",
            .integer(ref), .integer(limit)
        ) { $0.int(0) } ?? 0
    }

    /// What a step removed, and whether nothing is left for another one.
    typealias Step = (removal: Removal, isDone: Bool)

    /// One step of removing a session's oldest items, from the oldest on: at most `count`, at most those up to `last`.
    func removeOldestHistory(of ref: Int64, count: Int, upTo last: Int64 = .max) throws -> Step {
        var removal = Removal()
        while removal.removed < min(count, StorageLimits.sweepBatchSessionRows) {
            let limit = min(count - removal.removed, StorageLimits.sweepReadRows)
            var part = Removal()
            var end: Int64 = 0
            try connection.each(
                """
                SELECT item_ref, size_bytes FROM history_items WHERE session_ref = ?1 AND item_ref <= ?2
                ORDER BY item_ref LIMIT ?3
                """, .integer(ref), .integer(last), .integer(limit)
            ) { row in
                end = row.integer(0)
                part += Removal(removed: 1, freedBytes: row.int(1))
                return part.freedBytes < StorageLimits.sweepReadBytes
            }
            if part.removed == 0 { return (removal, isDone: true) }
            try connection.run(
                "DELETE FROM history_items WHERE session_ref = ?1 AND item_ref <= ?2", .integer(ref), .integer(end))
            removal += part
            if storage.writer.isStepOver { break }
        }
        return (removal, isDone: removal.removed == count)
    }

    /// One step of removing items beyond the cap of a session's history, the oldest first.
    func trimHistory(of ref: Int64) throws -> Step {
        let standard = storage.settings.current.integer(.maxHistoryItems)
        let excess = try connection.first(
            """
            SELECT s.history_count - coalesce(s.max_history_items, t.max_history_items, ?2)
            FROM sessions s LEFT JOIN session_templates t ON t.name = s.template_name WHERE s.session_ref = ?1
            """, .integer(ref), .integer(standard)
        ) { $0.int(0) }
        guard let excess, excess > 0 else { return (Removal(), isDone: true) }
        return try removeOldestHistory(of: ref, count: excess)
    }
}

/// A session's row and what its template adds to it.
struct SessionRow: Sendable {
    var ref: Int64
    var id: Name
    var template: Name?
    var timeToLive: TimeToLive
    var ownVersion: Int64
    var createdAt: Instant
    var lastActiveAt: Instant
    /// During a read, the latest activity before it.
    var activeBefore: Instant?
    var storedKeyCount: Int
    var storedSizeBytes: Int
    var historyCount: Int
    var historySizeBytes: Int
    var metadata: JSONText
    var templateID: Int64?
    var templateRevision: Int64
    var defaultCount: Int
    var defaultsSizeBytes: Int

    var version: Int64 { ownVersion + templateRevision }
    /// Rows and bytes of values that are removed with it.
    var rowCount: Int { storedKeyCount + historyCount }
    var storedBytes: Int { storedSizeBytes + historySizeBytes }
    /// Upper bounds for its resolved state.
    var maxKeyCount: Int { storedKeyCount + defaultCount }
    var maxStateBytes: Int { storedSizeBytes + defaultsSizeBytes }

    func isLive(at now: Instant) -> Bool { timeToLive.expiry(from: lastActiveAt).map { $0 > now } ?? true }

    mutating func raiseActivity(to instant: Instant?) {
        if let instant { lastActiveAt = max(lastActiveAt, instant) }
    }

    /// From all columns of `sessions`, and its template's `template_id, revision, default_count, defaults_size_bytes`.
    init(_ row: borrowing Row) {
        ref = row.integer("session_ref")
        id = Name(stored: row.text("id"))
        template = row.optionalText("template_name").map { Name(stored: $0) }
        timeToLive = TimeToLive(storedMilliseconds: row.optionalInteger("ttl_ms"))
        ownVersion = row.integer("own_version")
        createdAt = row.instant("created_at_ms")
        lastActiveAt = row.instant("last_active_at_ms")
        storedKeyCount = row.int("state_key_count")
        storedSizeBytes = row.int("state_size_bytes")
        historyCount = row.int("history_count")
        historySizeBytes = row.int("history_size_bytes")
        metadata = JSONText(stored: row.blob("metadata"))
        templateID = row.optionalInteger("template_id")
        templateRevision = row.integer("revision")
        defaultCount = row.int("default_count")
        defaultsSizeBytes = row.int("defaults_size_bytes")
    }
}

extension Connection {
    /// Writes an activity, unless the row has a later one.
    /// - Returns: whether the session is there.
    @discardableResult
    func raiseActivity(of ref: Int64, to activity: Instant) throws(SQLiteError) -> Bool {
        try run(
            "UPDATE sessions SET last_active_at_ms = max(last_active_at_ms, ?2) WHERE session_ref = ?1",
            .integer(ref), .instant(activity))
        return changes > 0
    }

    /// A session's row as it is stored, live or not.
    func session(_ id: Name) throws(SQLiteError) -> SessionRow? {
        try first(
            """
            SELECT s.*, t.template_id, t.revision, t.default_count, t.defaults_size_bytes
            FROM sessions s LEFT JOIN session_templates t ON t.name = s.template_name WHERE s.id = ?1
            """, .text(id.rawValue)
        ) { SessionRow($0) }
    }

    /// The session with the figures of its resolved state: what is stored, and the defaults it does not override.
    func resolved(_ row: SessionRow) throws(SQLiteError) -> Session {
        var overridden = Removal()
        if let templateID = row.templateID, row.defaultCount > 0, row.storedKeyCount > 0 {
            overridden =
                try first(
                    """
                    SELECT count(*), coalesce(sum(d.size_bytes), 0) FROM session_state v
                    CROSS JOIN session_template_defaults d
                    WHERE v.session_ref = ?1 AND d.template_id = ?2 AND d.key = v.key
                    """, .integer(row.ref), .integer(templateID)
                ) { Removal(removed: $0.int(0), freedBytes: $0.int(1)) } ?? Removal()
        }
        return Session(
            id: row.id, createdAt: row.createdAt, lastActiveAt: row.lastActiveAt, timeToLive: row.timeToLive,
            version: row.version, template: row.template, metadata: row.metadata,
            stateKeyCount: row.maxKeyCount - overridden.removed,
            stateSizeBytes: row.maxStateBytes - overridden.freedBytes, historyCount: row.historyCount,
            historySizeBytes: row.historySizeBytes)
    }

    /// The resolved value of a key; nil when it is absent.
    func value(of key: Key, in row: SessionRow) throws(SQLiteError) -> JSONText? {
        let stored = try first(
            "SELECT value FROM session_state WHERE session_ref = ?1 AND key = ?2", .integer(row.ref),
            .text(key.rawValue)
        ) { JSONText(stored: $0.blob(0)) }
        if let stored { return stored }
        guard let templateID = row.templateID, row.defaultCount > 0 else { return nil }
        return try first(
            "SELECT value FROM session_template_defaults WHERE template_id = ?1 AND key = ?2",
            .integer(templateID), .text(key.rawValue)
        ) { JSONText(stored: $0.blob(0)) }
    }

    /// Whether a key is stored or has a default.
    func hasValue(_ key: Key, in row: SessionRow) throws(SQLiteError) -> Bool {
        let found = try first(
            """
            SELECT EXISTS (SELECT 1 FROM session_state WHERE session_ref = ?1 AND key = ?3)
                OR EXISTS (SELECT 1 FROM session_template_defaults WHERE template_id = ?2 AND key = ?3)
            """, .integer(row.ref), .optional(row.templateID, Value.integer), .text(key.rawValue)
        ) { $0.bool(0) }
        return found ?? false
    }
}

extension Failure {
    static func sessionNotFound(_ id: Name) -> Failure {
        Failure(.sessionNotFound, "There is no session '\(id)': it was never created, was deleted, or has expired.")
    }
}
