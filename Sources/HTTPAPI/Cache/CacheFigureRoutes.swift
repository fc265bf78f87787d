// /v1/metrics/cache: the activity of the cache in a span of time.

import Domain
import Hummingbird

struct CacheFigureRoutes: Sendable {
    let cache: any CacheStore
    let clock: WallClock

    var routes: [Route] { [Route(.get, "/v1/metrics/cache", scope: .read, computesLong: true, figures)] }

    @Sendable func figures(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let range = query.metricRange(now: clock.now())
        try query.finish()
        let figures = try await cache.figures(in: range, stepMilliseconds: nil, limit: Limits.maxPageItems)
        return try .entity(
            .object(
                [
                    .init(name: "since", value: .instant(range.since)),
                    .init(name: "until", value: .instant(range.until)),
                ] + figures.members), for: request)
    }
}

extension CacheFigures {
    /// Without its steps.
    var members: [JSON.Member] {
        [
            .init(name: "resolution", value: .string(resolution.rawValue)),
            .init(name: "namespace_count", value: .integer(namespaceCount)),
            .init(name: "named_count", value: .integer(busiest.count)),
            .init(
                name: "totals", value: .object(totals.members(entryCount: entryCount, sizeBytes: sizeBytes))),
            .init(
                name: "items",
                value: .array(
                    busiest.map { namespace in
                        .object(
                            [.init(name: "namespace", value: .string(namespace.name.rawValue))]
                                + namespace.activity.members(
                                    entryCount: namespace.entryCount, sizeBytes: namespace.sizeBytes))
                    })),
        ]
    }

    /// Look-ups over time in `count` steps. A step without a look-up has no ratio.
    func series(_ count: Int) -> JSON {
        let steps = (0..<count).map { self.steps[$0] ?? CacheActivity() }
        return [
            "hits": .array(steps.map { .integer($0.hits) }),
            "misses": .array(steps.map { .integer($0.missCount) }),
            "hit_ratio": .array(steps.map { .optional($0.hitRatio, JSON.decimal) }),
        ]
    }
}

extension CacheActivity {
    /// The activity, and the current contents.
    func members(entryCount: Int, sizeBytes: Int) -> [JSON.Member] {
        [
            .init(name: "hits", value: .integer(hits)), .init(name: "misses", value: .integer(missCount)),
            .init(name: "hit_ratio", value: .optional(hitRatio, JSON.decimal)),
            .init(name: "misses_by_reason", value: MissReason.json(misses)),
            .init(name: "entry_count", value: .integer(entryCount)),
            .init(name: "size_bytes", value: .integer(sizeBytes)),
            .init(name: "expirations", value: .integer(expirations)),
            .init(name: "evictions", value: .integer(evictions)),
        ]
    }
}

extension MissReason {
    /// Every reason with its count, which may be 0.
    static func json(_ misses: [MissReason: Int]) -> JSON {
        .object(allCases.map { JSON.Member(name: $0.rawValue, value: .integer(misses[$0] ?? 0)) })
    }
}
