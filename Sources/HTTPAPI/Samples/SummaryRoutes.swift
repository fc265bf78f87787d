// /v1/metrics/summary: everything a dashboard needs, in one answer.

import Domain
import Hummingbird

struct SummaryRoutes: Sendable {
    let samples: any SampleStore
    let cache: any CacheStore
    let sessions: any SessionStore
    let history: any HistoryStore
    let maintenance: any MaintenanceStore
    let settings: LiveSettings
    let clock: WallClock
    private let startedAt: Instant

    init(
        samples: any SampleStore, cache: any CacheStore, sessions: any SessionStore, history: any HistoryStore,
        maintenance: any MaintenanceStore, settings: LiveSettings, clock: WallClock
    ) {
        self.samples = samples
        self.cache = cache
        self.sessions = sessions
        self.history = history
        self.maintenance = maintenance
        self.settings = settings
        self.clock = clock
        startedAt = clock.now()
    }

    var routes: [Route] { [Route(.get, "/v1/metrics/summary", scope: .read, computesLong: true, summary)] }

    /// What the parts of a summary have in common.
    private struct Span {
        var range: MetricRange
        var stepMilliseconds: Int64
        var steps: [Instant]

        func query(_ gauge: ServiceGauge) -> MetricQuery {
            MetricQuery(
                kind: .gauge, metric: .value, range: range, name: gauge.rawValue, stepMilliseconds: stepMilliseconds,
                hasPercentiles: false)
        }

        func series(_ steps: [Int: Distribution]?, _ value: (Distribution) -> JSON) -> JSON {
            .array(self.steps.indices.map { index in steps?[index].map(value) ?? .null })
        }
    }

    @Sendable func summary(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let now = clock.now()
        let range = query.metricRange(now: now)
        let baseline = query.sampleText("baseline")
        let candidate = query.sampleText("candidate")
        if (baseline == nil) != (candidate == nil), !query.hasError("baseline"), !query.hasError("candidate") {
            query.report(baseline == nil ? "baseline" : "candidate", "must be sent together with the other.")
        }
        try query.finish()
        let step = range.step(atMost: 119)
        let question = MetricQuery(
            kind: .timing, metric: .duration, range: range, grouping: .variant, tellsCacheApart: true,
            stepMilliseconds: step)
        let span = Span(range: range, stepMilliseconds: step, steps: question.steps)
        let requests = MetricQuery(kind: .timing, metric: .duration, source: .service, range: range)
        let measured = try await samples.measure(
            [question, requests, span.query(.sessionCount), span.query(.sessionStateBytes)])
        let timings = measured[0]
        let memory = try await samples.memoryLevels(in: range, name: nil, stepMilliseconds: step)
        let gauges = measured[2...].map { found in
            span.series(found.items.first?.steps) { .optional($0.last, JSON.decimal) }
        }
        let variants = Set(timings.items.compactMap(\.group).map(ExactText.init)).sorted().map(\.text)
        var members: [JSON.Member] = [
            .init(name: "since", value: .instant(range.since)), .init(name: "until", value: .instant(range.until)),
            .init(name: "generated_at", value: .instant(now)),
            .init(
                name: "resolution",
                value: .string(max(timings.resolution, memory.resolution).rawValue)),
            .init(name: "step_seconds", value: .seconds(milliseconds: step)),
            .init(name: "buckets", value: .array(span.steps.map(JSON.instant))),
            .init(
                name: "monitoring",
                value: .string(settings.current.boolean(.enableMonitoring) ? "enabled" : "disabled")),
            .init(
                name: "service",
                value: [
                    "version": .string(Version.current), "started_at": .instant(startedAt),
                    "uptime_seconds": .seconds(milliseconds: now.milliseconds(since: startedAt)),
                ]),
        ]
        members += operations(timings, span)
        members.append(
            .init(
                name: "requests",
                value: .array(
                    mostFrequent(measured[1].items, Limits.maxSummaryRoutes).map { $0.timingJSON(nil) })))
        members.append(.init(name: "requests_total", value: .integer(measured[1].items.count)))
        members.append(
            .init(
                name: "memory",
                value: .array(memory.items.prefix(Limits.maxSummaryProcesses).map { levels($0, span) })))
        members.append(.init(name: "memory_total", value: .integer(memory.items.count)))
        let figures = try await cache.figures(in: range, stepMilliseconds: step, limit: Limits.maxSummaryNames)
        members.append(
            .init(
                name: "cache",
                value: .object(figures.members + [.init(name: "series", value: figures.series(span.steps.count))])))
        members.append(
            .init(
                name: "sessions",
                value: .object(
                    try await sessions.sessionFigures().members + [
                        .init(name: "series", value: ["session_count": gauges[0], "state_size_bytes": gauges[1]])
                    ])))
        members.append(.init(name: "history", value: try await history.historyFigures().json))
        let cleanup = try await maintenance.maintenanceFigures(in: range, runs: Limits.maxSummaryRuns)
        members.append(.init(name: "maintenance", value: cleanup.json(of: maintenance.tasks)))
        members.append(
            .init(name: "variants", value: .array(variants.prefix(Limits.maxSampleVariants).map(JSON.string))))
        members.append(.init(name: "variants_total", value: .integer(variants.count)))
        members.append(
            .init(
                name: "comparison",
                value: .optional(Self.pair(baseline, candidate, of: variants)) {
                    .object(timings.comparison(baseline: $0.baseline, candidate: $0.candidate))
                }))
        return .json(.object(members))
    }

