// Recording samples and rolling them up, inside one transaction.

import Domain

/// The series of samples as one transaction sees and adds to them.
///
/// Ids are cached for this transaction only, because the series it adds disappear if it is rolled back.
final class SampleTransaction {
    let connection: Connection
    let source: SampleSource
    private var ids: [SeriesKey: Int64] = [:]
    private var knownNames: [SampleKind: Set<ExactText>] = [:]
    private var receipt = SampleReceipt(accepted: 0)

    init(_ connection: Connection, source: SampleSource) {
        self.connection = connection
        self.source = source
    }

    /// What identifies a series.
    struct SeriesKey: Hashable {
        var kind: SampleKind
        var name: ExactText
        var metric: SampleMetric
        var variant = ExactText("")
        var cache = ""
    }

    // MARK: Recording

    func record(_ samples: [Sample], firstID: Int64) throws -> SampleReceipt {
        for (index, sample) in samples.enumerated() {
            let series = try seriesID(of: sample)
            var (value, isError) = (0.0, false)
            var memory: (vms: Int64, percent: Double)?
            switch sample.measurement {
            case .timing(let seconds, let outcome, _, _): (value, isError) = (seconds, outcome == .error)
            case .memory(let rss, let vms, let percent): (value, memory) = (Double(rss), (vms, percent))
            case .gauge(let gauge, _): value = gauge
            }
            try connection.run(
                """
                INSERT INTO samples (sample_id, series_id, recorded_at_ms, value, is_error, vms_bytes, percent,
                    session_id, labels)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                """, .integer(firstID + Int64(index)), .integer(series), .instant(sample.recordedAt), .real(value),
                .integer(isError ? 1 : 0), .optional(memory) { .integer($0.vms) },
                .optional(memory) { .real($0.percent) }, .optional(sample.sessionID) { .text($0.rawValue) },
                .optional(sample.labels) { .textBytes($0.bytes) })
        }
        receipt.accepted = samples.count
        return receipt
    }

    /// The series of a sample, under its own name or, beyond the maximum number of names, under the shared one.
    private func seriesID(of sample: Sample) throws -> Int64 {
        var key = SeriesKey(
            kind: sample.kind, name: ExactText(sample.name), metric: SampleMetric.all(of: sample.kind)[0])
        var unit: String?
        switch sample.measurement {
        case .timing(_, _, let cache, let variant):
            key.cache = cache?.rawValue ?? ""
            key.variant = ExactText(variant ?? "")
        case .memory: break
        case .gauge(_, let sent): unit = sent
        }
        if let id = try existingID(key) { return id }
        let sent = key
        key.name = try admittedName(key)
        key.variant = try admittedVariant(key)
        if key != sent {
            receipt.foldedCount += 1
            if key.name != sent.name, receipt.foldedNames.count < Limits.maxReportedErrors,
                !receipt.foldedNames.contains(where: { ExactText($0) == sent.name })
            {
                receipt.foldedNames.append(sample.name)
            }
        }
        return try id(of: key, unit: unit, at: sample.recordedAt)
    }

    private func admittedName(_ key: SeriesKey) throws -> ExactText {
        var known =
            try knownNames[key.kind]
            ?? Set(
                try connection.all(
                    "SELECT DISTINCT name FROM sample_series WHERE kind = ?1 AND source = 'app'",
                    .text(key.kind.rawValue)
                ) { ExactText($0.text(0)) })
        if known.count < Limits.maxSampleNames { known.insert(key.name) }
        knownNames[key.kind] = known
        return known.contains(key.name) ? key.name : ExactText(Sample.otherName)
    }

    private func admittedVariant(_ key: SeriesKey) throws -> ExactText {
        guard !key.variant.text.isEmpty else { return key.variant }
        let known = try connection.all(
            """
            SELECT DISTINCT variant FROM sample_series WHERE kind = ?1 AND name = ?2 AND metric = ?3 AND variant <> ''
            """, .text(key.kind.rawValue), .text(key.name.text), .text(key.metric.rawValue)
        ) { ExactText($0.text(0)) }
        let isAdmitted = known.count < Limits.maxSampleVariants || known.contains(key.variant)
        return isAdmitted ? key.variant : ExactText(Sample.otherName)
    }

    private func existingID(_ key: SeriesKey) throws -> Int64? {
        if let id = ids[key] { return id }
        let id = try connection.first(
            """
            SELECT series_id FROM sample_series
            WHERE kind = ?1 AND name = ?2 AND metric = ?3 AND variant = ?4 AND cache = ?5 AND source = ?6
            """, .text(key.kind.rawValue), .text(key.name.text), .text(key.metric.rawValue), .text(key.variant.text),
            .text(key.cache), .text(source.rawValue)
        ) { $0.integer(0) }
        if let id { ids[key] = id }
        return id
    }

    /// The id of a series, which is added if it is missing.
    func id(of key: SeriesKey, unit: String?, at instant: Instant) throws -> Int64 {
        if let id = try existingID(key) { return id }
        let id = try connection.first(
            """
            INSERT INTO sample_series (kind, name, metric, variant, cache, source, unit, last_recorded_at_ms)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING series_id
            """, .text(key.kind.rawValue), .text(key.name.text), .text(key.metric.rawValue), .text(key.variant.text),
            .text(key.cache), .text(source.rawValue), .optional(unit, Value.text), .instant(instant)
        ) { $0.integer(0) }!
        ids[key] = id
        return id
    }

