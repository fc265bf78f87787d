// Background work on sessions, in steps that let waiting writes go first. A dry run counts what a run would remove.

import Domain
import Synchronization

extension SQLiteStorage {
    // MARK: Expired sessions

    /// Removes expired sessions and everything in them. Bytes are those of state values and history data.
    func removeExpiredSessions(isDryRun: Bool) async throws -> Removal {
        try await flushActivity(.background)
        if isDryRun { return try await countExpiredSessions() }
        if clockWatch.holdsSweeps { return Removal() }
        var total = Removal()
        while true {
            let (step, isDone) = try await sessionTransaction(.background, .shrinking) { try $0.removeExpired() }
            total += step
            if step != Removal() { signals.hasSpareSpace.store(true, ordering: .relaxed) }
            if isDone { break }
        }
        // Sessions created in the meantime have lowered the mark themselves, or this look-up finds them.
        signals.earliestSessionExpiry.store(.max, ordering: .relaxed)
        let earliest = try await writer.perform(.background, .durable, .shrinking) { try $0.earliestSessionExpiry() }
        signals.note(sessionExpiry: earliest)
        var last: Int64? = 0
        while let id = last {
            last = try await sessionTransaction(.background, .shrinking) {
                try $0.removeUnusedTemplates(after: id, limit: StorageLimits.sweepBatchRows)
            }
        }
        return total
    }

    private func countExpiredSessions() async throws -> Removal {
        let now = clock.now()
        return try await readers.pooled(.upkeep) { connection in
            try connection.first(
                """
                SELECT count(*), coalesce(sum(state_size_bytes + history_size_bytes), 0) FROM sessions
                WHERE expires_at_ms <= ?1
                """, .instant(now)
            ) { Removal(removed: $0.int(0), freedBytes: $0.int(1)) } ?? Removal()
        }
    }

    // MARK: Histories over their caps

    /// Trims the histories of live sessions whose caps were lowered. An append already trims its own session's.
    ///
    /// The cap of a session without its own is its template's or the setting, so sessions are looked at template by
    /// template: the index finds only those with more items than their cap. A session's own cap never changes.
    func removeExcessHistory(isDryRun: Bool) async throws -> Removal {
        var total = Removal()
        var group = try await readers.pooled(.upkeep) { try $0.capGroup(after: nil) }
        while let current = group {
            total += try await removeExcessHistory(of: current, isDryRun: isDryRun)
            group = try await readers.pooled(.upkeep) { try $0.capGroup(after: current.template ?? "") }
        }
        return total
    }

    private func removeExcessHistory(of group: CapGroup, isDryRun: Bool) async throws -> Removal {
        let cap = group.cap ?? settings.current.integer(.maxHistoryItems)
        var total = Removal()
        var last: (count: Int, ref: Int64) = (cap, .max)
        while true {
            let (start, now) = (last, clock.now())
            let exceeded = try await readers.pooled(.upkeep) { connection in
                try connection.all(
                    """
                    SELECT history_count, session_ref FROM sessions
                    WHERE template_name IS ?1 AND (history_count, session_ref) > (?2, ?3) AND max_history_items IS NULL
                        AND (expires_at_ms IS NULL OR expires_at_ms > ?4)
                    ORDER BY history_count, session_ref LIMIT ?5
                    """,
                    .optional(group.template, Value.text), .integer(start.count), .integer(start.ref), .instant(now),
                    .integer(StorageLimits.sweepBatchSessions)
                ) { (count: $0.int(0), ref: $0.integer(1)) }
            }
            if isDryRun {
                total += try await readers.pooled(.upkeep) { connection in
                    try exceeded.reduce(into: Removal()) {
                        $0 += try connection.oldestHistory(of: $1.ref, count: $1.count - cap)
                    }
                }
            } else {
                total += try await trimHistories(exceeded.map(\.ref))
            }
            guard let end = exceeded.last, exceeded.count == StorageLimits.sweepBatchSessions else { return total }
            last = end
        }
    }

