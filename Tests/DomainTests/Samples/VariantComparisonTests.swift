// Verdicts on two variants of an operation.

import Testing

@testable import Domain

struct VariantComparisonTests {
    private func ordered(_ values: [Double]) -> OrderedDistribution {
        var distribution = Distribution()
        for value in values { distribution.add(value, at: Instant(milliseconds: 0)) }
        return distribution.ordered
    }

    private func normal(_ count: Int, mean: Double, seed: UInt64) -> [Double] {
        var random = SplitMix64(state: seed)
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
        let constant = ordered(Array(repeating: 1, count: 50))
        let comparison = VariantComparison(baseline: constant, candidate: constant)
        #expect(comparison.verdict == .noDifference)
        #expect(comparison.median.interval == 0...0)
    }

    @Test func fewSamplesGiveNoVerdict() {
        let four = ordered([1, 1, 1, 1])
        let comparison = VariantComparison(baseline: four, candidate: ordered([2, 2, 2, 2, 2, 2]))
        #expect(comparison.verdict == .tooFewSamples)
        #expect(comparison.median.percent == 100)
        #expect(comparison.median.interval == nil)
        #expect(VariantComparison(baseline: ordered([]), candidate: four).verdict == .tooFewSamples)
        #expect(VariantComparison(baseline: ordered([]), candidate: four).median.percent == nil)
    }

    @Test func aBaselineOfZeroHasNoPercentage() {
        let zero = ordered(Array(repeating: 0, count: 10))
        let comparison = VariantComparison(baseline: zero, candidate: ordered(normal(10, mean: 1, seed: 4)))
        #expect(comparison.median.percent == nil)
        #expect(comparison.verdict == .noDifference)
    }

    @Test func theSameSamplesGiveTheSameAnswer() {
        let (a, b) = (ordered(normal(30, mean: 1, seed: 5)), ordered(normal(30, mean: 1.05, seed: 6)))
        #expect(VariantComparison(baseline: a, candidate: b) == VariantComparison(baseline: a, candidate: b))
    }

    /// Of intervals that promise 95 %, about 95 % hold what is true: here that there is no difference.
    @Test func intervalsHoldWhatTheyPromise() {
        var held = 0
        for round in 0..<200 {
            let a = ordered(normal(60, mean: 1, seed: UInt64(1000 + round)))
            let b = ordered(normal(60, mean: 1, seed: UInt64(5000 + round)))
            if VariantComparison(baseline: a, candidate: b).median.interval!.contains(0) { held += 1 }
        }
        #expect(held >= 180)
        #expect(held < 200)
    }
}
