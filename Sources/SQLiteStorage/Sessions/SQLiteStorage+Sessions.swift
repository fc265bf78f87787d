// Sessions: creating, opening, reading, listing, removing, optimizing.

import Domain

extension SQLiteStorage: SessionStore {
    public func createSession(_ id: Name, _ draft: SessionDraft) async throws -> Session {
        try await sessionTransaction(bytes: draft.sizeBytes) { transaction in
            let old = try transaction.row(id)
            if let old, old.isLive(at: transaction.now) {
                throw Failure(
                    .sessionExists, "Session '\(id)' already exists. PUT opens a session whether or not it exists.")
            }
            let row = try transaction.create(id, draft, inPlaceOf: old)
            return try transaction.checked(row, before: nil)
        }
    }

    public func openSession(
        _ id: Name, _ draft: SessionDraft, defaults: [StateEntry], condition: EntityCondition
    ) async throws -> SessionOpening {
        if condition == .none, let session = try await openUnchanged(id, defaults: defaults) {
            return SessionOpening(session: session, isNew: false, initializedKeys: [])
        }
        let bytes = draft.sizeBytes + StatePatch(setDefault: defaults).sizeBytes
        return try await sessionTransaction(bytes: bytes) { transaction in
            let old = try transaction.row(id)
            try condition.check(.untagged(isPresent: old?.isLive(at: transaction.now) ?? false))
            if var row = old, row.isLive(at: transaction.now) {
                let before = try transaction.connection.resolved(row)
                let initialized = try transaction.initialize(defaults, in: row)
                try transaction.touch(&row, changingState: !initialized.isEmpty)
                let session = try transaction.checked(row, before: before)
                return SessionOpening(session: session, isNew: false, initializedKeys: initialized)
            }
            let row = try transaction.create(id, draft, inPlaceOf: old)
            let initialized = try transaction.initialize(defaults, in: row)
            let session = try transaction.checked(row, before: nil)
            return SessionOpening(session: session, isNew: true, initializedKeys: initialized)
        }
    }

    /// The usual case of a front end that reruns: the session exists and has all its keys. Then opening it is a read,
    /// and nothing is written.
    private func openUnchanged(_ id: Name, defaults: [StateEntry]) async throws -> Session? {
        guard defaults.count <= StorageLimits.maxPointReadKeys else { return nil }
        do {
            return try await visit(id) { connection, row in
                for entry in defaults where try !connection.hasValue(entry.key, in: row) { return nil }
                return try connection.resolved(row)
            }
        } catch let failure as Failure where failure.code == .sessionNotFound {
            return nil
        }
    }

    public func readSession(_ id: Name) async throws -> (session: Session, before: Session) {
        try await visit(id) { connection, row in
            let session = try connection.resolved(row)
            var before = session
            before.lastActiveAt = row.activeBefore ?? session.lastActiveAt
            return (session, before)
        }
    }

    public func sessionContents(of id: Name, including parts: Set<SessionPart>) async throws -> SessionContents {
        let read: @Sendable (Connection, SessionRow) throws -> SessionContents = { connection, row in
            var contents = SessionContents(session: try connection.resolved(row))
            if parts.contains(.state) { contents.state = try connection.state(of: row, keys: nil) }
            if parts.contains(.history) {
                contents.history = try connection.history(
                    of: row, kind: nil, order: .newest, after: nil, limit: Limits.maxPageItems)
            }
            return contents
        }
        let small = try await visit(id) { connection, row -> SessionContents? in
            let rows = row.maxKeyCount + (parts.contains(.history) ? row.historyCount : 0)
            let bytes = row.maxStateBytes + (parts.contains(.history) ? row.historySizeBytes : 0)
            let isSmall = rows <= StorageLimits.maxPointReadKeys && bytes <= StorageLimits.maxPointReadBytes
            return isSmall ? try read(connection, row) : nil
        }
        if let small { return small }
        return try await visitPooled(id, read)
    }

    public func touchSession(_ id: Name) async throws -> Session {
        try await sessionTransaction { transaction in
            var row = try transaction.live(id)
            try transaction.touch(&row)
            return try transaction.connection.resolved(row)
        }
    }

    public func sessions(
        activeWithinMilliseconds: Int64?, after: CollectionPosition?, limit: Int
    ) async throws -> Page<Session> {
        // The clock is read first, so that activity up to then is written.
        let now = clock.now()
        try await flushActivity(.foreground)
        let since = activeWithinMilliseconds.map { now.advanced(milliseconds: -$0) }
        return try await readers.pooled { connection in
            try connection.consistently {
                let rows = try connection.all(
                    """
                    SELECT s.*, t.template_id, t.revision, t.default_count, t.defaults_size_bytes
                    FROM sessions s LEFT JOIN session_templates t ON t.name = s.template_name
                    WHERE (s.last_active_at_ms, s.session_ref) < (?1, ?2) AND s.last_active_at_ms >= ?3
                        AND (s.expires_at_ms IS NULL OR s.expires_at_ms > ?4)
                    ORDER BY s.last_active_at_ms DESC, s.session_ref DESC LIMIT ?5
                    """,
                    .integer(after?.instant.milliseconds ?? .max), .integer(after?.number ?? .max),
                    .integer(since?.milliseconds ?? .min), .instant(now), .integer(limit + 1)
                ) { SessionRow($0) }
                let page = try rows.prefix(limit).map { try connection.resolved($0) }
                let next = rows.count > limit ? rows[limit - 1] : nil
                return Page(
                    items: page, next: next.map { CollectionPosition(instant: $0.lastActiveAt, number: $0.ref) })
            }
        }
    }

