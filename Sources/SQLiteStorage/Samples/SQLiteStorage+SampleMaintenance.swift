// Forgetting old samples, roll-ups and series, in steps that let waiting writes go first.

import Domain
import Synchronization

extension SQLiteStorage {
    /// Removes raw samples and roll-ups that are past their retention, and series for which nothing was recorded in
    /// that time.
    ///
    /// What is due is decided once, after a roll-up. A sample that arrives later has not been rolled up yet and stays
    /// until the next run, however old it is: without its row, only its roll-up would keep it in the answers.
    func removeOldSamples(isDryRun: Bool) async throws -> Removal {
        // Roll-ups take space. What has not been rolled up stays.
        if !space.isShort { try await rollUpSamples() }
        let retention = try await sampleRetention()
        guard !isDryRun else { return try await count(retention) }
        let removal = try await remove(retention)
        try await removeUnusedSeries(retention)
        return removal
    }

    /// What is due now.
    func sampleRetention(maxSamples: Int = Limits.maxSamples) async throws -> SampleRetention {
        let now = clock.now()
        let rawBefore = now.advanced(milliseconds: -settings.current.milliseconds(.sampleRetention))
        let rolledBefore = now.advanced(milliseconds: -settings.current.milliseconds(.rollupRetention))
        return try await readers.consistently(.upkeep) { connection in
            let rolledUpTo = try connection.rolledUpTo()
            let newest = try connection.first("SELECT max(sample_id) FROM samples") { $0.optionalInteger(0) } ?? nil
            return SampleRetention(
                rawBefore: rawBefore, rolledUpTo: rolledUpTo,
                excessUpTo: min((newest ?? 0) - Int64(maxSamples), rolledUpTo), rolledBefore: rolledBefore)
        }
    }

    func count(_ retention: SampleRetention) async throws -> Removal {
        var total = Removal()
        for rule in SampleRetention.Rule.all {
            var position: SampleRetention.Position? = .start
            while let start = position {
                let rows = try await readers.pooled(.upkeep) {
                    try $0.rows(rule, of: retention, after: start, limit: StorageLimits.sweepBatchSamples)
                }
                for row in rows where row.isDue { total += Removal(removed: 1, freedBytes: row.bytes) }
                position = rows.count < StorageLimits.sweepBatchSamples ? nil : rows.last?.position
            }
        }
        return total
    }

    func remove(_ retention: SampleRetention) async throws -> Removal {
        var total = Removal()
        for rule in SampleRetention.Rule.all {
            var position: SampleRetention.Position? = .start
            while let start = position {
                // A step that is lost in a power cut is repeated.
                let step = try await writer.perform(.background, .withNext, .shrinking) {
                    try self.remove(rule, of: retention, after: start, on: $0)
                }
                total += step.removal
                if step.removal.removed > 0 { signals.hasSpareSpace.store(true, ordering: .relaxed) }
                position = step.end
            }
        }
        return total
    }

    /// - Returns: what was removed, and where the next step begins; nil if none is left.
    private func remove(
        _ rule: SampleRetention.Rule, of retention: SampleRetention, after start: SampleRetention.Position,
        on connection: Connection
    ) throws -> (removal: Removal, end: SampleRetention.Position?) {
        var removal = Removal()
        var end = start
        let step = try writer.step(rows: StorageLimits.sweepBatchSamples) { limit in
            let rows = try connection.rows(rule, of: retention, after: end, limit: limit)
            let due = rows.filter(\.isDue)
            try connection.remove(due, rule)
            for row in due { removal += Removal(removed: 1, freedBytes: row.bytes) }
            end = rows.last?.position ?? end
            return rows.count
        }
        return (removal, step.isExhausted ? nil : end)
    }

