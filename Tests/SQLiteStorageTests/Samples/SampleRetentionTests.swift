// What retention may remove: only samples that have been rolled up, and exactly what a dry run reports.

import TestSupport
import Testing

@testable import Domain
@testable import SQLiteStorage

@Suite struct SampleRetentionTests {
    private let day: Int64 = 86_400_000

    private func timing(_ name: String, _ seconds: Double, at instant: Instant, labels: JSONText? = nil) -> Sample {
        Sample(
            name: name, measurement: .timing(seconds: seconds, outcome: .ok, cache: nil, variant: nil),
            recordedAt: instant, labels: labels)
    }

    private func total(_ storage: SQLiteStorage, _ clock: ManualClock) async throws -> (count: Int, sum: Double) {
        let range = MetricRange(
            since: clock.now.advanced(milliseconds: -60 * day), until: clock.now.advanced(milliseconds: 1))
        let found = try await storage.measure(MetricQuery(kind: .timing, metric: .duration, range: range))
        return (found.items.reduce(0) { $0 + $1.total.count }, found.items.reduce(0) { $0 + $1.total.sum })
    }

    private func count(_ storage: SQLiteStorage, of sql: StaticString) async throws -> Int {
        try await storage.writer.perform { try $0.first(sql) { $0.int(0) } ?? 0 }
    }

    // MARK: Samples that are not rolled up stay

    /// By their age, and because there are too many.
    @Test(arguments: [true, false])
    func whatArrivesBetweenRollUpAndRemovalStays(isOld: Bool) async throws {
        try await withStorage { storage, clock async throws in
            let then = isOld ? clock.now.advanced(milliseconds: -10 * day) : clock.now
            // More than one step checks, all of one instant, followed by some that are due.
            let early = (0..<20).map { timing("t", 1, at: then.advanced(milliseconds: -Int64($0 % 2))) }
            let late = (0..<StorageLimits.sweepBatchSamples + 100).map { timing("t", Double($0), at: then) }
            _ = try await storage.record(early)
            try await storage.rollUpSamples()
            let retention = try await storage.sampleRetention(maxSamples: isOld ? Limits.maxSamples : 0)
            _ = try await storage.record(late)
            let latest = try await storage.sampleRetention(maxSamples: isOld ? Limits.maxSamples : 0)
            for retention in [retention, latest] {
                let preview = try await storage.count(retention)
                #expect(preview.removed == (retention.rolledUpTo > 0 ? 20 : 0))
            }
            #expect(try await storage.remove(latest).removed == 20)
            #expect(try await storage.remove(retention) == Removal())
            #expect(try await count(storage, of: "SELECT count(*) FROM samples") == late.count)
            let all = Double(20 + (0..<late.count).reduce(0, +))
            #expect(try await total(storage, clock) == (late.count + 20, all))
            try await storage.rollUpSamples()
            let next = try await storage.sampleRetention(maxSamples: isOld ? Limits.maxSamples : 0)
            #expect(try await storage.remove(next).removed == late.count)
            #expect(try await count(storage, of: "SELECT count(*) FROM samples") == 0)
            #expect(try await total(storage, clock) == (late.count + 20, all))
        }
    }

    @Test func racingRecordersAndCleanupsLoseNothing() async throws {
        try await withStorage { storage, clock async throws in
            let isRecording = Shared(true)
            try await withThrowingTaskGroup(of: Void.self) { cleanups in
                for _ in 0..<2 {
                    cleanups.addTask {
                        while isRecording.value { _ = try await storage.perform(.sampleRetention, isDryRun: false) }
                    }
                }
                try await withThrowingTaskGroup(of: Void.self) { recorders in
                    for task in 0..<6 {
                        recorders.addTask {
                            for round in 0..<25 {
                                let instant = clock.now.advanced(milliseconds: -10 * day - Int64(round) * 61_000)
                                let samples = (0..<40).map { number in
                                    timing("t\(task)", Double(task * 1000 + round * 40 + number), at: instant)
                                }
                                let receipt = try await storage.record(samples)
                                #expect(receipt.accepted == 40)
                            }
                        }
                    }
                    try await recorders.waitForAll()
                }
                isRecording.set(false)
                try await cleanups.waitForAll()
            }
            let sum = Double((0..<6000).reduce(0, +))
            #expect(try await total(storage, clock) == (6000, sum))
            _ = try await storage.perform(.sampleRetention, isDryRun: false)
            #expect(try await count(storage, of: "SELECT count(*) FROM samples") == 0)
            #expect(try await total(storage, clock) == (6000, sum))
        }
    }

