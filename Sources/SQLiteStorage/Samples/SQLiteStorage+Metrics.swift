// Metric queries: which rows answer them, and their totals.

import Domain
import Synchronization

extension SQLiteStorage {
    public func measure(_ queries: [MetricQuery]) async throws -> [Measurements] {
        let now = clock.now()
        let retention = settings.current.milliseconds(.sampleRetention)
        return try await readers.consistently(.aggregates) { connection in
            // One snapshot of the database for all parts, so that no sample is missed or counted twice.
            var counts = RawCounts(connection)
            return try queries.map { query in
                var measuring = try Measuring(
                    query, connection, rawSince: now.advanced(milliseconds: -retention), counts: &counts)
                try measuring.run()
                return measuring.measurements
            }
        }
    }
}

/// How many raw samples are in a range, up to the bound that matters; counted once per range.
private struct RawCounts {
    private let connection: Connection
    private var known: [(range: MetricRange, count: Int)] = []

    init(_ connection: Connection) { self.connection = connection }

    mutating func count(in range: MetricRange) throws -> Int {
        if let known = known.first(where: { $0.range == range }) { return known.count }
        let count = try connection.first(
            """
            SELECT count(*) FROM (
                SELECT 1 FROM samples WHERE recorded_at_ms >= ?1 AND recorded_at_ms < ?2 LIMIT ?3)
            """, .instant(range.since), .instant(range.until), .integer(Limits.maxRawSamplesPerQuery + 1)
        ) { $0.int(0) }!
        known.append((range, count))
        return count
    }
}

/// Answers one query inside one read transaction.
private struct Measuring {
    private let query: MetricQuery
    private let connection: Connection
    private let rawSince: Instant
    private let rolledUpTo: Int64
    private let steps: [Instant]
    private let coarsest: MetricResolution
    private var used = MetricResolution.raw
    /// The series whose roll-ups have the metric, and those whose raw samples have it.
    private var rolledSeries: [Int64: Series] = [:]
    private var rawSeries: [Int64: Series] = [:]
    private var items: [Measurements.Item] = []
    private var indexes: [Key: Int] = [:]
    /// The items of the series seen so far, if the query does not group by session.
    private var seriesIndexes: [Int64: Int] = [:]

    private struct Series {
        var name: String
        var variant: String
        var cache: String
        var unit: String?
    }

    private struct Key: Hashable {
        var name: ExactText
        var group: ExactText?
        var cache: String
    }

    init(_ query: MetricQuery, _ connection: Connection, rawSince: Instant, counts: inout RawCounts) throws {
        self.query = query
        self.connection = connection
        steps = query.steps
        rolledUpTo = try connection.rolledUpTo()
        self.rawSince = try Self.rawSince(query, connection, rawSince)
        coarsest = try Self.coarsest(query, rawSince: self.rawSince, counts: &counts)
        try readSeries()
    }

    /// The start of the time for which all samples are still there as raw samples.
    private static func rawSince(_ query: MetricQuery, _ connection: Connection, _ kept: Instant) throws -> Instant {
        // The service's own timings have no raw samples; roll-ups have no sessions.
        if query.source == .service { return .distantFuture }
        if query.grouping == .session { return query.range.since }
        // The retention may have been shorter once, or the samples too many.
        let removed = try connection.first("SELECT raw_since_ms FROM sample_progress WHERE progress_id = 1") {
            $0.instant(0)
        }!
        let kept = max(kept, removed)
        let oldest = try connection.first(
            "SELECT start_ms FROM sample_rollups WHERE period_seconds = 3600 ORDER BY start_ms LIMIT 1"
        ) { $0.instant(0) }
        // If nothing older is kept at all, they cover any range.
        return oldest.map { $0 < kept } ?? false ? kept : min(kept, query.range.since)
    }

    /// The finest resolution that covers the range and can be read in bounded time.
    private static func coarsest(
        _ query: MetricQuery, rawSince: Instant, counts: inout RawCounts
    ) throws -> MetricResolution {
        if query.source == .app, query.grouping == .session { return .raw }
        if query.source == .app {
            let isCovered = query.range.since >= rawSince
            if try isCovered && counts.count(in: query.range) <= Limits.maxRawSamplesPerQuery { return .raw }
        }
        let step = query.stepMilliseconds ?? MetricResolution.sixHours.periodMilliseconds
        guard step % MetricResolution.minute.periodMilliseconds == 0 else {
            throw Failure.invalid(
                "step_seconds",
                "must be a multiple of 60 for this range, because its samples are too many, or too old, to read."
            )
        }
        return MetricResolution.rollups.last {
            $0 <= query.range.rollupResolution && step % $0.periodMilliseconds == 0
        }!
    }