    /// Removes series without samples and roll-ups.
    func removeUnusedSeries(_ retention: SampleRetention) async throws {
        var position: Int64? = 0
        while let start = position {
            position = try await writer.perform(.background, .withNext, .shrinking) { connection in
                // Samples that arrived late may have been rolled up in the meantime; the next run removes those
                // roll-ups.
                guard try !connection.hasRollups(endingBy: retention.rolledBefore) else { return nil }
                var last = start
                let step = try self.writer.step(rows: StorageLimits.sweepBatchRows) { limit in
                    let series = try connection.series(after: last, limit: limit, of: retention)
                    for series in series where series.isUnused {
                        try connection.run("DELETE FROM sample_series WHERE series_id = ?1", .integer(series.id))
                    }
                    last = series.last?.id ?? last
                    return series.count
                }
                return step.isExhausted ? nil : last
            }
        }
    }
}

/// Which samples and roll-ups are due for removal, in a run and in a dry run alike.
struct SampleRetention: Sendable {
    /// Raw samples that were recorded before this are removed …
    var rawBefore: Instant
    /// … if they have been rolled up, which all are up to this one. The mark only rises, so this stays true while
    /// others are rolled up.
    var rolledUpTo: Int64
    /// Samples up to this one are removed too, because there are more than ``Limits/maxSamples``. Never above
    /// ``rolledUpTo``.
    var excessUpTo: Int64
    /// Roll-ups whose span had ended by then are removed.
    var rolledBefore: Instant

    enum Rule: Sendable {
        case old, excess
        case rollups(MetricResolution)

        static let all = [Self.old, .excess] + MetricResolution.rollups.map { .rollups($0) }
    }

    /// A position in the order in which rows are checked.
    struct Position: Sendable {
        /// In milliseconds: when the sample was recorded or the roll-up begins.
        var instant: Int64
        /// Of the sample, or of the roll-up's series.
        var id: Int64

        static let start = Position(instant: .min, id: .min)
    }

    struct Row {
        var position: Position
        /// The bytes of the row's numbers and texts, without the overhead of the file.
        var bytes: Int
        var isDue = true
    }

    /// Roll-ups of a resolution that began by then had ended by ``rolledBefore``.
    func latestStart(_ resolution: MetricResolution) -> Instant {
        rolledBefore.advanced(milliseconds: -resolution.periodMilliseconds)
    }
}

extension Connection {
    /// The next rows to check. They include rows that must stay, so `limit` bounds the time this takes.
    fileprivate func rows(
        _ rule: SampleRetention.Rule, of retention: SampleRetention, after start: SampleRetention.Position, limit: Int
    ) throws(SQLiteError) -> [SampleRetention.Row] {
        func row(_ row: borrowing Row) -> SampleRetention.Row {
            SampleRetention.Row(position: .init(instant: row.integer(0), id: row.integer(1)), bytes: row.int(2))
        }
        var rows: [SampleRetention.Row]
        switch rule {
        case .old:
            // In two parts, because SQLite compares a pair with the columns of an index only, not with the rowid: it
            // would scan all samples of one instant for each page of them.
            rows = try all(
                """
                SELECT recorded_at_ms, sample_id,
                    56 + length(coalesce(session_id, '')) + length(CAST(coalesce(labels, '') AS BLOB))
                FROM samples WHERE recorded_at_ms = ?1 AND sample_id > ?2 AND recorded_at_ms < ?3
                ORDER BY sample_id LIMIT ?4
                """, .integer(start.instant), .integer(start.id), .instant(retention.rawBefore), .integer(limit),
                row: row)
            if rows.count < limit {
                rows += try all(
                    """
                    SELECT recorded_at_ms, sample_id,
                        56 + length(coalesce(session_id, '')) + length(CAST(coalesce(labels, '') AS BLOB))
                    FROM samples WHERE recorded_at_ms > ?1 AND recorded_at_ms < ?2
                    ORDER BY recorded_at_ms, sample_id LIMIT ?3
                    """, .integer(start.instant), .instant(retention.rawBefore), .integer(limit - rows.count),
                    row: row)
            }
            for index in rows.indices { rows[index].isDue = rows[index].position.id <= retention.rolledUpTo }
        case .excess:
            rows = try all(
                """
                SELECT recorded_at_ms, sample_id,
                    56 + length(coalesce(session_id, '')) + length(CAST(coalesce(labels, '') AS BLOB))
                FROM samples WHERE sample_id > ?1 AND sample_id <= ?2 ORDER BY sample_id LIMIT ?3
                """, .integer(start.id), .integer(retention.excessUpTo), .integer(limit), row: row)
            // The others are counted by the rule for old samples.
            for index in rows.indices {
                rows[index].isDue = rows[index].position.instant >= retention.rawBefore.milliseconds
            }
        case .rollups(let resolution):
            rows = try all(
                """
                SELECT r.start_ms, r.series_id, 80 + 40 * (
                    SELECT count(*) FROM sample_rollup_buckets b
                    WHERE b.period_seconds = r.period_seconds AND b.start_ms = r.start_ms AND b.series_id = r.series_id)
                FROM sample_rollups r
                WHERE r.period_seconds = ?1 AND (r.start_ms, r.series_id) > (?2, ?3) AND r.start_ms <= ?4
                ORDER BY r.start_ms, r.series_id LIMIT ?5
                """, .integer(resolution.periodMilliseconds / 1000), .integer(start.instant), .integer(start.id),
                .instant(retention.latestStart(resolution)), .integer(limit), row: row)
        }
        return rows
    }