    /// The variants to compare: those in the query, or the only two there are.
    private static func pair(
        _ baseline: String?, _ candidate: String?, of variants: [String]
    ) -> (baseline: String, candidate: String)? {
        if let baseline, let candidate { return (baseline, candidate) }
        guard variants.count == 2 else { return nil }
        let usual = ["original", "baseline", "uncached", "before", "control"]
        return usual.contains(variants[1]) && !usual.contains(variants[0])
            ? (variants[1], variants[0]) : (variants[0], variants[1])
    }

    private func mostFrequent(_ items: [Measurements.Item], _ limit: Int) -> ArraySlice<Measurements.Item> {
        items.sorted { $0.total.count > $1.total.count }.prefix(limit)
    }

    private func operations(_ timings: Measurements, _ span: Span) -> [JSON.Member] {
        let all = timings.ungrouped
        let named = mostFrequent(all, Limits.maxSummaryNames)
        var parts = Dictionary(grouping: timings.items) { ExactText($0.name) }
        // An operation with one part is reported as a whole.
        parts = parts.filter { name, items in items.count > 1 && named.contains { ExactText($0.name) == name } }
        let told = Dictionary(
            grouping: mostFrequent(parts.values.flatMap { $0 }, Limits.maxSummaryParts)
        ) { ExactText($0.name) }
        let items = named.map { item -> JSON in
            let own: [JSON] = (told[ExactText(item.name)] ?? []).map { part in
                .object(
                    [
                        .init(name: "variant", value: .optional(part.group, JSON.string)),
                        .init(name: "cache", value: .optional(part.cache) { .string($0.rawValue) }),
                    ] + durations(part, span))
            }
            return .object(
                [.init(name: "name", value: .string(item.name))] + durations(item, span) + [
                    .init(name: "parts", value: .array(own)),
                    .init(name: "parts_total", value: .integer(parts[ExactText(item.name)]?.count ?? 0)),
                ])
        }
        let counts = span.steps.indices.map { index in all.reduce(0) { $0 + ($1.steps[index]?.count ?? 0) } }
        let totals: JSON = [
            "count": .integer(all.reduce(0) { $0 + $1.total.count }),
            "error_count": .integer(all.reduce(0) { $0 + $1.total.errorCount }),
            "series": ["count": .array(counts.map { .integer($0) })],
        ]
        return [
            .init(name: "timings", value: .array(items)),
            .init(name: "timings_total", value: .integer(all.count)),
            .init(name: "timing_totals", value: totals),
        ]
    }

    /// Durations over the whole range and over time.
    private func durations(_ item: Measurements.Item, _ span: Span) -> [JSON.Member] {
        var counts: [JSON] = []
        var percentiles: [[JSON]] = [[], [], []]
        for index in span.steps.indices {
            let step = item.steps[index]
            counts.append(.integer(step?.count ?? 0))
            let ordered = step?.ordered
            for (place, fraction) in [0.5, 0.9, 0.99].enumerated() {
                percentiles[place].append(.optional(ordered?.quantile(fraction), JSON.decimal))
            }
        }
        let series: JSON = [
            "count": .array(counts), "p50_seconds": .array(percentiles[0]), "p90_seconds": .array(percentiles[1]),
            "p99_seconds": .array(percentiles[2]),
        ]
        return item.total.timingMembers + [.init(name: "series", value: series)]
    }

    private func levels(_ item: MemoryLevels.Item, _ span: Span) -> JSON {
        let series = SampleMetric.all(of: .memory).map { metric in
            JSON.Member(
                name: metric.rawValue,
                value: span.series(item.metrics[metric]?.steps) { .optional($0.mean, JSON.decimal) })
        }
        return .object(item.members + [.init(name: "series", value: .object(series))])
    }
}

extension MaintenanceFigures {
    /// - Parameter declared: the tasks in the order in which they are reported.
    fileprivate func json(of declared: [DeclaredTask]) -> JSON {
        [
            "totals": .object(totals.members),
            "tasks": .array(
                declared.map(\.task).compactMap { task in
                    tasks[task].map { .object([.init(name: "task", value: .string(task.rawValue))] + $0.members) }
                }),
            "runs": .array(latest.map(\.json)),
        ]
    }
}

extension MaintenanceFigures.Work {
    fileprivate var members: [JSON.Member] {
        [
            .init(name: "runs", value: .integer(runs)), .init(name: "failures", value: .integer(failures)),
            .init(name: "removed", value: .integer(rowsRemoved)),
            .init(name: "freed_bytes", value: .integer(bytesFreed)),
        ]
    }
}

extension HistoryFigures {
    fileprivate var json: JSON {
        [
            "item_count": .integer(itemCount), "size_bytes": .integer(sizeBytes),
            "by_kind": .array(
                byKind.map { kind, count in
                    ["kind": .optional(kind) { .string($0.rawValue) }, "item_count": .integer(count)]
                }),
        ]
    }
}
