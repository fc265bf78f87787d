// /v1/metrics: distributions, time series, levels and comparisons, computed from samples.

import Domain
import Hummingbird

struct MetricRoutes: Sendable {
    let samples: any SampleStore
    let sessions: any SessionStore
    let clock: WallClock

    var routes: [Route] {
        [
            Route(.get, "/v1/metrics/timings", scope: .read, computesLong: true, timings),
            Route(.get, "/v1/metrics/timeseries", scope: .read, computesLong: true, timeSeries),
            Route(.get, "/v1/metrics/memory", scope: .read, computesLong: true, memory),
            Route(.get, "/v1/metrics/sessions", scope: .read, sessionFigures),
            Route(.get, "/v1/metrics/comparison", scope: .read, computesLong: true, comparison),
        ]
    }

    // MARK: Distributions

    @Sendable func timings(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let range = query.metricRange(now: clock.now())
        let name = query.sampleText("name")
        let grouping: MetricQuery.Grouping? = query.choice("group_by")
        let source: SampleSource = query.choice("source") ?? .app
        if source == .service, grouping != nil {
            query.report("group_by", "is not available for the service's own timings.")
        }
        try query.finish()
        let found = try await samples.measure(
            MetricQuery(
                kind: .timing, metric: .duration, source: source, range: range, name: name, grouping: grouping))
        return try .entity(
            [
                "since": .instant(range.since), "until": .instant(range.until),
                "resolution": .string(found.resolution.rawValue),
                "items": .array(found.items.map { $0.timingJSON(grouping) }),
            ], for: request)
    }

    @Sendable func timeSeries(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let range = query.metricRange(now: clock.now())
        let kind: SampleKind = query.choice("kind") ?? .timing
        let name = query.sampleText("name")
        if name == nil { query.require("name") }
        let variant = query.sampleText("variant")
        let statistic: Statistic = query.choice("stat") ?? .mean
        let source: SampleSource = query.choice("source") ?? .app
        let sentMetric: SampleMetric? = query.choice("metric")
        let metric = sentMetric ?? SampleMetric.all(of: kind)[0]
        if !SampleMetric.all(of: kind).contains(metric) {
            let known = SampleMetric.all(of: kind).map(\.rawValue).joined(separator: ", ")
            query.report("metric", "must be one of the metrics of \(kind.rawValue) samples: \(known).")
        }
        let step = query.stepMilliseconds(of: range)
        try query.finish()
        let question = MetricQuery(
            kind: kind, metric: metric, source: source, range: range, name: name, variant: variant,
            stepMilliseconds: step)
        let found = try await samples.measure(question)
        let item = found.items.first
        let buckets = question.steps.enumerated().map { index, start -> JSON in
            ["start": .instant(start), "value": statistic.value(of: item?.steps[index])]
        }
        return try .entity(
            [
                "kind": .string(kind.rawValue), "name": .optional(name, JSON.string),
                "metric": .string(metric.rawValue), "stat": .string(statistic.rawValue),
                "unit": .optional(item?.unit ?? metric.unit, JSON.string),
                "since": .instant(range.since), "until": .instant(range.until),
                "resolution": .string(found.resolution.rawValue), "step_seconds": .seconds(milliseconds: step),
                "buckets": .array(buckets),
            ], for: request)
    }

    // MARK: Levels

    @Sendable func memory(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let range = query.metricRange(now: clock.now())
        let name = query.sampleText("name")
        try query.finish()
        let levels = try await samples.memoryLevels(in: range, name: name, stepMilliseconds: nil)
        return try .entity(
            [
                "since": .instant(range.since), "until": .instant(range.until),
                "resolution": .string(levels.resolution.rawValue), "items": .array(levels.items.map(\.json)),
            ], for: request)
    }

    @Sendable func sessionFigures(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        return try .entity(.object(try await sessions.sessionFigures().members), for: request)
    }

    // MARK: Comparison

    @Sendable func comparison(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let range = query.metricRange(now: clock.now())
        let name = query.sampleText("name")
        let baseline = query.sampleText("baseline")
        let candidate = query.sampleText("candidate")
        if baseline == nil { query.require("baseline") }
        if candidate == nil { query.require("candidate") }
        try query.finish()
        let found = try await samples.measure(
            MetricQuery(kind: .timing, metric: .duration, range: range, name: name, grouping: .variant))
        return try .entity(
            .object(
                [
                    .init(name: "since", value: .instant(range.since)),
                    .init(name: "until", value: .instant(range.until)),
                    .init(name: "resolution", value: .string(found.resolution.rawValue)),
                ] + found.comparison(baseline: baseline!, candidate: candidate!)), for: request)
    }
}

extension QueryReader {
    /// Reports a required parameter as missing, unless it was sent and is invalid.
    fileprivate mutating func require(_ name: String) {
        guard !hasError(name) else { return }
        report(name, "is missing.")
    }
}

extension SampleMetric {
    /// The unit; nil if each sample states its own.
    fileprivate var unit: String? {
        switch self {
        case .duration: "seconds"
        case .residentBytes, .virtualBytes: "bytes"
        case .percent: "percent"
        case .value: nil
        }
    }
}

