// What the clock's being set back makes necessary: deadlines that are too far away are shortened.

import Domain

extension SQLiteStorage {
    /// Gives everything that was written or used in the future, by the clock of now, the lifetime it would have if that
    /// had happened now: so nothing lives longer than its lifetime, and nothing that is live is lost. In steps.
    func repairDeadlines() async throws {
        guard clockWatch.needsRepair else { return }
        clockWatch.repairBegins()
        do {
            try await flushActivity(.background)
            try await repairSessions()
            try await repairEntries()
            try await repairKeys()
        } catch {
            clockWatch.repairFailed()
            throw error
        }
    }

    private func repairSessions() async throws {
        while true {
            let step = try await sessionTransaction(.background, .shrinking) { transaction in
                try self.writer.step(rows: StorageLimits.sweepBatchRows) { rows in
                    try transaction.connection.run(
                        """
                        UPDATE sessions SET last_active_at_ms = ?1, created_at_ms = min(created_at_ms, ?1)
                        WHERE session_ref IN (
                            SELECT session_ref FROM sessions WHERE last_active_at_ms > ?1
                            ORDER BY last_active_at_ms LIMIT ?2)
                        """, .instant(transaction.now), .integer(rows))
                    return transaction.connection.changes
                }
            }
            if step.isExhausted { break }
        }
        signals.note(sessionExpiry: try await readers.pooled(.upkeep) { try $0.earliestSessionExpiry() })
    }

    /// Looks at every entry, because no index has the order of what is sought.
    private func repairEntries() async throws {
        var last: Int64 = 0
        while true {
            let start = last
            let now = clock.now()
            let page = try await readers.pooled(.upkeep) { connection in
                try connection.all(
                    """
                    SELECT entry_id, max(updated_at_ms, coalesce(expires_at_ms - ttl_ms, 0)) > ?2 FROM cache_entries
                    WHERE entry_id > ?1 ORDER BY entry_id LIMIT ?3
                    """, .integer(start), .instant(now), .integer(StorageLimits.clockRepairRows)
                ) { (id: $0.integer(0), isAhead: $0.bool(1)) }
            }
            var ahead = page.filter(\.isAhead).map(\.id)[...]
            while !ahead.isEmpty {
                let part = ahead
                let repaired = try await transaction(.background, .shrinking) { transaction in
                    try transaction.step(part) { id in
                        try transaction.repairDeadline(of: id)
                        return id
                    }
                }
                ahead = part.dropFirst(repaired.count)
            }
            guard let end = page.last?.id, page.count == StorageLimits.clockRepairRows else { return }
            last = end
        }
    }
}

extension CacheTransaction {
    fileprivate func repairDeadline(of entryID: Int64) throws {
        try connection.run(
            """
            UPDATE cache_entries SET expires_at_ms = min(expires_at_ms, ?2 + ttl_ms),
                updated_at_ms = min(updated_at_ms, ?2), created_at_ms = min(created_at_ms, ?2)
            WHERE entry_id = ?1
            """, .integer(entryID), .instant(now))
        let expiry = try connection.first(
            "SELECT expires_at_ms FROM cache_entries WHERE entry_id = ?1", .integer(entryID)
        ) { $0.optionalInstant(0) }
        storage.signals.note(expiry: expiry ?? nil)
    }
}

extension Connection {
    /// About when the database was last used: every run of all tasks is recorded, and sessions record their activity.
    func latestInstant() throws(SQLiteError) -> Instant? {
        let run: Instant? =
            try first(
                """
                SELECT max(started_at_ms) FROM maintenance_runs
                WHERE run_id > (SELECT max(run_id) FROM maintenance_runs) - 20
                """
            ) { $0.optionalInstant(0) } ?? nil
        let activity: Instant? =
            try first("SELECT max(last_active_at_ms) FROM sessions") { $0.optionalInstant(0) } ?? nil
        return [run, activity].compactMap { $0 }.max()
    }
}
