// How often the intervals of two variants hold the true change, by simulation; the table of docs/design/samples.md.

import FoundationEssentials
import Glibc
import TestSupport
import Testing

@testable import Domain

struct VariantCoverageTests {
    /// Distributions of durations, with their percentiles.
    enum Shape {
        case logNormal, exponential, bimodal, undecided, rounded, heavyTailed, narrow

        func draw(_ random: inout RepeatableNumbers) -> Double {
            switch self {
            case .logNormal: exp(random.normal())
            case .exponential: -log(random.uniform())
            case .bimodal: (random.uniform() < 0.6 ? 1 : 10) * exp(0.1 * random.normal())
            case .undecided: (random.uniform() < 0.5 ? 1 : 10) * exp(0.1 * random.normal())
            case .rounded: ((exp(random.normal()) * 5).rounded() + 1) / 5
            // Pareto's with the exponent 1, which has no mean.
            case .heavyTailed: 1 / random.uniform()
            case .narrow: 1 + 0.01 * random.normal()
            }
        }

        /// The true median and 95th percentile; nil where both variants of a pair are of this shape anyway.
        var percentiles: (median: Double, p95: Double)? {
            switch self {
            case .logNormal: (1, exp(1.6448536))
            case .exponential: (-log(0.5), -log(0.05))
            // 5/6 of the smaller values, 7/8 of the larger ones.
            case .bimodal: (exp(0.1 * 0.9674216), 10 * exp(0.1 * 1.1503494))
            case .rounded: (1.2, 5.4)
            case .heavyTailed: (2, 20)
            case .narrow: (1, 1 + 0.01 * 1.6448536)
            case .undecided: nil
            }
        }

        func sample(_ count: Int, _ random: inout RepeatableNumbers) -> OrderedDistribution {
            OrderedDistribution((0..<count).map { _ in draw(&random) }.sorted().map { ($0, 1) })
        }
    }

    /// Of a thousand comparisons of equal variants each, at least 95 % hold that nothing changed; at the smallest
    /// numbers of samples that have an interval, equal and unequal.
    @Test(arguments: [Shape.logNormal, .exponential, .bimodal, .undecided, .rounded, .heavyTailed])
    func intervalsHoldWhatTheyPromise(shape: Shape) throws {
        for (old, new, hasTail) in [(7, 7, false), (6, 40, false), (40, 6, false), (72, 72, true)] {
            var random = RepeatableNumbers(seed: UInt64(old * 1000 + new))
            var (held, tailHeld) = (0, 0)
            for _ in 0..<1000 {
                let comparison = VariantComparison(
                    baseline: shape.sample(old, &random), candidate: shape.sample(new, &random))
                if try #require(comparison.median.interval).contains(0) { held += 1 }
                if hasTail, try #require(comparison.p95.interval).contains(0) { tailHeld += 1 }
            }
            #expect(held >= 950, "\(old) and \(new)")
            #expect(!hasTail || tailHeld >= 950, "\(old) and \(new)")
        }
    }

    /// The hardest: all uncertainty is one variant's, so that there is no room in combining the two.
    @Test func aCertainBaselineLeavesNoRoom() throws {
        var random = RepeatableNumbers(seed: 1)
        var held = 0
        for _ in 0..<1000 {
            let comparison = VariantComparison(
                baseline: Shape.narrow.sample(20, &random), candidate: Shape.logNormal.sample(20, &random))
            // Both medians are 1.
            if try #require(comparison.median.interval).contains(0) { held += 1 }
        }
        #expect(held >= 945)
        #expect(held <= 985)
    }

    /// Prints the table of docs/design/samples.md: ten pairs of shapes for each pair of sizes, 2,000 comparisons each.
    /// Takes minutes.
    @Test(.enabled(if: ProcessInfo.processInfo.environment["REPRISE_COVERAGE_TABLE"] != nil))
    func theTable() throws {
        let pairs: [(Shape, Shape)] =
            [Shape.logNormal, .exponential, .bimodal, .undecided, .rounded, .heavyTailed, .narrow].map { ($0, $0) }
            + [(.narrow, .logNormal), (.exponential, .heavyTailed), (.rounded, .bimodal)]
        for (old, new) in [(7, 7), (6, 200), (20, 20), (72, 72), (72, 1000), (200, 200), (5, 5), (5, 200)] {
            var lowest = (median: Double.infinity, p95: Double.infinity)
            for (number, pair) in pairs.enumerated() {
                var random = RepeatableNumbers(seed: UInt64((old * 10_000 + new) * 10 + number))
                let truth: (median: Double, p95: Double)
                if let before = pair.0.percentiles, let after = pair.1.percentiles {
                    truth = (100 * (after.median / before.median - 1), 100 * (after.p95 / before.p95 - 1))
                } else {
                    truth = (0, 0)
                }
                var (told, held, tailTold, tailHeld) = (0, 0, 0, 0)
                for _ in 0..<2000 {
                    let comparison = VariantComparison(
                        baseline: pair.0.sample(old, &random), candidate: pair.1.sample(new, &random))
                    if let interval = comparison.median.interval {
                        told += 1
                        held += interval.contains(truth.median) ? 1 : 0
                    }
                    if let interval = comparison.p95.interval {
                        tailTold += 1
                        tailHeld += interval.contains(truth.p95) ? 1 : 0
                    }
                }
                lowest.median = min(lowest.median, told > 0 ? Double(held) / Double(told) : .infinity)
                lowest.p95 = min(lowest.p95, tailTold > 0 ? Double(tailHeld) / Double(tailTold) : .infinity)
            }
            func text(_ share: Double) -> String {
                share.isFinite ? "\((share * 1000).rounded() / 10) %" : "none is given"
            }
            print("| \(old) and \(new) | \(text(lowest.median)) | \(text(lowest.p95)) |")
        }
    }
}
