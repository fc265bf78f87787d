// Whether one variant of an operation is faster than another, and how sure that is.

/// Compares two distributions of one operation's durations.
///
/// The change of a percentile has a 95 % confidence interval, which combines those of the two percentiles by melding
/// (Fay, Proschan, Brittain, "Combining One-Sample Confidence Procedures for Inference in the Two-Sample Case",
/// Biometrics 71(1), 2015, https://doi.org/10.1111/biom.12231). The number K of n samples below the true percentile p
/// is distributed as Bin(n, p), whatever the distribution of the durations. So the percentile is at least the K-th
/// smallest sample and at most the one after it. With an independent K for each variant, the change is at least that
/// from the baseline's upper bound to the candidate's lower bound, and at most that from the lower to the upper bound.
/// The interval reaches from the 2.5th percentile of the former to the 97.5th of the latter. They are computed exactly,
/// without random numbers, and from rolled-up distributions too, whose values are taken with their error.
///
/// There is no interval if a bound is beyond the smallest or the largest sample more often than an end may be wrong: 20
/// samples do not bound the 95th percentile. The median takes 7 samples of each variant, or 6 and 7; the 95th
/// percentile takes 72 of each. docs/design/samples.md gives the coverage.
public struct VariantComparison: Sendable, Equatable {
    public enum Verdict: String, Sendable, CaseIterable {
        case faster, slower
        case noDifference = "no_difference"
        case tooFewSamples = "too_few_samples"
    }

    /// Why a change has no interval.
    public enum MissingInterval: String, Sendable, CaseIterable {
        case tooFewSamples = "too_few_samples"
        /// The baseline's percentile is 0, or so many of its samples are that it may be: a percentage change has no
        /// upper bound.
        case baselineIsZero = "baseline_is_zero"
    }

    /// A change as a percentage of the baseline, negative for faster.
    public struct Change: Sendable, Equatable {
        /// nil if the baseline is 0 or a variant has no samples.
        public var percent: Double?
        public var interval: ClosedRange<Double>?
        /// nil if there is an interval.
        public var missing: MissingInterval?
    }

    public var median: Change
    public var p95: Change
    /// Whether the interval of the median excludes 0, and on which side. A candidate whose median is clearly above 0 is
    /// slower than a baseline of 0.
    public var verdict: Verdict

    /// How often each end of an interval may be wrong.
    static let tail = 0.025

    public init(baseline: OrderedDistribution, candidate: OrderedDistribution) {
        let ratio = RatioBounds(0.5, of: candidate, to: baseline)
        median = Change(0.5, baseline, candidate, ratio)
        p95 = Change(0.95, baseline, candidate, RatioBounds(0.95, of: candidate, to: baseline))
        verdict =
            switch ratio {
            case nil: .tooFewSamples
            case let ratio? where ratio.high < 1: .faster
            case let ratio? where ratio.low > 1: .slower
            default: .noDifference
            }
    }
}

extension VariantComparison.Change {
    fileprivate init(
        _ fraction: Double, _ baseline: OrderedDistribution, _ candidate: OrderedDistribution, _ ratio: RatioBounds?
    ) {
        let (old, new) = (baseline.quantile(fraction), candidate.quantile(fraction))
        if let old, let new, old > 0 { percent = (new / old - 1) * 100 }
        if old == 0 {
            missing = .baselineIsZero
        } else if let ratio {
            if ratio.high.isFinite {
                interval = (ratio.low - 1) * 100...(ratio.high - 1) * 100
            } else {
                missing = .baselineIsZero
            }
        } else {
            missing = .tooFewSamples
        }
    }
}

/// The bounds of a percentile's ratio, in at least 95 % of all cases.
private struct RatioBounds {
    var low: Double
    /// Infinite if the denominator may be 0.
    var high: Double

    /// - Returns: nil if there are too few samples.
    init?(_ fraction: Double, of numerator: OrderedDistribution, to denominator: OrderedDistribution) {
        let above = PercentileBounds(fraction, of: numerator)
        let below = PercentileBounds(fraction, of: denominator)
        guard let low = above.lowestRatio(to: below), let inverse = below.lowestRatio(to: above),
            let value = numerator.quantile(fraction), let base = denominator.quantile(fraction)
        else { return nil }
        // The reported percentile is a value between two samples, which may be just outside the bounds if samples are
        // rounded.
        let told = PercentileBounds.ratio(value, base)
        self.low = min(low, told)
        high = max(1 / inverse, told)
    }
}

