// Cache activity over time: one row per namespace and minute, later one per hour.

import Domain

// How activity is kept
//
// An event is added to the row of its minute. When the row is a day old, it is added to the row of its hour and
// removed, in one transaction, so each event is in exactly one row and a span is the sum of the rows that begin in it.
// The rows of a namespace that no longer exists are then added to namespace 0. If there are still too many rows, the
// oldest minutes are merged before they are a day old, and after that the oldest hours of all namespaces into one row
// each.

extension CacheTransaction {
    /// Adds to a namespace's activity in the minute that contains an instant.
    func record(_ activity: CacheActivity, namespaceID: Int64, at instant: Instant) throws {
        func misses(_ reason: String) -> Value {
            .integer(MissReason(rawValue: reason).flatMap { activity.misses[$0] } ?? 0)
        }
        try connection.run(
            """
            INSERT INTO cache_activity (period_seconds, start_ms, namespace_id, hits, misses_absent, misses_expired,
                misses_evicted, misses_deleted, misses_cleared, expirations, evictions)
            VALUES (60, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
            ON CONFLICT DO UPDATE SET hits = hits + excluded.hits,
                misses_absent = misses_absent + excluded.misses_absent,
                misses_expired = misses_expired + excluded.misses_expired,
                misses_evicted = misses_evicted + excluded.misses_evicted,
                misses_deleted = misses_deleted + excluded.misses_deleted,
                misses_cleared = misses_cleared + excluded.misses_cleared,
                expirations = expirations + excluded.expirations, evictions = evictions + excluded.evictions
            """, .instant(instant.rounded(downTo: MetricResolution.minute.periodMilliseconds)), .integer(namespaceID),
            .integer(activity.hits), misses("absent"), misses("expired"), misses("evicted"), misses("deleted"),
            misses("cleared"), .integer(activity.expirations), .integer(activity.evictions))
    }

    /// Merges a bounded number of the oldest rows that began before an instant into rows of their hour.
    /// - Parameters:
    ///   - period: of the rows to merge: minutes, or hours, which are then no longer kept per namespace.
    /// - Returns: how many rows were removed.
    func mergeActivity(of period: MetricResolution, before: Instant, atMost limit: Int) throws -> Int {
        let seconds = Value.integer(period.periodMilliseconds / 1000)
        let oldest = try connection.all(
            """
            SELECT start_ms, namespace_id FROM cache_activity
            WHERE period_seconds = ?1 AND start_ms < ?2 AND namespace_id > 0 ORDER BY start_ms, namespace_id LIMIT ?3
            """, seconds, .instant(before), .integer(limit)
        ) { (start: $0.instant(0), namespaceID: $0.integer(1)) }
        guard let last = oldest.last else { return 0 }
        try connection.run(
            """
            INSERT INTO cache_activity (period_seconds, start_ms, namespace_id, hits, misses_absent, misses_expired,
                misses_evicted, misses_deleted, misses_cleared, expirations, evictions)
            SELECT 3600, a.start_ms / 3600000 * 3600000,
                CASE WHEN ?1 = 60 AND EXISTS (SELECT 1 FROM cache_namespaces n WHERE n.namespace_id = a.namespace_id)
                    THEN a.namespace_id ELSE 0 END AS heir,
                sum(a.hits), sum(a.misses_absent), sum(a.misses_expired), sum(a.misses_evicted),
                sum(a.misses_deleted), sum(a.misses_cleared), sum(a.expirations), sum(a.evictions)
            FROM cache_activity a
            WHERE a.period_seconds = ?1 AND (a.start_ms, a.namespace_id) <= (?2, ?3) AND a.namespace_id > 0
            GROUP BY a.start_ms / 3600000, heir
            ON CONFLICT DO UPDATE SET hits = hits + excluded.hits,
                misses_absent = misses_absent + excluded.misses_absent,
                misses_expired = misses_expired + excluded.misses_expired,
                misses_evicted = misses_evicted + excluded.misses_evicted,
                misses_deleted = misses_deleted + excluded.misses_deleted,
                misses_cleared = misses_cleared + excluded.misses_cleared,
                expirations = expirations + excluded.expirations, evictions = evictions + excluded.evictions
            """, seconds, .instant(last.start), .integer(last.namespaceID))
        try connection.run(
            """
            DELETE FROM cache_activity
            WHERE period_seconds = ?1 AND (start_ms, namespace_id) <= (?2, ?3) AND namespace_id > 0
            """, seconds, .instant(last.start), .integer(last.namespaceID))
        return oldest.count
    }
}

extension CacheActivity {
    /// From all columns of `cache_activity`.
    init(_ row: borrowing Row) {
        let misses: [MissReason: Int] = [
            .absent: row.int("misses_absent"), .expired: row.int("misses_expired"),
            .evicted: row.int("misses_evicted"), .deleted: row.int("misses_deleted"),
            .cleared: row.int("misses_cleared"),
        ]
        self.init(
            hits: row.int("hits"), misses: misses.filter { $0.value > 0 }, expirations: row.int("expirations"),
            evictions: row.int("evictions"))
    }
}
