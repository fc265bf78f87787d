// Debouncing across all clients and replicas.

import Domain

extension SQLiteStorage {
    public func debounce(
        _ name: Name, of id: Name, delayMilliseconds: Int64, orCreating draft: SessionDraft?
    ) async throws -> DebounceDecision {
        // A refusal changes nothing, so it needs no write: a refusal by the committed state is final.
        do {
            let refusal = try await visit(id) { connection, row -> DebounceDecision? in
                let now = clock.now()
                let decision = DebounceDecision(
                    delayMilliseconds: delayMilliseconds,
                    lastAllowedAt: try connection.lastAllowed(name, of: row.ref, now: now), now: now)
                return decision.isAllowed ? nil : decision
            }
            if let refusal { return refusal }
        } catch let failure as Failure where failure.code == .sessionNotFound && draft != nil {
            // It is created below.
        }
        return try await sessionTransaction { transaction in
            try transaction.debounce(name, of: id, delayMilliseconds: delayMilliseconds, orCreating: draft)
        }
    }
}

extension SessionTransaction {
    /// Decides, and remembers the call if it is allowed.
    func debounce(
        _ name: Name, of id: Name, delayMilliseconds: Int64, orCreating draft: SessionDraft?
    ) throws -> DebounceDecision {
        var row = try live(id, orCreating: draft).row
        try touch(&row)
        let decision = DebounceDecision(
            delayMilliseconds: delayMilliseconds,
            lastAllowedAt: try connection.lastAllowed(name, of: row.ref, now: now), now: now)
        guard decision.isAllowed else { return decision }
        try connection.run(
            """
            INSERT INTO debounce_marks (session_ref, name, last_allowed_at_ms, expires_at_ms) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (session_ref, name) DO UPDATE
            SET last_allowed_at_ms = excluded.last_allowed_at_ms, expires_at_ms = excluded.expires_at_ms
            """,
            .integer(row.ref), .text(name.rawValue), .instant(now),
            .instant(DebounceDecision.expiry(ofCallAt: now, delayMilliseconds: delayMilliseconds)))
        try forgetOldMarks(of: row.ref)
        return decision
    }

    /// Keeps a session from remembering more than ``Limits/maxDebounceMarks``.
    private func forgetOldMarks(of ref: Int64) throws {
        let count =
            try connection.first(
                "SELECT count(*) FROM debounce_marks WHERE session_ref = ?1", .integer(ref)
            ) { $0.int(0) } ?? 0
        guard count > Limits.maxDebounceMarks else { return }
        try connection.run(
            """
            DELETE FROM debounce_marks WHERE session_ref = ?1 AND name IN (
                SELECT name FROM debounce_marks WHERE session_ref = ?1 ORDER BY last_allowed_at_ms LIMIT ?2)
            """, .integer(ref), .integer(count - Limits.maxDebounceMarks))
    }
}

extension Connection {
    /// When a call was last allowed, unless that is forgotten.
    fileprivate func lastAllowed(_ name: Name, of ref: Int64, now: Instant) throws(SQLiteError) -> Instant? {
        try first(
            """
            SELECT last_allowed_at_ms FROM debounce_marks WHERE session_ref = ?1 AND name = ?2 AND expires_at_ms > ?3
            """, .integer(ref), .text(name.rawValue), .instant(now)
        ) { $0.instant(0) }
    }
}
