// Samples as rows: interrupted roll-ups, removed series, views.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

@Suite struct SampleRowTests {
    private func timing(
        _ name: String, _ seconds: Double, at instant: Instant, cache: Sample.CacheResult? = nil,
        variant: String? = nil, outcome: Sample.Outcome = .ok, session: String? = nil
    ) -> Sample {
        Sample(
            name: name, measurement: .timing(seconds: seconds, outcome: outcome, cache: cache, variant: variant),
            recordedAt: instant, sessionID: session.map { Name(stored: $0) })
    }

    private func query(
        _ since: Instant, _ until: Instant, kind: SampleKind = .timing, metric: SampleMetric = .duration,
        name: String? = nil, grouping: MetricQuery.Grouping? = nil, step: Int64? = nil
    ) -> MetricQuery {
        MetricQuery(
            kind: kind, metric: metric, range: MetricRange(since: since, until: until), name: name, grouping: grouping,
            stepMilliseconds: step)
    }

    private let hour: Int64 = 3_600_000

    /// The latest by its own time, whenever it arrived; of two with the same time, the one that arrived later.
    @Test func aLateSampleIsNotTheLastOfItsRollUp() async throws {
        try await withStorage { storage, clock async throws in
            let start = clock.now.rounded(downTo: 6 * hour)
            let arrivals: [(Int64, Double, Double)] = [
                (1000, 1, 1), (500, 2, 1), (1000, 3, 3), (999, 4, 3), (1001, 5, 5),
            ]
            for (milliseconds, value, last) in arrivals {
                _ = try await storage.record([timing("t", value, at: start.advanced(milliseconds: milliseconds))])
                try await storage.rollUpSamples()
                let kept = try await storage.writer.perform { connection in
                    try connection.all("SELECT last FROM sample_rollups ORDER BY period_seconds") { $0.real(0) }
                }
                #expect(kept == [last, last, last])
            }
            let latest = try await storage.writer.perform { connection in
                try connection.all("SELECT DISTINCT last_at_ms FROM sample_rollups") { $0.instant(0) }
            }
            #expect(latest == [start.advanced(milliseconds: 1001)])
        }
    }

    /// The roll-up stops after any of its steps, as in a crash, and another process continues.
    @Test func aRollUpThatIsCutOffGoesOnWhereItStood() async throws {
        let folder = TemporaryFolder()
        let clock = ManualClock()
        for round in 0..<3 {
            let storage = try makeStorage(in: folder, clock: clock)
            if round == 0 {
                for _ in 0..<3 {
                    _ = try await storage.record((0..<1000).map { timing("t", Double($0 % 7), at: clock.now) })
                }
            }
            _ = try await storage.writer.perform { connection in
                try SampleTransaction(connection, source: .app).rollUp(limit: 400)
            }
            // Rolled back half-way.
            let undone = await code {
                try await storage.writer.perform { connection in
                    _ = try SampleTransaction(connection, source: .app).rollUp(limit: 400)
                    throw Failure.overloaded("cut off")
                }
            }
            #expect(undone == .overloaded)
            let span = query(clock.now.advanced(milliseconds: -1), clock.now.advanced(milliseconds: 1))
            #expect(try await storage.measure(span).items.first?.total.count == 3000)
            if round == 2 { #expect(try await storage.rollUpSamples() == 1800) }
            await storage.close()
        }
        let storage = try makeStorage(in: folder, clock: clock)
        let sums = try await storage.writer.perform { connection in
            try connection.all("SELECT sum(count) FROM sample_rollup_buckets GROUP BY period_seconds") { $0.int(0) }
        }
        #expect(sums == [3000, 3000, 3000])
        // Ids of samples are never reused, even if all are removed.
        clock.advance(milliseconds: 8 * 24 * hour)
        _ = try await storage.perform(.sampleRetention, isDryRun: false)
        await storage.close()
        let reopened = try makeStorage(in: folder, clock: clock)
        _ = try await reopened.record([timing("t", 1, at: clock.now)])
        #expect(try await reopened.rollUpSamples() == 1)
        await reopened.close()
    }

    @Test func oldRollUpsAndTheirSeriesGo() async throws {
        try await withStorage { storage, clock async throws in
            _ = try await storage.record([timing("old", 1, at: clock.now)])
            try await storage.rollUpSamples()
            clock.advance(milliseconds: 91 * 24 * hour)
            _ = try await storage.record([timing("new", 1, at: clock.now)])
            let preview = try await storage.perform(.sampleRetention, isDryRun: true)
            // The sample and its three roll-ups.
            #expect(preview.removed == 4)
            #expect(try await storage.perform(.sampleRetention, isDryRun: false) == preview)
            let names = try await storage.writer.perform { connection in
                try connection.all("SELECT name FROM sample_series") { $0.text(0) }
            }
            #expect(names == ["new"])
        }
    }

    @Test(arguments: [false, true])
    func viewsAgreeWithTheAnswers(isRolledUp: Bool) async throws {
        try await withStorage { storage, clock async throws in
            let values = (1...2000).map { Double($0 * $0 % 9973) / 1000 + 0.001 }
            for start in stride(from: 0, to: 2000, by: 500) {
                _ = try await storage.record(
                    values[start..<start + 500].enumerated().map { number, value in
                        timing(
                            "t\(number % 2)", value, at: clock.now.advanced(milliseconds: -Int64(number)),
                            cache: number % 4 < 2 ? .hit : .miss)
                    })
            }
            if isRolledUp { try await storage.rollUpSamples() }
            let span = query(clock.now.advanced(milliseconds: -hour), clock.now.advanced(milliseconds: 1))
            let items = try await storage.measure(span).items
            let rows = try await storage.writer.perform { connection in
                try connection.all(
                    """
                    SELECT name, count, min_seconds, max_seconds, mean_seconds, p50_seconds, p95_seconds,
                        cache_hit_ratio
                    FROM operation_stats ORDER BY name
                    """
                ) { row in (row.text(0), row.int(1), (2..<8).map { row.real($0) }) }
            }
            #expect(rows.map(\.0) == ["t0", "t1"])
            for (row, item) in zip(rows, items) {
                let total = item.total
                #expect(row.1 == total.count)
                let expected = [
                    total.min, total.max, total.mean!, total.ordered.quantile(0.5)!, total.ordered.quantile(0.95)!,
                    total.cacheHitRatio!,
                ]
                for (value, expected) in zip(row.2, expected) { #expect(abs(value - expected) <= 0.01 * expected) }
            }
        }
    }
}