    fileprivate func remove(_ rows: [SampleRetention.Row], _ rule: SampleRetention.Rule) throws(SQLiteError) {
        switch rule {
        case .old, .excess:
            for row in rows { try run("DELETE FROM samples WHERE sample_id = ?1", .integer(row.position.id)) }
            if let latest = rows.map(\.position.instant).max() {
                try run(
                    "UPDATE sample_progress SET raw_since_ms = max(raw_since_ms, ?1) WHERE progress_id = 1",
                    .integer(latest + 1))
            }
        case .rollups(let resolution):
            let period = Value.integer(resolution.periodMilliseconds / 1000)
            for row in rows {
                let (start, seriesID) = (Value.integer(row.position.instant), Value.integer(row.position.id))
                try run(
                    "DELETE FROM sample_rollup_buckets WHERE period_seconds = ?1 AND start_ms = ?2 AND series_id = ?3",
                    period, start, seriesID)
                try run(
                    "DELETE FROM sample_rollups WHERE period_seconds = ?1 AND start_ms = ?2 AND series_id = ?3",
                    period, start, seriesID)
            }
        }
    }

    /// Whether there are roll-ups whose span had ended by an instant.
    fileprivate func hasRollups(endingBy instant: Instant) throws(SQLiteError) -> Bool {
        for resolution in MetricResolution.rollups {
            let old = try first(
                "SELECT 1 FROM sample_rollups WHERE period_seconds = ?1 AND start_ms <= ?2 LIMIT 1",
                .integer(resolution.periodMilliseconds / 1000),
                .instant(instant.advanced(milliseconds: -resolution.periodMilliseconds))
            ) { _ in true }
            if old != nil { return true }
        }
        return false
    }

    /// The next series, and whether nothing is left of each, provided that no roll-up is due: a series' roll-ups do not
    /// begin after its latest sample.
    fileprivate func series(
        after id: Int64, limit: Int, of retention: SampleRetention
    ) throws(SQLiteError) -> [(id: Int64, isUnused: Bool)] {
        try all(
            """
            SELECT s.series_id, s.last_recorded_at_ms < ?2
                AND NOT EXISTS (SELECT 1 FROM samples p WHERE p.series_id = s.series_id)
            FROM sample_series s WHERE s.series_id > ?1 ORDER BY s.series_id LIMIT ?3
            """, .integer(id), .instant(retention.latestStart(.sixHours)), .integer(limit)
        ) { (id: $0.integer(0), isUnused: $0.bool(1)) }
    }
}