    private mutating func readSeries() throws {
        let rows = try connection.all(
            """
            SELECT series_id, name, variant, cache, unit FROM sample_series
            WHERE kind = ?1 AND metric = ?2 AND source = ?3 AND (?4 IS NULL OR name = ?4)
                AND (?5 IS NULL OR variant = ?5)
            """, .text(query.kind.rawValue), .text(query.metric.rawValue), .text(query.source.rawValue),
            .optional(query.name, Value.text), .optional(query.variant, Value.text)
        ) { row in
            (
                row.integer(0),
                Series(name: row.text(1), variant: row.text(2), cache: row.text(3), unit: row.optionalText(4))
            )
        }
        rolledSeries = Dictionary(uniqueKeysWithValues: rows)
        guard query.metric == .virtualBytes || query.metric == .percent else {
            rawSeries = rolledSeries
            return
        }
        // Raw memory samples are stored under the series of their resident bytes.
        try connection.each(
            """
            SELECT series_id, name FROM sample_series
            WHERE kind = 'memory' AND metric = 'rss_bytes' AND (?1 IS NULL OR name = ?1)
            """, .optional(query.name, Value.text)
        ) { row in
            rawSeries[row.integer(0)] = Series(name: row.text(1), variant: "", cache: "", unit: nil)
            return true
        }
    }

    mutating func run() throws {
        // The segments follow each other; steps are found by time.
        for segment in query.range.segments(coarsest: coarsest, rawSince: rawSince) {
            used = max(used, segment.resolution)
            if segment.resolution == .raw {
                try addRaw(segment.range, after: .min)
            } else {
                try addRollups(segment)
                try addRaw(segment.range, after: rolledUpTo)
            }
        }
        for index in items.indices {
            for (_, step) in items[index].steps.sorted(by: { $0.key < $1.key }) { items[index].total.merge(step) }
        }
    }

    var measurements: Measurements {
        Measurements(
            resolution: used,
            items: items.sorted { a, b in
                (ExactText(a.name), ExactText(a.group ?? ""), a.cache?.rawValue ?? "")
                    < (ExactText(b.name), ExactText(b.group ?? ""), b.cache?.rawValue ?? "")
            })
    }

    // MARK: Raw samples

    /// - Parameter mark: only samples after it.
    private mutating func addRaw(_ range: MetricRange, after mark: Int64) throws {
        if mark > .min {
            // The + keeps the planner to the few newest samples: https://sqlite.org/optoverview.html
            try connection.each(
                """
                SELECT series_id, recorded_at_ms, value, is_error, vms_bytes, percent, session_id FROM samples
                WHERE sample_id > ?1 AND +recorded_at_ms >= ?2 AND +recorded_at_ms < ?3
                """, .integer(mark), .instant(range.since), .instant(range.until)
            ) { add($0) }
        } else if rawSeries.count <= StorageLimits.maxSeriesReadSingly {
            for id in rawSeries.keys.sorted() {
                try connection.each(
                    """
                    SELECT series_id, recorded_at_ms, value, is_error, vms_bytes, percent, session_id FROM samples
                    WHERE series_id = ?1 AND recorded_at_ms >= ?2 AND recorded_at_ms < ?3
                    """, .integer(id), .instant(range.since), .instant(range.until)
                ) { add($0) }
            }
        } else {
            try connection.each(
                """
                SELECT series_id, recorded_at_ms, value, is_error, vms_bytes, percent, session_id FROM samples
                WHERE recorded_at_ms >= ?1 AND recorded_at_ms < ?2
                """, .instant(range.since), .instant(range.until)
            ) { add($0) }
        }
    }

    private mutating func add(_ row: borrowing Row) -> Bool {
        guard let series = rawSeries[row.integer(0)] else { return true }
        let recordedAt = row.instant(1)
        let value: Double
        switch query.metric {
        case .virtualBytes: value = row.real(4)
        case .percent: value = row.real(5)
        default: value = row.real(2)
        }
        let isError = row.bool(3)
        let sessionID = query.grouping == .session ? row.optionalText(6) : nil
        let known = query.grouping == .session ? index(series, sessionID) : index(row.integer(0), in: rawSeries)
        guard let index = known else { return true }
        let keepsValue = query.hasPercentiles
        change(index, at: recordedAt) { distribution in
            if keepsValue {
                distribution.add(value, at: recordedAt)
            } else {
                distribution.addFigures(count: 1, sum: value, min: value, max: value, last: value, at: recordedAt)
            }
            if isError { distribution.errorCount += 1 }
            distribution.count(1, cache: series.cache)
        }
        return true
    }

    // MARK: Roll-ups

