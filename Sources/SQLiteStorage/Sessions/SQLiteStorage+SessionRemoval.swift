// Removing many sessions at once: those that have been inactive for a time.

import Domain
import Synchronization

extension SQLiteStorage {
    /// Sessions are found page by page in the order of their activity, and each is checked again by the write that
    /// removes it: with its row as it is then, and with the activity that is only in memory. No write takes longer than
    /// its step. Expired sessions are left to the sweep.
    public func removeSessions(inactiveForMilliseconds: Int64, isDryRun: Bool) async throws -> Int {
        // The clock is read first, so that activity up to then is written.
        let now = clock.now()
        let cutoff = now.advanced(milliseconds: -inactiveForMilliseconds)
        try await flushActivity(.foreground)
        var removed = 0
        // After those that are removed already and wait for the sweep: they were last active in 1970.
        var position: (instant: Instant, ref: Int64)? = (Instant(milliseconds: 0), .max)
        while let start = position {
            let page = try await readers.pooled { connection in
                try connection.all(
                    """
                    SELECT last_active_at_ms, session_ref, expires_at_ms IS NULL OR expires_at_ms > ?4 FROM sessions
                    WHERE (last_active_at_ms, session_ref) > (?1, ?2) AND last_active_at_ms <= ?3
                    ORDER BY last_active_at_ms, session_ref LIMIT ?5
                    """, .instant(start.instant), .integer(start.ref), .instant(cutoff), .instant(now),
                    .integer(StorageLimits.sweepBatchSessions)
                ) { (instant: $0.instant(0), ref: $0.integer(1), isLive: $0.bool(2)) }
            }
            let live = page.filter(\.isLive).map(\.ref)
            removed += isDryRun ? live.count : try await removeSessions(live, inactiveSince: cutoff)
            position = page.last.map { ($0.instant, $0.ref) }
        }
        return removed
    }

    /// - Returns: how many of the sessions were inactive and are removed.
    private func removeSessions(_ refs: [Int64], inactiveSince cutoff: Instant) async throws -> Int {
        var removed = 0
        var rest = refs[...]
        while !rest.isEmpty {
            let part = rest
            let condemnation = ActivityLedger.Condemnation(in: activity)
            defer { condemnation.release() }
            let step = try await sessionTransaction(.foreground, .shrinking) { transaction in
                var step = (handled: 0, removed: 0)
                for ref in part {
                    if try transaction.removeInactive(ref, since: cutoff, condemnation) { step.removed += 1 }
                    step.handled += 1
                    if self.writer.isStepOver { break }
                }
                return step
            }
            if step.removed > 0 { signals.hasSpareSpace.store(true, ordering: .relaxed) }
            removed += step.removed
            rest = part.dropFirst(step.handled)
        }
        return removed
    }
}
