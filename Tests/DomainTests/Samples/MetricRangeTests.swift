// Which resolution answers which part of a span.

import TestSupport
import Testing

@testable import Domain

struct MetricRangeTests {
    private func range(_ since: Int64, _ until: Int64) -> MetricRange {
        MetricRange(since: Instant(milliseconds: since), until: Instant(milliseconds: until))
    }

    private let hour: Int64 = 3_600_000
    private let minute: Int64 = 60_000

    @Test func wholeHoursAreAnsweredByHours() {
        #expect(
            range(0, 2 * hour).segments(coarsest: .hour, rawSince: Instant(milliseconds: 0)) == [
                .init(.hour, range(0, 2 * hour))
            ])
    }

    @Test func longRangesAreAnsweredBySixHours() {
        let segments = range(5 * hour, 19 * hour).segments(coarsest: .sixHours, rawSince: Instant(milliseconds: 0))
        #expect(
            segments == [
                .init(.hour, range(5 * hour, 6 * hour)), .init(.sixHours, range(6 * hour, 18 * hour)),
                .init(.hour, range(18 * hour, 19 * hour)),
            ])
        #expect(range(0, 24 * hour).rollupResolution == .minute)
        #expect(range(0, 72 * hour).rollupResolution == .hour)
        #expect(range(0, 72 * hour + 1).rollupResolution == .sixHours)
    }

    @Test func endsAreAnsweredMoreFinely() {
        let segments = range(hour - minute - 5, 3 * hour + minute + 7)
            .segments(coarsest: .hour, rawSince: Instant(milliseconds: 0))
        #expect(
            segments == [
                .init(.raw, range(hour - minute - 5, hour - minute)), .init(.minute, range(hour - minute, hour)),
                .init(.hour, range(hour, 3 * hour)), .init(.minute, range(3 * hour, 3 * hour + minute)),
                .init(.raw, range(3 * hour + minute, 3 * hour + minute + 7)),
            ])
    }

    @Test func withoutRawSamplesAPartOfAMinuteIsAllOfIt() {
        let segments = range(5, 2 * minute + 5).segments(coarsest: .minute, rawSince: .distantFuture)
        #expect(
            segments == [
                .init(.minute, range(0, minute)), .init(.minute, range(minute, 2 * minute)),
                .init(.minute, range(2 * minute, 3 * minute)),
            ])
    }

    @Test func shortRangesNeedNoRollUp() {
        #expect(
            range(minute + 1, minute + 9).segments(coarsest: .hour, rawSince: Instant(milliseconds: 0)) == [
                .init(.raw, range(minute + 1, minute + 9))
            ])
        // From their very first instant on.
        let raw = range(minute + 1, minute + 9)
        #expect(raw.segments(coarsest: .raw, rawSince: raw.since) == [.init(.raw, raw)])
        #expect(range(5, 5).segments(coarsest: .hour, rawSince: Instant(milliseconds: 0)) == [])
        #expect(range(9, 5).segments(coarsest: .raw, rawSince: Instant(milliseconds: 0)) == [])
    }

    /// Segments follow each other without a gap or an overlap, so nothing is counted twice.
    @Test func segmentsCoverTheRangeOnce() {
        var random = RepeatableNumbers(seed: 3)
        for _ in 0..<2000 {
            let since = Int64.random(in: -2 * hour..<100 * hour, using: &random)
            let until = since + Int64.random(in: 1..<60 * hour, using: &random)
            let rawSince = Instant(milliseconds: Int64.random(in: -hour..<160 * hour, using: &random))
            let coarsest = MetricResolution.allCases.randomElement(using: &random)!
            let segments = range(since, until).segments(coarsest: coarsest, rawSince: rawSince)
            #expect(segments.first!.range.since.milliseconds <= since)
            #expect(segments.first!.range.since.milliseconds > since - minute)
            #expect(segments.last!.range.until.milliseconds >= until)
            #expect(segments.last!.range.until.milliseconds < until + minute)
            for (one, next) in zip(segments, segments.dropFirst()) { #expect(one.range.until == next.range.since) }
            for segment in segments {
                #expect(segment.resolution <= max(coarsest, .minute))
                if segment.resolution == .raw { #expect(segment.range.since >= rawSince) }
                if segment.resolution != .raw {
                    let period = segment.resolution.periodMilliseconds
                    #expect(segment.range.since == segment.range.since.rounded(downTo: period))
                    #expect(segment.range.until == segment.range.until.rounded(downTo: period))
                }
            }
        }
    }
}