/// The bounds of a percentile, estimated from its samples.
private struct PercentileBounds {
    typealias Weighted = (value: Double, probability: Double)

    /// Its lower and upper bounds, each in ascending order. They are drawn together: as the K-th smallest of n samples
    /// and the next one, where K is Bin(n, p). Durations are not below 0.
    private var lower: [Weighted] = []
    private var upper: [Weighted] = []
    /// How often it is below all samples, and above all.
    private var belowAll = 0.0
    private var aboveAll = 0.0
    private let relativeError: Double

    init(_ fraction: Double, of distribution: OrderedDistribution) {
        relativeError = distribution.relativeError
        let count = distribution.count
        let (first, probabilities) = Self.binomial(count, fraction)
        // The K-th smallest has the rank K − 1.
        let ranks = max(first - 1, 0)...max(min(first + probabilities.count - 1, count - 1), 0)
        let values = count == 0 ? [] : distribution.values(ranks: ranks)
        for (offset, probability) in probabilities.enumerated() {
            let k = first + offset
            if k == 0 { belowAll = probability }
            if k == count { aboveAll = probability }
            Self.add(probability, of: k == 0 ? 0 : values[k - 1 - ranks.lowerBound], to: &lower)
            Self.add(probability, of: k == count ? .infinity : values[k - ranks.lowerBound], to: &upper)
        }
    }

    private static func add(_ probability: Double, of value: Double, to list: inout [Weighted]) {
        if list.last?.value == value {
            list[list.count - 1].probability += probability
        } else {
            list.append((value, probability))
        }
    }

    /// The probabilities of Bin(n, p) around its mode, as far as they matter, each computed from the previous one.
    private static func binomial(_ count: Int, _ fraction: Double) -> (first: Int, probabilities: [Double]) {
        let negligible = 1e-12
        let odds = fraction / (1 - fraction)
        let mode = min(Int(Double(count + 1) * fraction), count)
        var down: [Double] = []
        var (weight, k) = (1.0, mode)
        while k > 0 {
            weight *= Double(k) / (Double(count - k + 1) * odds)
            guard weight > negligible else { break }
            down.append(weight)
            k -= 1
        }
        var all = Array(down.reversed()) + [1]
        (weight, k) = (1, mode)
        while k < count {
            weight *= Double(count - k) * odds / Double(k + 1)
            guard weight > negligible else { break }
            all.append(weight)
            k += 1
        }
        let sum = all.reduce(0, +)
        return (mode - down.count, all.map { $0 / sum })
    }

    /// The lower bound of the ratio of this to another percentile, except in ``VariantComparison/tail`` of all cases.
    /// - Returns: nil if there are too few samples for that.
    func lowestRatio(to other: PercentileBounds) -> Double? {
        guard 1 - (1 - belowAll) * (1 - other.aboveAll) <= VariantComparison.tail else { return nil }
        // A binary search in the order of positive numbers, which is that of their bits, down to the nearest existing
        // ratio.
        var (low, high) = (0.0, Double.infinity)
        while low < high {
            let middle = Double(bitPattern: (low.bitPattern + high.bitPattern) / 2)
            let part = ratios(to: other, upTo: middle)
            if part.probability > VariantComparison.tail { high = part.largest } else { low = part.next }
        }
        return low * (1 - other.relativeError) / (1 + relativeError)
    }

    /// The ratios of lower to upper bounds that are not above a limit: how often they occur, the largest of them, and
    /// the smallest of the others.
    private func ratios(
        to other: PercentileBounds, upTo limit: Double
    ) -> (probability: Double, largest: Double, next: Double) {
        var (total, largest, next) = (0.0, 0.0, Double.infinity)
        // The denominators that are large enough: for each larger numerator, fewer.
        var place = 0
        var enough = 1.0
        for (value, probability) in lower {
            while place < other.upper.count {
                let ratio = Self.ratio(value, other.upper[place].value)
                if ratio <= limit {
                    largest = max(largest, ratio)
                    break
                }
                next = min(next, ratio)
                enough -= other.upper[place].probability
                place += 1
            }
            guard place < other.upper.count else { break }
            if place > 0 { next = min(next, Self.ratio(value, other.upper[place - 1].value)) }
            total += probability * enough
        }
        return (total, largest, next)
    }

    /// Of equal numbers, 1.
    static func ratio(_ a: Double, _ b: Double) -> Double {
        if b > 0 { return a / b }
        return a == 0 ? 1 : .infinity
    }
}
