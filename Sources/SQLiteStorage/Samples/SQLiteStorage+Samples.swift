// Samples: recording them, and listing them as recorded.

import Domain
import Synchronization

extension SQLiteStorage: SampleStore {
    public func record(_ samples: [Sample]) async throws -> SampleReceipt {
        guard !samples.isEmpty else { return SampleReceipt(accepted: 0) }
        return try await writer.perform(bytes: samples.count * 256) { connection in
            let last = self.signals.nextSampleID.wrappingAdd(Int64(samples.count), ordering: .relaxed).oldValue
            return try SampleTransaction(connection, source: .app).record(samples, firstID: last)
        }
    }

    public func record(_ timings: [ServiceTiming], at instant: Instant) async throws {
        var rest = timings[...]
        while !rest.isEmpty {
            let part = rest
            // They were in memory until now; a power cut may lose the latest of them as well.
            let done = try await writer.perform(.background, .withNext) { connection in
                let transaction = SampleTransaction(connection, source: .service)
                for (index, timing) in part.enumerated() {
                    try transaction.add(timing, at: instant)
                    if self.writer.isStepOver { return index + 1 }
                }
                return part.count
            }
            rest = rest.dropFirst(done)
        }
    }

    public func samples(
        _ filter: SampleFilter, after: CollectionPosition?, limit: Int
    ) async throws -> (items: [Sample], next: CollectionPosition?) {
        let since = Value.integer(filter.since?.milliseconds ?? .min)
        let end = after ?? CollectionPosition(instant: filter.until ?? Instant(milliseconds: .max), number: .min)
        let kind = Value.optional(filter.kind) { .text($0.rawValue) }
        let name = Value.optional(filter.name, Value.text)
        let variant = Value.optional(filter.variant, Value.text)
        return try await readers.pooled { connection in
            var items: [Sample] = []
            var positions: [CollectionPosition] = []
            func add(_ row: borrowing Row) -> Bool {
                items.append(Sample(row))
                positions.append(CollectionPosition(instant: row.instant(1), number: row.integer(0)))
                return items.count <= limit
            }
            if let sessionID = filter.sessionID {
                try connection.each(
                    """
                    SELECT p.sample_id, p.recorded_at_ms, s.kind, s.name, p.value, p.is_error, s.cache, s.variant,
                        p.vms_bytes, p.percent, s.unit, p.session_id, p.labels
                    FROM samples p CROSS JOIN sample_series s USING (series_id)
                    WHERE p.session_id = ?8 AND p.recorded_at_ms >= ?1 AND (p.recorded_at_ms, p.sample_id) < (?2, ?3)
                        AND (?4 IS NULL OR s.kind = ?4) AND (?5 IS NULL OR s.name = ?5)
                        AND (?6 IS NULL OR s.variant = ?6)
                    ORDER BY p.recorded_at_ms DESC, p.sample_id DESC LIMIT ?7
                    """, since, .instant(end.instant), .integer(end.number), kind, name, variant, .integer(limit + 1),
                    .text(sessionID.rawValue), row: add)
            } else {
                try connection.each(
                    """
                    SELECT p.sample_id, p.recorded_at_ms, s.kind, s.name, p.value, p.is_error, s.cache, s.variant,
                        p.vms_bytes, p.percent, s.unit, p.session_id, p.labels
                    FROM samples p CROSS JOIN sample_series s USING (series_id)
                    WHERE p.recorded_at_ms >= ?1 AND (p.recorded_at_ms, p.sample_id) < (?2, ?3)
                        AND (?4 IS NULL OR s.kind = ?4) AND (?5 IS NULL OR s.name = ?5)
                        AND (?6 IS NULL OR s.variant = ?6)
                    ORDER BY p.recorded_at_ms DESC, p.sample_id DESC LIMIT ?7
                    """, since, .instant(end.instant), .integer(end.number), kind, name, variant, .integer(limit + 1),
                    row: add)
            }
            guard items.count > limit else { return (items, nil) }
            return (Array(items.prefix(limit)), positions[limit - 1])
        }
    }

    /// Rolls up the samples recorded since the last time, in steps. Each step writes its roll-ups and its progress in
    /// one transaction, so a crash neither loses a sample nor counts one twice.
    /// - Returns: samples rolled up.
    @discardableResult
    func rollUpSamples() async throws -> Int {
        var total = 0
        while true {
            // A step that is lost in a power cut is repeated, because its mark is lost with it. It needs some space,
            // but what it rolled up may be removed then, which is far more.
            let step = try await writer.perform(.background, .withNext, .shrinking) { try self.rollUpStep($0) }
            total += step.count
            signals.rolledUpTo.max(step.mark, ordering: .relaxed)
            if step.isDone { return total }
        }
    }

    /// Rolls up a part at a time until the writer's step is over.
    private func rollUpStep(_ connection: Connection) throws -> (count: Int, mark: Int64, isDone: Bool) {
        let transaction = SampleTransaction(connection, source: .app)
        var count = 0
        while true {
            let part = try transaction.rollUp(limit: StorageLimits.rollupReadSamples)
            count += part.count
            // Ids that were given to failed requests will not appear any more.
            let newest = signals.nextSampleID.load(ordering: .relaxed) - 1
            if part.count < StorageLimits.rollupReadSamples { return (count, newest, true) }
            if count >= StorageLimits.rollupBatchSamples || writer.isStepOver { return (count, part.mark, false) }
        }
    }
}

extension Sample {
    /// From the columns of ``SQLiteStorage/samples(_:after:limit:)``.
    fileprivate init(_ row: borrowing Row) {
        let value = row.real(4)
        let measurement: Measurement =
            switch SampleKind(rawValue: row.text(2))! {
            case .timing:
                .timing(
                    seconds: value, outcome: row.bool(5) ? .error : .ok, cache: CacheResult(rawValue: row.text(6)),
                    variant: row.text(7).isEmpty ? nil : row.text(7))
            case .memory:
                .memory(
                    rssBytes: Int64(value), vmsBytes: row.optionalInteger(8) ?? 0, percent: row.optionalReal(9) ?? 0)
            case .gauge: .gauge(value: value, unit: row.optionalText(10))
            }
        self.init(
            name: row.text(3), measurement: measurement, recordedAt: row.instant(1),
            sessionID: row.optionalText(11).map { Name(stored: $0) },
            labels: row.isNull(12) ? nil : JSONText(stored: row.blob(12)))
    }
}
