// What metric queries have in common.

import Domain
import Hummingbird

extension QueryReader {
    /// The span between `since` and `until`; by default the last hour.
    /// - Parameter now: included in the span, so that a sample counts as soon as it is recorded.
    mutating func metricRange(now: Instant) -> MetricRange {
        let sentSince = instant("since")
        let until = instant("until") ?? max(now.advanced(milliseconds: 1), sentSince ?? now)
        let since = sentSince ?? until.advanced(milliseconds: -3_600_000)
        if since > until { report("since", "must not be later than until.") }
        if until.milliseconds(since: since) > Limits.maxMetricRangeMilliseconds {
            report("since", "must be at most \(Limits.maxMetricRangeMilliseconds / 86_400_000) days before until.")
        }
        return MetricRange(since: since, until: until)
    }

    /// The length of a time series' steps in milliseconds; by default one that gives a readable number of steps.
    mutating func stepMilliseconds(of range: MetricRange) -> Int64 {
        let chosen = milliseconds("step_seconds")
        guard let step = chosen else { return range.step(atMost: 120) }
        if step < 1000 {
            report("step_seconds", "must be at least 1.")
            return 3_600_000
        }
        if range.milliseconds / step > Limits.maxTimeSeriesSteps {
            report(
                "step_seconds",
                "would give more than \(Limits.maxTimeSeriesSteps) steps: choose longer steps or a shorter range.")
            return Limits.maxMetricRangeMilliseconds
        }
        return step
    }
}

extension MetricRange {
    /// Steps that a person would choose, no shorter than the roll-ups that answer the range.
    func step(atMost count: Int64) -> Int64 {
        let seconds: [Int64] = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400]
        let shortest = max(milliseconds / count, rollupResolution.periodMilliseconds)
        return (seconds.first { $0 * 1000 >= shortest } ?? 7 * 86_400) * 1000
    }
}

extension Distribution {
    /// Count, errors, extremes, mean and percentiles of durations.
    var timingMembers: [JSON.Member] {
        let ordered = ordered
        func percentile(_ fraction: Double) -> JSON { .optional(ordered.quantile(fraction), JSON.decimal) }
        return [
            .init(name: "count", value: .integer(count)),
            .init(name: "error_count", value: .integer(errorCount)),
            .init(name: "min_seconds", value: count == 0 ? .null : .decimal(min)),
            .init(name: "max_seconds", value: count == 0 ? .null : .decimal(max)),
            .init(name: "mean_seconds", value: .optional(mean, JSON.decimal)),
            .init(name: "p50_seconds", value: percentile(0.5)),
            .init(name: "p90_seconds", value: percentile(0.9)),
            .init(name: "p95_seconds", value: percentile(0.95)),
            .init(name: "p99_seconds", value: percentile(0.99)),
            .init(name: "cache_hit_ratio", value: .optional(cacheHitRatio, JSON.decimal)),
        ]
    }

    /// Latest, smallest, largest and mean value.
    var levelJSON: JSON {
        [
            "latest": .optional(last, JSON.decimal), "min": count == 0 ? .null : .decimal(min),
            "max": count == 0 ? .null : .decimal(max), "mean": .optional(mean, JSON.decimal),
        ]
    }
}

/// The statistic of a distribution that a time series shows.
enum Statistic: String, CaseIterable {
    case count, mean, p50, p90, p95, p99, min, max, last

    func value(of distribution: Distribution?) -> JSON {
        guard let distribution, distribution.count > 0 else { return .null }
        switch self {
        case .count: return .integer(distribution.count)
        case .mean: return .optional(distribution.mean, JSON.decimal)
        case .p50: return .optional(distribution.ordered.quantile(0.5), JSON.decimal)
        case .p90: return .optional(distribution.ordered.quantile(0.9), JSON.decimal)
        case .p95: return .optional(distribution.ordered.quantile(0.95), JSON.decimal)
        case .p99: return .optional(distribution.ordered.quantile(0.99), JSON.decimal)
        case .min: return .decimal(distribution.min)
        case .max: return .decimal(distribution.max)
        case .last: return .optional(distribution.last, JSON.decimal)
        }
    }
}