    /// The series of a process's virtual bytes has no raw samples, only roll-ups.
    @Test func aSeriesStaysWhileAnythingOfItIsLeft() async throws {
        try await withStorage { storage, clock async throws in
            let memory = Sample(
                name: "app", measurement: .memory(rssBytes: 1, vmsBytes: 2, percent: 3),
                recordedAt: clock.now.advanced(milliseconds: -100 * day))
            let retention = try await storage.sampleRetention()
            _ = try await storage.record([memory])
            try await storage.removeUnusedSeries(retention)
            #expect(try await count(storage, of: "SELECT count(*) FROM sample_series") == 1)
            try await storage.rollUpSamples()
            try await storage.removeUnusedSeries(retention)
            #expect(try await count(storage, of: "SELECT count(*) FROM sample_series") == 3)
            _ = try await storage.perform(.sampleRetention, isDryRun: false)
            #expect(try await count(storage, of: "SELECT count(*) FROM sample_series") == 0)
            #expect(try await count(storage, of: "SELECT count(*) FROM sample_rollups") == 0)
        }
    }

    // MARK: Dry runs

    /// A roll-up is removed when its whole span is older than the retention, not a millisecond and not a period
    /// earlier.
    @Test func rollUpsGoWhenTheirSpanIsOver() async throws {
        try await withStorage { storage, clock async throws in
            let start = clock.now.rounded(upTo: MetricResolution.sixHours.periodMilliseconds)
            clock.advance(milliseconds: start.milliseconds(since: clock.now))
            _ = try await storage.record([timing("t", 1, at: start)])
            clock.advance(milliseconds: 90 * day)
            var passed: Int64 = 0
            for (milliseconds, removed, bytes) in [
                (0, 1, 56), (59_999, 0, 0), (60_000, 1, 120), (3_599_999, 0, 0), (3_600_000, 1, 120),
                (21_599_999, 0, 0), (21_600_000, 1, 120),
            ] {
                clock.advance(milliseconds: Int64(milliseconds) - passed)
                passed = Int64(milliseconds)
                let preview = try await storage.perform(.sampleRetention, isDryRun: true)
                #expect(preview == Removal(removed: removed, freedBytes: bytes))
                #expect(try await storage.perform(.sampleRetention, isDryRun: false) == preview)
            }
        }
    }

    /// Samples at, just before and just after each boundary, some of which also exceed the maximum number.
    @Test(arguments: 1...4 as ClosedRange<UInt64>)
    func aDryRunSaysWhatARunRemoves(seed: UInt64) async throws {
        try await withStorage { storage, clock async throws in
            var random = RepeatableNumbers(seed: seed)
            let rolledBefore = clock.now.advanced(milliseconds: -90 * day)
            let borders =
                [clock.now, clock.now.advanced(milliseconds: -7 * day), rolledBefore]
                + MetricResolution.rollups.flatMap { resolution in
                    let period = resolution.periodMilliseconds
                    return [rolledBefore.rounded(downTo: period), rolledBefore.advanced(milliseconds: -period)]
                }
            let labels = [nil, JSONText(["model": "klein"]), JSONText(["größe": "groß"])]
            for _ in 0..<6 {
                let samples = (0..<200).map { _ in
                    let instant = borders.randomElement(using: &random)!
                        .advanced(milliseconds: Int64.random(in: -1...1, using: &random))
                    return timing(
                        "t\(Int.random(in: 0..<3, using: &random))", Double.random(in: 0...9, using: &random),
                        at: min(instant, clock.now), labels: labels.randomElement(using: &random)!)
                }
                _ = try await storage.record(samples)
            }
            try await storage.rollUpSamples()
            // The newest is old: removing it must not change how many are in excess.
            _ = try await storage.record([timing("t0", 1, at: rolledBefore)])
            try await storage.rollUpSamples()
            let retention = try await storage.sampleRetention(maxSamples: 500)
            let before = try await count(
                storage, of: "SELECT (SELECT count(*) FROM samples) + (SELECT count(*) FROM sample_rollups)")
            let preview = try await storage.count(retention)
            #expect(preview.removed > 0)
            #expect(try await storage.remove(retention) == preview)
            let after = try await count(
                storage, of: "SELECT (SELECT count(*) FROM samples) + (SELECT count(*) FROM sample_rollups)")
            #expect(before - after == preview.removed)
            #expect(try await storage.count(retention) == Removal())
            let whole = try await storage.perform(.sampleRetention, isDryRun: true)
            #expect(try await storage.perform(.sampleRetention, isDryRun: false) == whole)
        }
    }
}
