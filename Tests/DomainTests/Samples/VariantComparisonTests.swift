// Verdicts on two variants of an operation.

import TestSupport
import Testing

@testable import Domain

struct VariantComparisonTests {
    private func ordered(_ values: [Double]) -> OrderedDistribution {
        var distribution = Distribution()
        for value in values { distribution.add(value, at: Instant(milliseconds: 0)) }
        return distribution.ordered
    }

    private func normal(_ count: Int, mean: Double, seed: UInt64) -> [Double] {
        var random = RepeatableNumbers(seed: seed)
        return (0..<count).map { _ in mean + 0.1 * mean * random.normal() }
    }

    @Test func aClearDifferenceIsSeen() throws {
        let slow = ordered(normal(100, mean: 2, seed: 1))
        let quick = ordered(normal(100, mean: 1, seed: 2))
        let comparison = VariantComparison(baseline: slow, candidate: quick)
        #expect(comparison.verdict == .faster)
        #expect(abs(comparison.median.percent! + 50) < 3)
        let interval = try #require(comparison.median.interval)
        #expect(interval.contains(comparison.median.percent!))
        #expect(interval.upperBound - interval.lowerBound < 8)
        #expect(VariantComparison(baseline: quick, candidate: slow).verdict == .slower)
    }

    @Test func theSameIsNoDifference() {
        let values = ordered(normal(200, mean: 1, seed: 3))
        #expect(VariantComparison(baseline: values, candidate: values).verdict == .noDifference)
        let constant = ordered(Array(repeating: 1, count: 100))
        let comparison = VariantComparison(baseline: constant, candidate: constant)
        #expect(comparison.verdict == .noDifference)
        #expect(comparison.median == .init(percent: 0, interval: 0...0, missing: nil))
        #expect(comparison.p95 == comparison.median)
    }