    private func trimHistories(_ refs: [Int64]) async throws -> Removal {
        var total = Removal()
        var rest = refs[...]
        while !rest.isEmpty {
            let part = rest
            let (step, left) = try await sessionTransaction(.background, .shrinking) { try $0.trimHistories(part) }
            total += step
            rest = left
            signals.hasSpareSpace.store(true, ordering: .relaxed)
        }
        return total
    }

    // MARK: Temporary keys

    /// Removes the temporary keys of sessions idle for `memory_cleanup_interval`.
    func removeTemporaryKeys(isDryRun: Bool) async throws -> Removal {
        let idle = settings.current.milliseconds(.cleanupInterval)
        try await flushActivity(.background)
        if isDryRun { return try await countTemporaryKeys(idleMilliseconds: idle) }
        if clockWatch.holdsSweeps { return Removal() }
        var total = Removal()
        while true {
            let step = try await sessionTransaction(.background, .shrinking) {
                try $0.removeTemporaryKeys(idleMilliseconds: idle)
            }
            guard let step else { return total }
            total += step
            signals.hasSpareSpace.store(true, ordering: .relaxed)
        }
    }

    private func countTemporaryKeys(idleMilliseconds: Int64) async throws -> Removal {
        let now = clock.now()
        return try await readers.pooled(.upkeep) { connection in
            try connection.first(
                """
                SELECT count(*), coalesce(sum(v.size_bytes), 0)
                FROM sessions s CROSS JOIN session_state v ON v.session_ref = s.session_ref
                WHERE s.temporary_key_count > 0 AND s.last_active_at_ms <= ?1
                    AND (s.expires_at_ms IS NULL OR s.expires_at_ms > ?2) AND v.is_temporary
                """, .instant(now.advanced(milliseconds: -idleMilliseconds)), .instant(now)
            ) { Removal(removed: $0.int(0), freedBytes: $0.int(1)) } ?? Removal()
        }
    }

    // MARK: Debounce marks

    /// Removes marks of live sessions that have expired; those of expired sessions are removed with the session.
    ///
    /// Both kinds of marks are read in the order of their expiry, and each step begins where the last one ended, so
    /// that no step reads past many marks of expired sessions to find one to remove.
    func removeDebounceMarks(isDryRun: Bool) async throws -> Removal {
        var total = Removal()
        if !isDryRun && clockWatch.holdsSweeps { return total }
        var position: DebounceMark? = .start
        while let start = position {
            let step =
                isDryRun
                ? try await countDebounceMarks(after: start)
                : try await sessionTransaction(.background, .shrinking) { try $0.removeDebounceMarks(after: start) }
            total.removed += step.removed
            position = step.end
        }
        return total
    }

    private func countDebounceMarks(after start: DebounceMark) async throws -> DebounceMarkStep {
        let now = clock.now()
        let marks = try await readers.pooled(.upkeep) {
            try $0.oldDebounceMarks(after: start, now: now, limit: StorageLimits.sweepBatchRows)
        }
        return (marks.count { $0.isDue }, marks.count < StorageLimits.sweepBatchRows ? nil : marks.last)
    }
}

extension SessionTransaction {
    /// One step of the sweep. If a session is live according to memory, its row is updated instead; one that is too
    /// large is removed in parts.
    func removeExpired() throws -> Step {
        let due = try connection.all(
            """
            SELECT session_ref, ttl_ms, state_key_count, history_count, state_size_bytes, history_size_bytes
            FROM sessions WHERE expires_at_ms <= ?1 ORDER BY expires_at_ms LIMIT ?2
            """, .instant(now), .integer(StorageLimits.sweepBatchSessions)
        ) { row in
            DueSession(
                ref: row.integer(0), lifetime: row.integer(1), keys: row.int(2), items: row.int(3),
                bytes: row.int(4) + row.int(5))
        }
        var removal = Removal()
        for session in due {
            if let activity = storage.activity.lastActivity(of: session.ref),
                activity.advanced(milliseconds: session.lifetime) > now
            {
                try connection.raiseActivity(of: session.ref, to: activity)
            } else {
                let step = try remove(session)
                removal += step.removal
                if !step.isDone { return (removal, isDone: false) }
            }
            if storage.writer.isStepOver { return (removal, isDone: false) }
        }
        return (removal, isDone: due.count < StorageLimits.sweepBatchSessions)
    }