extension Measurements.Item {
    func timingJSON(_ grouping: MetricQuery.Grouping?) -> JSON {
        var members: [JSON.Member] = [.init(name: "name", value: .string(name))]
        if let grouping { members.append(.init(name: grouping.rawValue, value: .optional(group, JSON.string))) }
        return .object(members + total.timingMembers)
    }
}

extension Measurements {
    /// Two variants of each operation compared; from measurements grouped by variant.
    func comparison(baseline: String, candidate: String) -> [JSON.Member] {
        var pairs: [(name: String, baseline: Distribution, candidate: Distribution)] = []
        for item in items {
            let group = item.group.map(ExactText.init)
            guard group == ExactText(baseline) || group == ExactText(candidate) else { continue }
            if pairs.last.map({ ExactText($0.name) }) != ExactText(item.name) {
                pairs.append((item.name, Distribution(), Distribution()))
            }
            if group == ExactText(baseline) { pairs[pairs.count - 1].baseline.merge(item.total) }
            if group == ExactText(candidate) { pairs[pairs.count - 1].candidate.merge(item.total) }
        }
        let compared = pairs.prefix(Limits.maxComparedNames).map { pair -> JSON in
            let (old, new) = (pair.baseline.ordered, pair.candidate.ordered)
            let comparison = VariantComparison(baseline: old, candidate: new)
            return [
                "name": .string(pair.name), "baseline": old.comparedJSON, "candidate": new.comparedJSON,
                "change_percent": [
                    "p50": .optional(comparison.median.percent, JSON.decimal),
                    "p95": .optional(comparison.p95.percent, JSON.decimal),
                ],
                "confidence_interval_percent": [
                    "p50": comparison.median.intervalJSON, "p95": comparison.p95.intervalJSON,
                ],
                "interval_reasons": [
                    "p50": .optional(comparison.median.missing) { .string($0.rawValue) },
                    "p95": .optional(comparison.p95.missing) { .string($0.rawValue) },
                ],
                "verdict": .string(comparison.verdict.rawValue),
            ]
        }
        return [
            .init(name: "baseline", value: .string(baseline)), .init(name: "candidate", value: .string(candidate)),
            .init(name: "items", value: .array(compared)),
        ]
    }
}

extension OrderedDistribution {
    fileprivate var comparedJSON: JSON {
        [
            "count": .integer(count), "p50_seconds": .optional(quantile(0.5), JSON.decimal),
            "p95_seconds": .optional(quantile(0.95), JSON.decimal),
        ]
    }
}

extension VariantComparison.Change {
    fileprivate var intervalJSON: JSON {
        .optional(interval) { [.decimal($0.lowerBound), .decimal($0.upperBound)] }
    }
}

/// The memory of processes, three metrics each.
struct MemoryLevels {
    struct Item {
        var name: String
        /// By ``SampleMetric``.
        var metrics: [SampleMetric: Measurements.Item]

        var count: Int { metrics[.residentBytes]?.total.count ?? 0 }

        var members: [JSON.Member] {
            [.init(name: "name", value: .string(name)), .init(name: "count", value: .integer(count))]
                + SampleMetric.all(of: .memory).map { metric in
                    .init(name: metric.rawValue, value: (metrics[metric]?.total ?? Distribution()).levelJSON)
                }
        }

        var json: JSON { .object(members) }
    }

    var resolution: MetricResolution
    var items: [Item]
}

extension SampleStore {
    func memoryLevels(in range: MetricRange, name: String?, stepMilliseconds: Int64?) async throws -> MemoryLevels {
        var levels = MemoryLevels(resolution: .raw, items: [])
        let metrics = SampleMetric.all(of: .memory)
        let answers = try await measure(
            metrics.map { metric in
                MetricQuery(
                    kind: .memory, metric: metric, range: range, name: name, stepMilliseconds: stepMilliseconds,
                    hasPercentiles: false)
            })
        for (metric, found) in zip(metrics, answers) {
            levels.resolution = max(levels.resolution, found.resolution)
            for item in found.items {
                if let index = levels.items.firstIndex(where: { ExactText($0.name) == ExactText(item.name) }) {
                    levels.items[index].metrics[metric] = item
                } else {
                    levels.items.append(MemoryLevels.Item(name: item.name, metrics: [metric: item]))
                }
            }
        }
        return levels
    }
}

extension SessionFigures {
    var members: [JSON.Member] {
        [
            .init(name: "session_count", value: .integer(sessionCount)),
            .init(name: "state_key_count", value: .integer(stateKeyCount)),
            .init(name: "state_size_bytes", value: .integer(stateSizeBytes)),
            .init(
                name: "largest",
                value: .array(
                    largest.map { session in
                        [
                            "id": .string(session.id.rawValue), "state_key_count": .integer(session.stateKeyCount),
                            "state_size_bytes": .integer(session.stateSizeBytes),
                            "history_count": .integer(session.historyCount),
                            "last_active_at": .instant(session.lastActiveAt),
                        ]
                    })),
        ]
    }
}