    public func removeSession(_ id: Name) async throws {
        try await sessionTransaction(.foreground, .shrinking) { try $0.remove(try $0.live(id)) }
    }

    public func optimizeSession(_ id: Name, keep: [Key]) async throws -> SessionOptimization {
        let kept = Set(keep)
        let (ref, step, keys, keyBytes) = try await sessionTransaction(.foreground, .shrinking) { transaction in
            var row = try transaction.live(id)
            var keys: [Key] = []
            var keyBytes = 0
            for prefix in TemporaryKeys.prefixes {
                for (key, sizeBytes) in try transaction.storedKeys(prefix: prefix, of: row) where !kept.contains(key) {
                    _ = try transaction.removeKey(key, from: row)
                    keys.append(key)
                    keyBytes += sizeBytes
                }
            }
            try transaction.touch(&row, changingState: !keys.isEmpty)
            return (row.ref, try transaction.trimHistory(of: row.ref), keys, keyBytes)
        }
        let removal = try await finishTrimming(ref, after: step)
        return SessionOptimization(
            historyRemoved: removal.removed, keysRemoved: keys, freedBytes: keyBytes + removal.freedBytes)
    }

    // MARK: Reading and its activity

    /// Reads a live session on the calling thread, on one snapshot of the database, and notes that as activity.
    ///
    /// - Parameter body: gets the row including this activity.
    /// - Throws: `session_not_found`, and what `body` throws.
    func visit<T: Sendable>(_ id: Name, _ body: (Connection, SessionRow) throws -> T) async throws -> T {
        while true {
            let now = clock.now()
            let (settlements, removals) = (activity.settlements, activity.removals)
            let visit: Visit<T> = try readers.point { connection in
                try connection.consistently {
                    guard var row = try connection.session(id) else { return .absent }
                    row.raiseActivity(to: activity.lastActivity(of: row.ref))
                    guard row.isLive(at: now) else { return .expired }
                    let note = activity.note(row.ref, at: now, asOf: removals)
                    guard note != .uncertain else { return .leaving }
                    row.activeBefore = row.lastActiveAt
                    row.raiseActivity(to: now)
                    return .live(ref: row.ref, isNoted: note == .kept, try body(connection, row))
                }
            }
            switch visit {
            case .absent: throw Failure.sessionNotFound(id)
            // Activity may have moved from memory to the row after the row was read.
            case .expired where activity.settlements != settlements: continue
            case .expired: throw Failure.sessionNotFound(id)
            // The write that removes it ends before this one begins.
            case .leaving: try await writer.perform(.foreground, .withNext, .shrinking) { _ in }
            case .live(let ref, let isNoted, let value):
                let isThere =
                    if isNoted { true } else {
                        // It is not what the request was sent for.
                        try await Writer.$companion.withValue(nil) {
                            try await writer.perform(.foreground, .durable, .shrinking) {
                                try $0.raiseActivity(of: ref, to: now)
                            }
                        }
                    }
                if isThere { return value }
            }
        }
    }

    /// Reads a live session on a thread of the pool, on one snapshot of the database, and notes that as activity.
    /// - Throws: `session_not_found`, and what `body` throws.
    func visitPooled<T: Sendable>(
        _ id: Name, _ body: @escaping @Sendable (Connection, SessionRow) throws -> T
    ) async throws -> T {
        let ref = try await visit(id) { _, row in row.ref }
        return try await readers.pooled { connection in
            try connection.consistently {
                guard let row = try connection.session(id), row.ref == ref else { throw Failure.sessionNotFound(id) }
                return try body(connection, row)
            }
        }
    }

    /// Writes the activity noted so far.
    func flushActivity(_ priority: Writer.Priority) async throws {
        var rest = activity.all()[...]
        while !rest.isEmpty {
            let written = rest.prefix(try await write(rest.prefix(StorageLimits.flushBatchRows), priority))
            activity.settle(written)
            rest = rest.dropFirst(written.count)
        }
    }

    /// - Returns: how many were written when the step was over.
    private func write(
        _ activities: ArraySlice<(ref: Int64, instant: Instant)>, _ priority: Writer.Priority
    ) async throws -> Int {
        try await writer.perform(priority, .durable, .shrinking) { connection in
            var written = 0
            for (ref, instant) in activities {
                try connection.raiseActivity(of: ref, to: instant)
                written += 1
                if self.writer.isStepOver { break }
            }
            return written
        }
    }

    /// A write inside the next group.
    func sessionTransaction<T: Sendable>(
        _ priority: Writer.Priority = .foreground, _ growth: Writer.Growth = .growing, bytes: Int = 0,
        _ body: @escaping @Sendable (SessionTransaction) throws -> T
    ) async throws -> T {
        try await writer.perform(priority, bytes: bytes, .durable, growth) { connection in
            try body(SessionTransaction(connection: connection, storage: self, now: self.clock.now()))
        }
    }
}

/// The result of looking up a session.
private enum Visit<T: Sendable>: Sendable {
    case absent, expired
    /// A write is removing it, or may have removed it in the meantime.
    case leaving
    /// - Parameter isNoted: whether there was room to note the activity in memory.
    case live(ref: Int64, isNoted: Bool, T)
}

extension SessionDraft {
    /// About how many bytes it holds in memory.
    fileprivate var sizeBytes: Int { StatePatch(set: state).sizeBytes + metadata.sizeBytes }
}
