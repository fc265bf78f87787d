// What the cache and the background tasks did over time: merging minutes into hours, forgetting old hours.

import Domain

extension SQLiteStorage {
    /// Merges the minutes that are no longer kept into hours, and further what is too much, in steps.
    func rollUpActivity() async throws {
        let now = clock.now()
        let before = now.advanced(milliseconds: -Limits.activityMinutesMilliseconds)
            .rounded(downTo: MetricResolution.hour.periodMilliseconds)
        try await mergeActivity(of: .minute, before: before, atMost: .max)
        while true {
            let merged = try await writer.perform(.background) { try $0.mergeMaintenanceActivity(before: before) }
            guard merged > 0 else { break }
        }
        let rows = try await readers.pooled(.upkeep) { connection in
            try connection.first("SELECT count(*) FROM cache_activity WHERE period_seconds > 0") { $0.int(0) } ?? 0
        }
        guard rows > Limits.maxCacheActivityRows else { return }
        // A tenth less, so that the next minutes do not bring it here again at once.
        let excess = rows - Limits.maxCacheActivityRows / 10 * 9
        let minute = now.rounded(downTo: MetricResolution.minute.periodMilliseconds)
        let left = excess - (try await mergeActivity(of: .minute, before: minute, atMost: excess))
        try await mergeActivity(of: .hour, before: now, atMost: left)
    }

    /// - Returns: how many rows went.
    @discardableResult
    private func mergeActivity(of period: MetricResolution, before: Instant, atMost limit: Int) async throws -> Int {
        var merged = 0
        while merged < limit {
            let step = try await transaction(.background) { try $0.mergeActivity(of: period, before: before) }
            guard step > 0 else { break }
            merged += step
        }
        return merged
    }

    /// Removes the hours that are older than the retention of roll-ups, in steps.
    func forgetOldActivity() async throws {
        let before = clock.now().advanced(milliseconds: -settings.current.milliseconds(.rollupRetention))
            .advanced(milliseconds: -MetricResolution.hour.periodMilliseconds)
        while true {
            let isMore = try await writer.perform(.background) { try $0.forgetActivity(upTo: before) }
            guard isMore else { return }
        }
    }

    public func maintenanceFigures(in range: MetricRange, runs limit: Int) async throws -> MaintenanceFigures {
        try await readers.consistently(.aggregates) { connection in
            var figures = MaintenanceFigures(tasks: [:], latest: [])
            try connection.each(
                """
                SELECT task, runs, failures, rows_removed, bytes_freed FROM maintenance_activity
                WHERE period_seconds = 60 AND start_ms >= ?1 AND start_ms < ?3
                UNION ALL
                SELECT task, runs, failures, rows_removed, bytes_freed FROM maintenance_activity
                WHERE period_seconds = 3600 AND start_ms >= ?2 AND start_ms < ?3
                """, .instant(range.since.rounded(downTo: MetricResolution.minute.periodMilliseconds)),
                .instant(range.since.rounded(downTo: MetricResolution.hour.periodMilliseconds)), .instant(range.until)
            ) { row in
                // A task of a later version may have left rows.
                guard let task = MaintenanceTask(rawValue: row.text(0)) else { return true }
                figures.tasks[task, default: .init()] += MaintenanceFigures.Work(
                    runs: row.int(1), failures: row.int(2), rowsRemoved: row.int(3), bytesFreed: row.int(4))
                return true
            }
            figures.latest = try connection.all(
                """
                SELECT * FROM maintenance_runs WHERE run_id < ?1 AND started_at_ms >= ?2 AND started_at_ms < ?3
                ORDER BY run_id DESC LIMIT ?4
                """, .integer(Int64.max), .instant(range.since), .instant(range.until),
                .integer(limit), row: MaintenanceRun.init)
            return figures
        }
    }
}

extension Connection {
    /// Removes a bounded number of rows that began at an instant or earlier.
    /// - Returns: whether more may be left.
    fileprivate func forgetActivity(upTo last: Instant) throws(SQLiteError) -> Bool {
        try run(
            """
            DELETE FROM cache_activity WHERE (period_seconds, start_ms, namespace_id) IN (
                SELECT period_seconds, start_ms, namespace_id FROM cache_activity
                WHERE period_seconds = 3600 AND start_ms <= ?1 ORDER BY start_ms LIMIT ?2)
            """, .instant(last), .integer(Limits.sweepBatchRows))
        let removed = changes
        try run(
            """
            DELETE FROM maintenance_activity WHERE (period_seconds, start_ms, task) IN (
                SELECT period_seconds, start_ms, task FROM maintenance_activity
                WHERE period_seconds = 3600 AND start_ms <= ?1 ORDER BY start_ms LIMIT ?2)
            """, .instant(last), .integer(Limits.sweepBatchRows))
        return max(removed, changes) == Limits.sweepBatchRows
    }

    /// Adds a run to what its task did in its minute.
    func count(_ run: MaintenanceRun) throws(SQLiteError) {
        try self.run(
            """
            INSERT INTO maintenance_activity (period_seconds, start_ms, task, runs, failures, rows_removed, bytes_freed)
            VALUES (60, ?1, ?2, 1, ?3, ?4, ?5)
            ON CONFLICT DO UPDATE SET runs = runs + 1, failures = failures + excluded.failures,
                rows_removed = rows_removed + excluded.rows_removed, bytes_freed = bytes_freed + excluded.bytes_freed
            """, .instant(run.startedAt.rounded(downTo: MetricResolution.minute.periodMilliseconds)),
            .text(run.task.rawValue), .integer(run.error == nil ? 0 : 1), .integer(run.rowsRemoved),
            .integer(run.bytesFreed))
    }

    /// Merges the minutes of the oldest hour that began before an instant into that hour.
    /// - Returns: how many rows went; at most one for each task and minute.
    fileprivate func mergeMaintenanceActivity(before: Instant) throws(SQLiteError) -> Int {
        let oldest = try first(
            """
            SELECT start_ms FROM maintenance_activity WHERE period_seconds = 60 AND start_ms < ?1
            ORDER BY start_ms LIMIT 1
            """, .instant(before)
        ) { $0.instant(0) }
        guard let hour = oldest?.rounded(downTo: MetricResolution.hour.periodMilliseconds) else { return 0 }
        let end = hour.advanced(milliseconds: MetricResolution.hour.periodMilliseconds)
        try run(
            """
            INSERT INTO maintenance_activity (period_seconds, start_ms, task, runs, failures, rows_removed, bytes_freed)
            SELECT 3600, ?1, task, sum(runs), sum(failures), sum(rows_removed), sum(bytes_freed)
            FROM maintenance_activity WHERE period_seconds = 60 AND start_ms >= ?1 AND start_ms < ?2 GROUP BY task
            ON CONFLICT DO UPDATE SET runs = runs + excluded.runs, failures = failures + excluded.failures,
                rows_removed = rows_removed + excluded.rows_removed, bytes_freed = bytes_freed + excluded.bytes_freed
            """, .instant(hour), .instant(end))
        try run(
            "DELETE FROM maintenance_activity WHERE period_seconds = 60 AND start_ms >= ?1 AND start_ms < ?2",
            .instant(hour), .instant(end))
        return changes
    }
}