    @Test func thereIsAnIntervalFromCertainNumbersOn() {
        func missing(_ old: Int, _ new: Int) -> [VariantComparison.MissingInterval?] {
            func counting(_ count: Int) -> OrderedDistribution { ordered((0..<count).map { Double($0 + 1) }) }
            let comparison = VariantComparison(baseline: counting(old), candidate: counting(new))
            #expect((comparison.verdict == .tooFewSamples) == (comparison.median.missing != nil))
            for change in [comparison.median, comparison.p95] {
                #expect((change.interval == nil) == (change.missing != nil))
            }
            return [comparison.median.missing, comparison.p95.missing]
        }
        let few = VariantComparison.MissingInterval.tooFewSamples
        for (old, new) in [(0, 0), (0, 7), (5, 5), (6, 6), (5, 200), (200, 5)] {
            #expect(missing(old, new) == [few, few])
        }
        for (old, new) in [(6, 7), (7, 6), (7, 7), (6, 200), (71, 71), (71, 5000), (5000, 71)] {
            #expect(missing(old, new) == [nil, few])
        }
        for (old, new) in [(72, 72), (72, 5000), (5000, 72)] { #expect(missing(old, new) == [nil, nil]) }
        let four = VariantComparison(baseline: ordered([1, 1, 1, 1]), candidate: ordered([2, 2, 2, 2, 2, 2]))
        #expect(four.median == .init(percent: 100, interval: nil, missing: .tooFewSamples))
        #expect(VariantComparison(baseline: ordered([]), candidate: ordered([1])).median.percent == nil)
    }

    /// Every pair of bounds with its probability, in order: what the search finds without listing them.
    @Test(arguments: [(7, 9), (6, 40), (40, 6), (23, 11)])
    func endsLeaveOutTheirPartOfAllPairs(_ old: Int, _ new: Int) throws {
        func rounded(_ values: [Double]) -> [Double] { values.map { ($0 * 10).rounded() / 10 }.sorted() }
        let a = rounded(normal(old, mean: 3, seed: 7))
        let b = rounded(normal(new, mean: 2, seed: 8))
        func binomial(_ n: Int) -> [Double] {
            var row: [Double] = [1]
            for _ in 0..<n {
                let wider: [Double] = [0] + row + [0]
                row = (0...row.count).map { (wider[$0] + wider[$0 + 1]) / 2 }
            }
            return row
        }
        let x: [Double] = [0] + a + [Double.infinity]
        let y: [Double] = [0] + b + [Double.infinity]
        var low: [(Double, Double)] = []
        var high: [(Double, Double)] = []
        for (i, p) in binomial(old).enumerated() {
            for (j, q) in binomial(new).enumerated() {
                low.append((y[j] / x[i + 1], p * q))
                high.append((i == 0 ? .infinity : y[j + 1] / x[i], p * q))
            }
        }
        func end(_ pairs: [(Double, Double)]) -> Double {
            var total = 0.0
            return pairs.first {
                total += $0.1
                return total > 0.025
            }!.0
        }
        let comparison = VariantComparison(baseline: ordered(a), candidate: ordered(b))
        let interval = try #require(comparison.median.interval)
        #expect(abs(interval.lowerBound - (end(low.sorted { $0.0 < $1.0 }) - 1) * 100) < 1e-9)
        #expect(abs(interval.upperBound - (end(high.sorted { $0.0 > $1.0 }) - 1) * 100) < 1e-9)
    }

    /// The verdict is that of the median, and each percentile has its own interval.
    @Test func percentilesAreJudgedEachByItself() throws {
        let quick: [Double] = (0..<400).map { number in 1 + Double(number % 90) / 1000 }
        let slow: [Double] = (0..<60).map { number in 2 + Double(number) / 1000 }
        let old = quick + slow
        // The same middle; the slowest take three times as long.
        let new = quick + slow.map { $0 * 3 }
        let tail = VariantComparison(baseline: ordered(old), candidate: ordered(new))
        #expect(tail.verdict == .noDifference)
        #expect(try #require(tail.median.interval).contains(0))
        #expect(try #require(tail.p95.interval).lowerBound > 150)
        // And the other way round.
        let middle = VariantComparison(baseline: ordered(old), candidate: ordered(quick.map { $0 * 1.5 } + slow))
        #expect(middle.verdict == .slower)
        #expect(try #require(middle.median.interval).contains(50))
        #expect(try #require(middle.p95.interval).contains(0))
    }

    /// Buckets are 1.5 % wide: values in adjacent ones may be equal.
    @Test func rolledUpValuesAreTakenWithTheirError() throws {
        func rolledUp(_ value: Double) -> OrderedDistribution {
            var distribution = Distribution()
            let instant = Instant(milliseconds: 0)
            distribution.addFigures(count: 10_000, sum: 10_000 * value, min: 0.1, max: 9, last: value, at: instant)
            distribution.add([.init(bucket: SketchBucket.index(of: value), count: 10_000)])
            return distribution.ordered
        }
        let bucket = SketchBucket.index(of: 1)
        let (one, next) = (SketchBucket.value(of: bucket), SketchBucket.value(of: bucket + 1))
        let touching = VariantComparison(baseline: rolledUp(one), candidate: rolledUp(next))
        #expect(touching.verdict == .noDifference)
        #expect(abs(try #require(touching.median.interval).lowerBound) < 1e-9)
        let apart = VariantComparison(baseline: rolledUp(one), candidate: rolledUp(SketchBucket.value(of: bucket + 2)))
        #expect(apart.verdict == .slower)
        let half = try #require(VariantComparison(baseline: rolledUp(2), candidate: rolledUp(1)).median.interval)
        #expect(half.contains(-50))
        #expect(half.upperBound - half.lowerBound < 4)
    }

    // MARK: A baseline of 0

    @Test func aBaselineOfZeroHasAVerdict() {
        let zero = ordered(Array(repeating: 0, count: 10))
        let slower = VariantComparison(baseline: zero, candidate: ordered(normal(10, mean: 1, seed: 4)))
        #expect(slower.median == .init(percent: nil, interval: nil, missing: .baselineIsZero))
        #expect(slower.verdict == .slower)
        let same = VariantComparison(baseline: zero, candidate: zero)
        #expect(same.median == .init(percent: nil, interval: nil, missing: .baselineIsZero))
        #expect(same.verdict == .noDifference)
        // Most of its samples are above 0, but that does not prove that its median is.
        let undecided = ordered([0, 0, 0, 0] + normal(6, mean: 1, seed: 4))
        #expect(VariantComparison(baseline: zero, candidate: undecided).verdict == .noDifference)
        let few = VariantComparison(baseline: ordered([0, 0]), candidate: ordered([1, 1]))
        #expect(few.median == .init(percent: nil, interval: nil, missing: .baselineIsZero))
        #expect(few.verdict == .tooFewSamples)
        // The baseline's median is above 0, but may be 0: no change has an upper bound.
        let open = VariantComparison(baseline: undecided, candidate: ordered(normal(10, mean: 1, seed: 5)))
        #expect(open.median.percent != nil)
        #expect(open.median.interval == nil)
        #expect(open.median.missing == .baselineIsZero)
        #expect(VariantComparison(baseline: ordered(normal(10, mean: 1, seed: 6)), candidate: zero).verdict == .faster)
    }
}