    /// Removes an expired session, or as much of it as the step has time for: its row goes last.
    private func remove(_ session: DueSession) throws -> Step {
        var removal = Removal()
        let marks = try debounceMarks(of: session.ref, atMost: StorageLimits.sweepReadRows + 1)
        let rows = session.keys + session.items + marks
        if rows > StorageLimits.sweepReadRows || session.bytes > StorageLimits.sweepReadBytes {
            let history = try removeOldestHistory(of: session.ref, count: .max)
            removal.freedBytes += history.removal.freedBytes
            guard history.isDone else { return (removal, isDone: false) }
            let state = try removeState(of: session.ref)
            removal.freedBytes += state.removal.freedBytes
            guard state.isDone else { return (removal, isDone: false) }
            guard try removeDebounceMarks(of: session.ref).isExhausted else { return (removal, isDone: false) }
        }
        try connection.run("DELETE FROM sessions WHERE session_ref = ?1", .integer(session.ref))
        return (Removal(removed: 1, freedBytes: session.bytes), isDone: true)
    }

    private func removeState(of ref: Int64, onlyTemporary: Bool = false) throws -> Step {
        var removal = Removal()
        let step = try storage.writer.step(rows: StorageLimits.sweepBatchSessionRows) { rows in
            let keys = try connection.all(
                """
                SELECT state_id, size_bytes FROM session_state WHERE session_ref = ?1 AND (is_temporary OR NOT ?2)
                ORDER BY key LIMIT ?3
                """, .integer(ref), .integer(onlyTemporary ? 1 : 0), .integer(rows)
            ) { (id: $0.integer(0), bytes: $0.int(1)) }
            for key in keys {
                try connection.run("DELETE FROM session_state WHERE state_id = ?1", .integer(key.id))
                removal += Removal(removed: 1, freedBytes: key.bytes)
            }
            return keys.count
        }
        return (removal, step.isExhausted)
    }

    private func removeDebounceMarks(of ref: Int64) throws -> (rows: Int, isExhausted: Bool) {
        try storage.writer.step(rows: StorageLimits.sweepBatchSessionRows) { rows in
            try connection.run(
                """
                DELETE FROM debounce_marks WHERE session_ref = ?1 AND name IN (
                    SELECT name FROM debounce_marks WHERE session_ref = ?1 ORDER BY name LIMIT ?2)
                """, .integer(ref), .integer(rows))
            return connection.changes
        }
    }

    /// One step over sessions whose history may be over its cap.
    /// - Returns: what was removed, and the sessions another step must look at.
    fileprivate func trimHistories(_ refs: ArraySlice<Int64>) throws -> (removal: Removal, left: ArraySlice<Int64>) {
        var removal = Removal()
        for index in refs.indices {
            let step = try trimHistory(of: refs[index])
            removal += step.removal
            if !step.isDone { return (removal, refs[index...]) }
            if storage.writer.isStepOver { return (removal, refs[(index + 1)...]) }
        }
        return (removal, [])
    }

    /// One step over idle sessions with temporary keys.
    /// - Returns: nil when no session is left.
    fileprivate func removeTemporaryKeys(idleMilliseconds: Int64) throws -> Removal? {
        let cutoff = now.advanced(milliseconds: -idleMilliseconds)
        let idle = try connection.all(
            """
            SELECT session_ref FROM sessions
            WHERE temporary_key_count > 0 AND last_active_at_ms <= ?1 AND (expires_at_ms IS NULL OR expires_at_ms > ?2)
            ORDER BY last_active_at_ms LIMIT ?3
            """, .instant(cutoff), .instant(now), .integer(StorageLimits.sweepBatchSessions)
        ) { $0.integer(0) }
        guard !idle.isEmpty else { return nil }
        var removal = Removal()
        for ref in idle {
            if let activity = storage.activity.lastActivity(of: ref), activity > cutoff {
                try connection.raiseActivity(of: ref, to: activity)
            } else {
                removal += try removeState(of: ref, onlyTemporary: true).removal
                // The state changed, but nobody was active.
                try connection.run(
                    "UPDATE sessions SET own_version = own_version + 1 WHERE session_ref = ?1", .integer(ref))
            }
            if storage.writer.isStepOver { break }
        }
        return removal
    }

