// What sessions and their history hold, as they are now.

import Domain

extension SQLiteStorage {
    public func sessionFigures() async throws -> SessionFigures {
        let now = clock.now()
        try await flushActivity(.foreground)
        return try await readers.consistently(.aggregates) { connection in
            let (all, expired) = try connection.sessionTotals(now: now)
            let largest = try connection.all(
                """
                SELECT id, state_key_count, state_size_bytes, history_count, last_active_at_ms FROM sessions
                WHERE id IS NOT NULL AND (expires_at_ms IS NULL OR expires_at_ms > ?1)
                ORDER BY state_size_bytes DESC LIMIT ?2
                """, .instant(now), .integer(Limits.maxLargestSessions)
            ) { row in
                SessionFigures.Largest(
                    id: Name(stored: row.text(0)), stateKeyCount: row.int(1), stateSizeBytes: row.int(2),
                    historyCount: row.int(3), lastActiveAt: row.instant(4))
            }
            return SessionFigures(
                sessionCount: all.sessions - expired.sessions, stateKeyCount: all.keys - expired.keys,
                stateSizeBytes: all.bytes - expired.bytes, largest: largest)
        }
    }

    public func historyFigures() async throws -> HistoryFigures {
        let now = clock.now()
        return try await readers.consistently(.aggregates) { connection in
            let (all, expired) = try connection.sessionTotals(now: now)
            var kinds = try connection.all(
                "SELECT kind, count(*) FROM history_items WHERE kind IS NOT NULL GROUP BY kind"
            ) { (kind: Optional(Name(stored: $0.text(0))), itemCount: $0.int(1)) }
            let unnamed = all.items - kinds.reduce(0) { $0 + $1.itemCount }
            if unnamed > 0 { kinds.append((nil, unnamed)) }
            kinds.sort { $0.itemCount > $1.itemCount }
            return HistoryFigures(
                itemCount: all.items - expired.items, sizeBytes: all.itemBytes - expired.itemBytes,
                byKind: Array(kinds.prefix(Limits.maxReportedKinds)))
        }
    }
}

extension Connection {
    typealias SessionTotals = (sessions: Int, keys: Int, bytes: Int, items: Int, itemBytes: Int)

    /// What all sessions hold, from the index of their sizes, and what of it is expired but not swept.
    func sessionTotals(now: Instant) throws(SQLiteError) -> (all: SessionTotals, expired: SessionTotals) {
        func totals(_ row: borrowing Row) -> SessionTotals {
            (row.int(0), row.int(1), row.int(2), row.int(3), row.int(4))
        }
        let all = try first(
            """
            SELECT count(*), coalesce(sum(state_key_count), 0), coalesce(sum(state_size_bytes), 0),
                coalesce(sum(history_count), 0), coalesce(sum(history_size_bytes), 0) FROM sessions
            """, row: totals)!
        let expired = try first(
            """
            SELECT count(*), coalesce(sum(state_key_count), 0), coalesce(sum(state_size_bytes), 0),
                coalesce(sum(history_count), 0), coalesce(sum(history_size_bytes), 0) FROM sessions
            WHERE expires_at_ms <= ?1
            """, .instant(now), row: totals)!
        return (all, expired)
    }
}
