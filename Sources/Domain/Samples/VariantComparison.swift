// Whether one variant of an operation is faster than another, and how sure that is.

/// Two distributions of one operation's durations held against each other.
///
/// The change of a percentile is told with a 95 % confidence interval by the percentile bootstrap (Efron, "Bootstrap
/// Methods: Another Look at the Jackknife", Annals of Statistics 7(1), 1979): both distributions are resampled, the
/// change computed each time, and the middle 95 % of the changes is the interval. A resample's r-th smallest of n
/// values is the value of the original distribution at the fraction U, where U is the r-th smallest of n uniform
/// numbers, which is Beta(r, n − r + 1) distributed (the same observation as in Maritz and Jarrett, "A Note on
/// Estimating the Variance of the Sample Median", JASA 73, 1978). So a resample costs one random number however many
/// samples there are, and works on rolled-up distributions too. The random numbers begin at a fixed seed: the same
/// samples give the same answer.
public struct VariantComparison: Sendable, Equatable {
    public enum Verdict: String, Sendable, CaseIterable {
        case faster, slower
        case noDifference = "no_difference"
        case tooFewSamples = "too_few_samples"
    }

    /// A change in percent of the baseline, negative for faster; nil where the baseline is 0.
    public struct Change: Sendable, Equatable {
        public var percent: Double?
        /// nil where there are too few samples.
        public var interval: ClosedRange<Double>?
    }

    public var median: Change
    public var p95: Change
    /// By the interval of the median: whether it leaves out 0, and on which side.
    public var verdict: Verdict

    /// Fewer samples of either variant are too few for a verdict.
    public static let minimumSamples = 5
    static let resamples = 1000

    public init(baseline: OrderedDistribution, candidate: OrderedDistribution) {
        let isEnough = Swift.min(baseline.count, candidate.count) >= Self.minimumSamples
        var random = SplitMix64(state: 0x9E37_79B9_7F4A_7C15)
        func change(_ fraction: Double) -> Change {
            let percent = Self.percent(from: baseline.quantile(fraction), to: candidate.quantile(fraction))
            guard isEnough, percent != nil else { return Change(percent: percent, interval: nil) }
            let changes = (0..<Self.resamples).compactMap { _ in
                Self.percent(
                    from: baseline.resampledQuantile(fraction, &random),
                    to: candidate.resampledQuantile(fraction, &random))
            }
            let ordered = OrderedDistribution(changes.sorted().map { ($0, 1) })
            guard let low = ordered.quantile(0.025), let high = ordered.quantile(0.975) else {
                return Change(percent: percent, interval: nil)
            }
            return Change(percent: percent, interval: low...high)
        }
        median = change(0.5)
        p95 = change(0.95)
        if let interval = median.interval {
            verdict = interval.upperBound < 0 ? .faster : interval.lowerBound > 0 ? .slower : .noDifference
        } else {
            verdict = isEnough ? .noDifference : .tooFewSamples
        }
    }

    private static func percent(from baseline: Double?, to candidate: Double?) -> Double? {
        guard let baseline, let candidate, baseline > 0 else { return nil }
        return (candidate - baseline) / baseline * 100
    }
}

extension OrderedDistribution {
    /// A quantile of one bootstrap resample.
    fileprivate func resampledQuantile(_ fraction: Double, _ random: inout SplitMix64) -> Double {
        let rank = Int((fraction * Double(count - 1)).rounded()) + 1
        let uniform = random.beta(Double(rank), Double(count - rank + 1))
        return value(atRank: Swift.min(Int(uniform * Double(count)), count - 1))
    }
}