    /// One step over marks whose time is over.
    fileprivate func removeDebounceMarks(after start: DebounceMark) throws -> DebounceMarkStep {
        var (removed, end) = (0, start)
        let step = try storage.writer.step(rows: StorageLimits.sweepBatchRows) { rows in
            let marks = try connection.oldDebounceMarks(after: end, now: now, limit: rows)
            for mark in marks where mark.isDue {
                try connection.run(
                    "DELETE FROM debounce_marks WHERE session_ref = ?1 AND name = ?2", .integer(mark.ref),
                    .text(mark.name))
                removed += 1
            }
            end = marks.last ?? end
            return marks.count
        }
        return (removed, step.isExhausted ? nil : end)
    }
}

/// An expired session's row.
private struct DueSession {
    var ref: Int64
    var lifetime: Int64
    var keys: Int
    var items: Int
    var bytes: Int
}

/// A debounce that was allowed long ago.
private struct DebounceMark: Sendable {
    var expiry: Instant
    var ref: Int64
    var name: String
    /// Whether its session is live, so that it is removed by itself.
    var isDue = false

    /// Before all others.
    static let start = DebounceMark(expiry: Instant(milliseconds: .min), ref: 0, name: "")
}

/// How many marks one step removed, and the last one it read; nil if none is left.
private typealias DebounceMarkStep = (removed: Int, end: DebounceMark?)

/// Sessions whose history has the same cap.
private struct CapGroup: Sendable {
    /// nil: the sessions without a template.
    var template: String?
    /// The template's; nil: the setting.
    var cap: Int?
}

extension Connection {
    /// When the first session expires; nil if none does.
    func earliestSessionExpiry() throws(SQLiteError) -> Instant? {
        try first("SELECT min(expires_at_ms) FROM sessions WHERE expires_at_ms IS NOT NULL") {
            $0.optionalInstant(0)
        } ?? nil
    }

    /// Marks whose time is over, in the order of their expiry.
    fileprivate func oldDebounceMarks(
        after start: DebounceMark, now: Instant, limit: Int
    ) throws(SQLiteError) -> [DebounceMark] {
        try all(
            """
            SELECT m.expires_at_ms, m.session_ref, m.name, s.expires_at_ms IS NULL OR s.expires_at_ms > ?1
            FROM debounce_marks m CROSS JOIN sessions s ON s.session_ref = m.session_ref
            WHERE m.expires_at_ms <= ?1 AND (m.expires_at_ms, m.session_ref, m.name) > (?2, ?3, ?4)
            ORDER BY m.expires_at_ms, m.session_ref, m.name LIMIT ?5
            """, .instant(now), .instant(start.expiry), .integer(start.ref), .text(start.name), .integer(limit)
        ) { DebounceMark(expiry: $0.instant(0), ref: $0.integer(1), name: $0.text(2), isDue: $0.bool(3)) }
    }

    /// The group after that of the template `name`: each look at the index finds the next distinct name. The sessions
    /// without a template come first.
    fileprivate func capGroup(after name: String?) throws(SQLiteError) -> CapGroup? {
        guard let name else { return CapGroup(template: nil, cap: nil) }
        return try first(
            """
            SELECT s.template_name, t.max_history_items
            FROM sessions s LEFT JOIN session_templates t ON t.name = s.template_name
            WHERE s.template_name > ?1 ORDER BY s.template_name LIMIT 1
            """, .text(name)
        ) { CapGroup(template: $0.text(0), cap: $0.optionalInt(1)) }
    }

    /// A session's oldest items: how many, and their bytes.
    fileprivate func oldestHistory(of ref: Int64, count: Int) throws(SQLiteError) -> Removal {
        var oldest = Removal()
        try each(
            "SELECT size_bytes FROM history_items WHERE session_ref = ?1 ORDER BY item_ref LIMIT ?2",
            .integer(ref), .integer(count)
        ) { row in
            oldest += Removal(removed: 1, freedBytes: row.int(0))
            return true
        }
        return oldest
    }
}