    private mutating func addRollups(_ segment: MetricRange.Segment) throws {
        let period = Value.integer(segment.resolution.periodMilliseconds / 1000)
        let (since, until) = (Value.instant(segment.range.since), Value.instant(segment.range.until))
        try connection.each(
            """
            SELECT series_id, start_ms, count, error_count, sum, min, max, last, last_at_ms FROM sample_rollups
            WHERE period_seconds = ?1 AND start_ms >= ?2 AND start_ms < ?3
            """, period, since, until
        ) { row in
            guard let index = index(row.integer(0), in: rolledSeries) else { return true }
            let (count, errors, sum) = (row.int(2), row.int(3), row.real(4))
            let (least, greatest, last, lastAt) = (row.real(5), row.real(6), row.real(7), row.instant(8))
            let cache = rolledSeries[row.integer(0)]!.cache
            change(index, at: row.instant(1)) { distribution in
                distribution.addFigures(count: count, sum: sum, min: least, max: greatest, last: last, at: lastAt)
                distribution.errorCount += errors
                distribution.count(count, cache: cache)
            }
            return true
        }
        guard query.hasPercentiles else { return }
        // The rows of one series and start follow each other, in the order of buckets.
        var run: [Distribution.BucketCount] = []
        var (runSeries, runStart, runIndex) = (Int64.min, Instant(milliseconds: .min), Int?.none)
        try connection.each(
            """
            SELECT series_id, start_ms, bucket, count FROM sample_rollup_buckets
            WHERE period_seconds = ?1 AND start_ms >= ?2 AND start_ms < ?3
            """, period, since, until
        ) { row in
            let (seriesID, start) = (row.integer(0), row.instant(1))
            if seriesID != runSeries || start != runStart {
                if let runIndex { change(runIndex, at: runStart) { $0.add(run) } }
                run.removeAll(keepingCapacity: true)
                (runSeries, runStart, runIndex) = (seriesID, start, index(seriesID, in: rolledSeries))
            }
            if runIndex != nil { run.append(Distribution.BucketCount(bucket: row.int(2), count: row.int(3))) }
            return true
        }
        if let runIndex { change(runIndex, at: runStart) { $0.add(run) } }
    }

    // MARK: Adding up

    /// The item of a series, if the query does not group by session. A series has one item, so it is looked up by name
    /// only once.
    private mutating func index(_ seriesID: Int64, in known: [Int64: Series]) -> Int? {
        // Checked first: the series of resident bytes has the raw samples of all memory metrics, but not their
        // roll-ups.
        guard let series = known[seriesID] else { return nil }
        if let index = seriesIndexes[seriesID] { return index }
        guard let index = index(series, nil) else { return nil }
        seriesIndexes[seriesID] = index
        return index
    }

    private mutating func index(_ series: Series, _ sessionID: String?) -> Int? {
        let group: String? =
            switch query.grouping {
            case nil: nil
            case .variant: series.variant.isEmpty ? nil : series.variant
            case .cache: series.cache.isEmpty ? nil : series.cache
            case .session: sessionID
            }
        let key = Key(
            name: ExactText(series.name), group: group.map(ExactText.init),
            cache: query.tellsCacheApart ? series.cache : "")
        if let index = indexes[key] { return index }
        // Names and variants are bounded; sessions are not, and there can be many steps.
        let isBounded = query.grouping != .session && query.stepMilliseconds == nil
        if !isBounded, items.count >= Limits.maxMeasuredItems, series.name != Sample.otherName || group != nil {
            // What exceeds the bound is added to one item, not left out.
            return index(Series(name: Sample.otherName, variant: "", cache: "", unit: series.unit), nil)
        }
        indexes[key] = items.count
        items.append(
            Measurements.Item(
                name: series.name, group: group, cache: Sample.CacheResult(rawValue: key.cache), unit: series.unit,
                total: Distribution()))
        return items.count - 1
    }

    /// Changes the distribution of the step that contains an instant, or the total if there are no steps.
    private mutating func change(_ index: Int, at instant: Instant, _ change: (inout Distribution) -> Void) {
        guard let step = query.stepMilliseconds, let first = steps.first else {
            change(&items[index].total)
            return
        }
        // A roll-up that extends beyond an end of the range belongs to the first or last step.
        let place = Int(instant.milliseconds(since: first) / step)
        change(&items[index].steps[min(max(place, 0), steps.count - 1), default: Distribution()])
    }
}

extension Distribution {
    fileprivate mutating func count(_ count: Int, cache: String) {
        switch Sample.CacheResult(rawValue: cache) {
        case .hit: cacheHits += count
        case .miss: cacheMisses += count
        case nil: break
        }
    }
}
