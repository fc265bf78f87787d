// Percentiles: exact on measured values, within the promised error once they are in buckets, however these are merged.

import TestSupport
import Testing

@testable import Domain

#if canImport(Glibc)
import Glibc
#endif

/// Shapes of data, each with its own trap for a sketch.
enum Shape: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case constant, uniform, logNormal, bimodal, heavyTail, negative, zeros

    var testDescription: String { rawValue }

    func values(_ count: Int) -> [Double] {
        var random = RepeatableNumbers(seed: 42)
        return (0..<count).map { _ in
            switch self {
            case .constant: return 0.25
            case .uniform: return random.uniform() * 10
            case .logNormal: return exp(random.normal() - 1)
            case .bimodal: return random.uniform() < 0.7 ? 0.01 + random.uniform() * 0.001 : 2 + random.uniform() * 0.2
            // Pareto with a shape of 1.1: hardly a mean.
            case .heavyTail: return 0.01 * pow(random.uniform(), -1 / 1.1)
            case .negative: return -exp(random.normal())
            case .zeros: return random.uniform() < 0.4 ? 0 : random.uniform()
            }
        }
    }
}

/// By definition, from the sorted values.
private func exact(_ values: [Double], _ fraction: Double) -> Double {
    let sorted = values.sorted()
    let position = fraction * Double(sorted.count - 1)
    let (low, high) = (sorted[Int(position)], sorted[min(Int(position) + 1, sorted.count - 1)])
    return low + (high - low) * (position - position.rounded(.down))
}

struct DistributionTests {
    private let fractions = [0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1]

    private func measured(_ values: some Sequence<Double>) -> Distribution {
        var distribution = Distribution()
        for value in values { distribution.add(value, at: Instant(milliseconds: 0)) }
        return distribution
    }

    /// As it comes back from a roll-up.
    private func rolledUp(_ values: some Sequence<Double>) -> Distribution {
        let measured = measured(values)
        var distribution = Distribution()
        guard measured.count > 0 else { return distribution }
        distribution.addFigures(
            count: measured.count, sum: measured.sum, min: measured.min, max: measured.max, last: measured.last!,
            at: measured.lastRecordedAt!)
        distribution.add(measured.asBuckets)
        return distribution
    }

    @Test(arguments: Shape.allCases, [1, 2, 3, 10, 101, 5000])
    func measuredValuesHaveExactPercentiles(shape: Shape, count: Int) {
        let values = shape.values(count)
        let ordered = measured(values).ordered
        for fraction in fractions {
            let expected = exact(values, fraction)
            #expect(abs(ordered.quantile(fraction)! - expected) <= 1e-12 * max(abs(expected), 1))
        }
    }

    @Test(arguments: Shape.allCases, [1, 2, 10, 5000])
    func rolledUpPercentilesAreWithinOnePercent(shape: Shape, count: Int) {
        let values = shape.values(count)
        let ordered = rolledUp(values).ordered
        for fraction in fractions {
            let expected = exact(values, fraction)
            #expect(abs(ordered.quantile(fraction)! - expected) <= 0.01 * abs(expected) + 1e-9, "\(fraction)")
        }
    }

    @Test(arguments: Shape.allCases)
    func mergingInAnyOrderGivesTheSame(shape: Shape) {
        let values = shape.values(2000)
        let parts = stride(from: 0, to: 2000, by: 100).map { rolledUp(values[$0..<$0 + 100]) }
        let whole = rolledUp(values).ordered
        for round in 0..<5 {
            var order = Array(parts.indices)
            var random = RepeatableNumbers(seed: UInt64(round))
            order.shuffle(using: &random)
            var merged = Distribution()
            for index in order { merged.merge(parts[index]) }
            #expect(merged.count == 2000)
            for fraction in fractions { #expect(merged.ordered.quantile(fraction) == whole.quantile(fraction)) }
        }
    }

    @Test func measuredAndRolledUpValuesMerge() {
        let values = Shape.logNormal.values(1000)
        var merged = rolledUp(values[..<700])
        merged.merge(measured(values[700...]))
        #expect(!merged.isExact)
        #expect(merged.count == 1000)
        #expect(abs(merged.sum - values.reduce(0, +)) < 1e-9)
        #expect((merged.min, merged.max) == (values.min()!, values.max()!))
        for fraction in fractions {
            let expected = exact(values, fraction)
            #expect(abs(merged.ordered.quantile(fraction)! - expected) <= 0.01 * expected)
        }
    }

    @Test func anEmptyDistributionHasNoFigures() {
        let empty = Distribution()
        #expect(empty.mean == nil)
        #expect(empty.cacheHitRatio == nil)
        #expect(empty.ordered.quantile(0.5) == nil)
        var merged = measured([1])
        merged.merge(empty)
        #expect(merged.count == 1)
    }

    @Test func theLatestValueIsTheLast() {
        var distribution = Distribution()
        distribution.add(1, at: Instant(milliseconds: 5))
        distribution.add(2, at: Instant(milliseconds: 4))
        #expect(distribution.last == 1)
        distribution.add(3, at: Instant(milliseconds: 5))
        #expect(distribution.last == 3)
    }
}

struct SketchBucketTests {
    @Test func aBucketsValueIsNearAllOfItsValues() {
        var random = RepeatableNumbers(seed: 7)
        for _ in 0..<20_000 {
            let magnitude =
                exp(random.uniform() * (log(SketchBucket.largest) - log(SketchBucket.smallest)))
                * SketchBucket.smallest
            for value in [magnitude, -magnitude] {
                let approximation = SketchBucket.value(of: SketchBucket.index(of: value))
                #expect(abs(approximation - value) <= SketchBucket.relativeAccuracy * magnitude * (1 + 1e-9))
            }
        }
    }

    @Test func bucketsAreInTheOrderOfTheirValues() {
        let values = [-1e30, -1e18, -5, -1e-9, -1e-10, 0, 1e-12, 1e-9, 1e-3, 1, 1.02, 60, 1e18, 1e30]
        let buckets = values.map { SketchBucket.index(of: $0) }
        #expect(buckets == buckets.sorted())
        #expect(buckets[4...6].allSatisfy { $0 == 0 })
        #expect(buckets[0] == buckets[1])
        let named = Set(buckets).sorted().map { SketchBucket.value(of: $0) }
        #expect(named == named.sorted())
    }

    /// The middle of a bucket is not a value that was measured.
    @Test(arguments: [0.1, 1.0, 3.7, 1234.5])
    func noPercentileIsOutsideTheMeasuredValues(value: Double) {
        let bucket = SketchBucket.index(of: value)
        #expect(SketchBucket.value(of: bucket) != value)
        var distribution = Distribution()
        distribution.addFigures(
            count: 3, sum: 3 * value, min: value, max: value, last: value, at: Instant(milliseconds: 0))
        distribution.add([Distribution.BucketCount(bucket: bucket, count: 3)])
        for share in [0.0, 0.5, 0.99, 1.0] { #expect(distribution.ordered.quantile(share) == value) }
    }
}