    // MARK: Rolling up

    /// A series in one roll-up.
    struct RollupKey: Hashable {
        var resolution: MetricResolution
        var start: Instant
        var seriesID: Int64
    }

    /// Adds the next samples to their roll-ups, and records how far it has come.
    /// - Returns: the number of samples, and the new mark.
    func rollUp(limit: Int) throws -> (count: Int, mark: Int64) {
        let mark = try connection.rolledUpTo()
        var gathered: [RollupKey: Distribution] = [:]
        var last = mark
        var count = 0
        let rows = try connection.all(
            """
            SELECT p.sample_id, p.series_id, p.recorded_at_ms, p.value, p.is_error, p.vms_bytes, p.percent, s.name
            FROM samples p JOIN sample_series s USING (series_id) WHERE p.sample_id > ?1 ORDER BY p.sample_id LIMIT ?2
            """, .integer(mark), .integer(limit)
        ) {
            (
                id: $0.integer(0), seriesID: $0.integer(1), recordedAt: $0.instant(2), value: $0.real(3),
                isError: $0.bool(4), vms: $0.optionalInteger(5), percent: $0.optionalReal(6), name: $0.text(7)
            )
        }
        for row in rows {
            var figures = [(row.seriesID, row.value)]
            if let vms = row.vms, let percent = row.percent {
                for (metric, value) in [(SampleMetric.virtualBytes, Double(vms)), (.percent, percent)] {
                    let key = SeriesKey(kind: .memory, name: ExactText(row.name), metric: metric)
                    figures.append((try id(of: key, unit: nil, at: row.recordedAt), value))
                }
            }
            for (seriesID, value) in figures {
                for resolution in MetricResolution.rollups {
                    let start = row.recordedAt.rounded(downTo: resolution.periodMilliseconds)
                    let key = RollupKey(resolution: resolution, start: start, seriesID: seriesID)
                    gathered[key, default: Distribution()].add(value, at: row.recordedAt)
                    if row.isError { gathered[key]!.errorCount += 1 }
                }
            }
            last = row.id
            count += 1
        }
        guard count > 0 else { return (0, mark) }
        for (key, distribution) in gathered { try add(distribution, to: key) }
        try connection.run("UPDATE sample_progress SET rolled_up_to = ?1 WHERE progress_id = 1", .integer(last))
        return (count, last)
    }

    /// Adds the service's own measurements of a route.
    func add(_ timing: ServiceTiming, at instant: Instant) throws {
        guard timing.count > 0 else { return }
        var distribution = Distribution()
        distribution.addFigures(
            count: timing.count, sum: timing.sumSeconds, min: timing.minSeconds, max: timing.maxSeconds,
            last: timing.sumSeconds / Double(timing.count), at: instant)
        distribution.errorCount = timing.errorCount
        distribution.add(timing.buckets)
        let key = SeriesKey(kind: .timing, name: ExactText(timing.name), metric: .duration)
        let seriesID = try id(of: key, unit: nil, at: instant)
        for resolution in MetricResolution.rollups {
            let start = instant.rounded(downTo: resolution.periodMilliseconds)
            try add(distribution, to: RollupKey(resolution: resolution, start: start, seriesID: seriesID))
        }
    }

    /// Adds a distribution to a roll-up.
    func add(_ distribution: Distribution, to key: RollupKey) throws {
        guard let last = distribution.last, let lastAt = distribution.lastRecordedAt else { return }
        let period = Value.integer(key.resolution.periodMilliseconds / 1000)
        try connection.run(
            """
            INSERT INTO sample_rollups
                (period_seconds, start_ms, series_id, count, error_count, sum, min, max, last, last_at_ms)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
            ON CONFLICT DO UPDATE SET count = count + excluded.count,
                error_count = error_count + excluded.error_count, sum = sum + excluded.sum,
                min = min(min, excluded.min), max = max(max, excluded.max),
                last = CASE WHEN excluded.last_at_ms >= last_at_ms THEN excluded.last ELSE last END,
                last_at_ms = max(last_at_ms, excluded.last_at_ms)
            """, period, .instant(key.start), .integer(key.seriesID), .integer(distribution.count),
            .integer(distribution.errorCount), .real(distribution.sum), .real(distribution.min),
            .real(distribution.max), .real(last), .instant(lastAt))
        for counted in distribution.asBuckets {
            try connection.run(
                """
                INSERT INTO sample_rollup_buckets (period_seconds, start_ms, series_id, bucket, count)
                VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET count = count + excluded.count
                """, period, .instant(key.start), .integer(key.seriesID), .integer(counted.bucket),
                .integer(counted.count))
            if key.resolution == .hour {
                try connection.run(
                    "INSERT INTO sample_buckets (bucket, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                    .integer(counted.bucket), .real(SketchBucket.value(of: counted.bucket)))
            }
        }
        if key.resolution == .hour {
            try connection.run(
                """
                UPDATE sample_series SET last_recorded_at_ms = ?2 WHERE series_id = ?1 AND last_recorded_at_ms < ?2
                """, .integer(key.seriesID), .instant(lastAt))
        }
    }
}

extension Connection {
    /// The last sample that is in the roll-ups.
    func rolledUpTo() throws(SQLiteError) -> Int64 {
        try first("SELECT rolled_up_to FROM sample_progress WHERE progress_id = 1") { $0.integer(0) } ?? 0
    }
}
