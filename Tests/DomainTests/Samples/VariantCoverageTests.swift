// How often the intervals of two variants hold the true change, by simulation; the table of docs/design/samples.md.

import Glibc
import Testing

@testable import Domain

struct VariantCoverageTests {
    /// Distributions of durations, with their percentiles.
    enum Shape {
        case logNormal, exponential, bimodal, undecided, rounded, heavyTailed, narrow

        func draw(_ random: inout SplitMix64) -> Double {
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

        func sample(_ count: Int, _ random: inout SplitMix64) -> OrderedDistribution {
            OrderedDistribution((0..<count).map { _ in draw(&random) }.sorted().map { ($0, 1) })
        }
    }

    /// Of a thousand comparisons of equal variants each, at least 95 % hold that nothing changed; at the smallest
    /// numbers of samples that have an interval, equal and unequal.
    @Test(arguments: [Shape.logNormal, .exponential, .bimodal, .undecided, .rounded, .heavyTailed])
    func intervalsHoldWhatTheyPromise(shape: Shape) throws {
        for (old, new, hasTail) in [(7, 7, false), (6, 40, false), (40, 6, false), (72, 72, true)] {
            var random = SplitMix64(state: UInt64(old * 1000 + new))
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
        var random = SplitMix64(state: 1)
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
}
