// Forgetting old samples and roll-ups.

import Domain
import Synchronization

// Bytes are told as the numbers and texts of a row take them, without the file's own overhead.

extension SQLiteStorage {
    /// Removes raw samples and roll-ups beyond their retention, and series nothing was recorded for in that time. Raw
    /// samples stay until they are rolled up.
    func removeOldSamples(isDryRun: Bool) async throws -> Removal {
        try await rollUpSamples()
        let now = clock.now()
        let rawBefore = now.advanced(milliseconds: -settings.current.milliseconds(.sampleRetention))
        let rolledBefore = now.advanced(milliseconds: -settings.current.milliseconds(.rollupRetention))
        if isDryRun {
            return try await readers.pooled(.upkeep) {
                try $0.countOldSamples(rawBefore: rawBefore, rolledBefore: rolledBefore)
            }
        }
        var total = Removal()
        while true {
            let step = try await writer.perform(.background) { connection in
                try connection.removeOldSamples(rawBefore: rawBefore, limit: Limits.sweepBatchSamples)
                    + connection.removeOldRollups(before: rolledBefore, limit: Limits.sweepBatchSamples)
            }
            total += step
            if step.removed == 0 { break }
            signals.hasSpareSpace.store(true, ordering: .relaxed)
        }
        try await writer.perform(.background) { connection in
            try connection.run(
                """
                DELETE FROM sample_series WHERE last_recorded_at_ms < ?1
                    AND NOT EXISTS (SELECT 1 FROM samples p WHERE p.series_id = sample_series.series_id)
                """,
                // By then the longest roll-ups that hold its last sample are gone.
                .instant(rolledBefore.advanced(milliseconds: -MetricResolution.sixHours.periodMilliseconds)))
        }
        return total
    }
}

extension Removal {
    fileprivate static func + (a: Removal, b: Removal) -> Removal {
        var sum = a
        sum += b
        return sum
    }
}

/// What is to be removed.
private struct RemovedSample {
    var id: Int64
    var recordedAt: Instant
    var bytes: Int

    /// From the columns `sample_id, recorded_at_ms, bytes`.
    init(_ row: borrowing Row) {
        id = row.integer(0)
        recordedAt = row.instant(1)
        bytes = row.int(2)
    }
}

extension Connection {
    fileprivate func removeOldSamples(rawBefore: Instant, limit: Int) throws(SQLiteError) -> Removal {
        let old = try all(
            """
            SELECT sample_id, recorded_at_ms, 56 + length(coalesce(session_id, '')) + length(coalesce(labels, ''))
            FROM samples WHERE recorded_at_ms < ?1 ORDER BY recorded_at_ms LIMIT ?2
            """, .instant(rawBefore), .integer(limit), row: RemovedSample.init)
        let excess = try all(
            """
            SELECT sample_id, recorded_at_ms, 56 + length(coalesce(session_id, '')) + length(coalesce(labels, ''))
            FROM samples WHERE sample_id <= (SELECT max(sample_id) FROM samples) - ?1 AND +recorded_at_ms >= ?2
            ORDER BY sample_id LIMIT ?3
            """, .integer(Limits.maxSamples), .instant(rawBefore), .integer(limit - old.count),
            row: RemovedSample.init)
        for sample in old + excess { try run("DELETE FROM samples WHERE sample_id = ?1", .integer(sample.id)) }
        if let latest = (old + excess).map(\.recordedAt).max() {
            try run(
                "UPDATE sample_progress SET raw_since_ms = max(raw_since_ms, ?1) WHERE progress_id = 1",
                .instant(latest.advanced(milliseconds: 1)))
        }
        return Removal(
            removed: old.count + excess.count, freedBytes: (old + excess).reduce(0) { $0 + $1.bytes })
    }

    fileprivate func removeOldRollups(before: Instant, limit: Int) throws(SQLiteError) -> Removal {
        var removal = Removal()
        for resolution in MetricResolution.rollups {
            let period = Value.integer(resolution.periodMilliseconds / 1000)
            let keys = try all(
                """
                SELECT start_ms, series_id FROM sample_rollups WHERE period_seconds = ?1 AND start_ms <= ?2
                ORDER BY start_ms, series_id LIMIT ?3
                """, period, .instant(before.advanced(milliseconds: -resolution.periodMilliseconds)), .integer(limit)
            ) { (start: $0.instant(0), seriesID: $0.integer(1)) }
            for key in keys {
                try run(
                    """
                    DELETE FROM sample_rollup_buckets WHERE period_seconds = ?1 AND start_ms = ?2 AND series_id = ?3
                    """, period, .instant(key.start), .integer(key.seriesID))
                removal += Removal(removed: 0, freedBytes: changes * 40)
                try run(
                    "DELETE FROM sample_rollups WHERE period_seconds = ?1 AND start_ms = ?2 AND series_id = ?3",
                    period, .instant(key.start), .integer(key.seriesID))
                removal += Removal(removed: 1, freedBytes: 80)
            }
        }
        return removal
    }

    /// What removing would remove.
    fileprivate func countOldSamples(rawBefore: Instant, rolledBefore: Instant) throws(SQLiteError) -> Removal {
        func removal(_ row: borrowing Row) -> Removal { Removal(removed: row.int(0), freedBytes: row.int(1)) }
        var total = try first(
            """
            SELECT count(*), coalesce(sum(56 + length(coalesce(session_id, '')) + length(coalesce(labels, ''))), 0)
            FROM samples WHERE recorded_at_ms < ?1
            """, .instant(rawBefore), row: removal)!
        total += try first(
            """
            SELECT count(*), coalesce(sum(56 + length(coalesce(session_id, '')) + length(coalesce(labels, ''))), 0)
            FROM samples WHERE sample_id <= (SELECT max(sample_id) FROM samples) - ?1 AND +recorded_at_ms >= ?2
            """, .integer(Limits.maxSamples), .instant(rawBefore), row: removal)!
        for resolution in MetricResolution.rollups {
            let period = Value.integer(resolution.periodMilliseconds / 1000)
            total += try first(
                "SELECT count(*), 80 * count(*) FROM sample_rollups WHERE period_seconds = ?1 AND start_ms <= ?2",
                period, .instant(rolledBefore.advanced(milliseconds: -resolution.periodMilliseconds)), row: removal)!
            total += try first(
                "SELECT 0, 40 * count(*) FROM sample_rollup_buckets WHERE period_seconds = ?1 AND start_ms < ?2",
                period, .instant(rolledBefore), row: removal)!
        }
        return total
    }
}
