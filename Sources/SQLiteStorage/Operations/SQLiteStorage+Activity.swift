// What the cache and the background tasks did over time: merging minutes into hours, forgetting old hours.

import Domain

extension SQLiteStorage {
    /// Merges minutes past their retention into hours, and more if there are too many rows, in steps.
    func rollUpActivity() async throws {
        let now = clock.now()
        let before = now.advanced(milliseconds: -StorageLimits.activityMinutesMilliseconds)
            .rounded(downTo: MetricResolution.hour.periodMilliseconds)
        try await mergeActivity(of: .minute, before: before, atMost: .max)
        while true {
            let isMore = try await writer.perform(.background, .withNext, .shrinking) { connection in
                while try connection.mergeMaintenanceActivity(before: before) {
                    if self.writer.isStepOver { return true }
                }
                return false
            }
            guard isMore else { break }
        }
        let rows = try await readers.pooled(.upkeep) { connection in
            try connection.first("SELECT count(*) FROM cache_activity WHERE period_seconds > 0") { $0.int(0) } ?? 0
        }
        guard rows > StorageLimits.maxCacheActivityRows else { return }
        // A tenth less, so that the next minutes do not exceed it again at once.
        let excess = rows - StorageLimits.maxCacheActivityRows / 10 * 9
        let minute = now.rounded(downTo: MetricResolution.minute.periodMilliseconds)
        let left = excess - (try await mergeActivity(of: .minute, before: minute, atMost: excess))
        try await mergeActivity(of: .hour, before: now, atMost: left)
    }

    /// - Returns: how many rows were removed.
    @discardableResult
    private func mergeActivity(of period: MetricResolution, before: Instant, atMost limit: Int) async throws -> Int {
        var merged = 0
        while merged < limit {
            let left = min(limit - merged, StorageLimits.sweepBatchRows)
            let step = try await transaction(.background, .shrinking) { transaction in
                try self.writer.step(rows: left) {
                    try transaction.mergeActivity(of: period, before: before, atMost: $0)
                }
            }
            merged += step.rows
            if step.isExhausted { break }
        }
        return merged
    }

    /// Removes the hours that are older than the retention of roll-ups, in steps.
    func forgetOldActivity() async throws {
        let before = clock.now().advanced(milliseconds: -settings.current.milliseconds(.rollupRetention))
            .advanced(milliseconds: -MetricResolution.hour.periodMilliseconds)
        while true {
            let isMore = try await writer.perform(.background, .withNext, .shrinking) { connection in
                let cache = try self.writer.step(rows: StorageLimits.sweepBatchRows) {
                    try connection.forgetCacheActivity(upTo: before, limit: $0)
                }
                guard cache.isExhausted else { return true }
                let maintenance = try self.writer.step(rows: StorageLimits.sweepBatchRows) {
                    try connection.forgetMaintenanceActivity(upTo: before, limit: $0)
                }
                return !maintenance.isExhausted
            }
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
                let task = MaintenanceTask(rawValue: row.text(0))
                // A task of a later version may have left rows.
                guard Self.has(task) else { return true }
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
    /// Removes rows that began at an instant or earlier.
    /// - Returns: how many went.
    fileprivate func forgetCacheActivity(upTo last: Instant, limit: Int) throws(SQLiteError) -> Int {
        try removeEach(
            """
            SELECT start_ms, namespace_id FROM cache_activity
            WHERE period_seconds = 3600 AND start_ms <= ?1 ORDER BY start_ms LIMIT ?2
            """, .instant(last), .integer(limit),
            by: "DELETE FROM cache_activity WHERE period_seconds = 3600 AND start_ms = ?1 AND namespace_id = ?2"
        ) { [.integer($0.integer(0)), .integer($0.integer(1))] }
    }

    /// The same of what the background tasks did.
    fileprivate func forgetMaintenanceActivity(upTo last: Instant, limit: Int) throws(SQLiteError) -> Int {
        try removeEach(
            """
            SELECT start_ms, task FROM maintenance_activity
            WHERE period_seconds = 3600 AND start_ms <= ?1 ORDER BY start_ms LIMIT ?2
            """, .instant(last), .integer(limit),
            by: "DELETE FROM maintenance_activity WHERE period_seconds = 3600 AND start_ms = ?1 AND task = ?2"
        ) { [.integer($0.integer(0)), .text($0.text(1))] }
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

    /// Merges the minutes of one task, of the oldest hour that began before an instant, into that hour: up to 60 rows.
    /// - Returns: whether there was one.
    fileprivate func mergeMaintenanceActivity(before: Instant) throws(SQLiteError) -> Bool {
        let oldest = try first(
            """
            SELECT start_ms, task FROM maintenance_activity WHERE period_seconds = 60 AND start_ms < ?1
            ORDER BY start_ms LIMIT 1
            """, .instant(before)
        ) { (start: $0.instant(0), task: $0.text(1)) }
        guard let oldest else { return false }
        let hour = oldest.start.rounded(downTo: MetricResolution.hour.periodMilliseconds)
        let end = hour.advanced(milliseconds: MetricResolution.hour.periodMilliseconds)
        try run(
            """
            INSERT INTO maintenance_activity (period_seconds, start_ms, task, runs, failures, rows_removed, bytes_freed)
            SELECT 3600, ?1, task, sum(runs), sum(failures), sum(rows_removed), sum(bytes_freed)
            FROM maintenance_activity
            WHERE period_seconds = 60 AND start_ms >= ?1 AND start_ms < ?2 AND task = ?3 GROUP BY task
            ON CONFLICT DO UPDATE SET runs = runs + excluded.runs, failures = failures + excluded.failures,
                rows_removed = rows_removed + excluded.rows_removed, bytes_freed = bytes_freed + excluded.bytes_freed
            """, .instant(hour), .instant(end), .text(oldest.task))
        try run(
            """
            DELETE FROM maintenance_activity
            WHERE period_seconds = 60 AND start_ms >= ?1 AND start_ms < ?2 AND task = ?3
            """, .instant(hour), .instant(end), .text(oldest.task))
        return true
    }
}
