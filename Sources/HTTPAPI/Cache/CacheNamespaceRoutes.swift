// /v1/cache and /v1/cache/{namespace}: lists, clears, policies, statistics.

import Domain
import HTTPTypes
import Hummingbird

/// Namespaces of the cache, and their entries as collections.
struct CacheNamespaceRoutes: Sendable {
    let cache: any CacheStore
    let settings: LiveSettings

    var routes: [Route] {
        [
            Route(.get, "/v1/cache", scope: .read, list),
            Route(.delete, "/v1/cache", scope: .write, clearAll),
            Route(.get, "/v1/cache/{namespace}", scope: .read, get),
            Route(.put, "/v1/cache/{namespace}", scope: .write, put),
            Route(.delete, "/v1/cache/{namespace}", scope: .write, answersJSON: false, remove),
            Route(.get, "/v1/cache/{namespace}/entries", scope: .read, entries),
            Route(.delete, "/v1/cache/{namespace}/entries", scope: .write, clear),
        ]
    }

    @Sendable func list(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let limit = query.limit()
        let cursor = query.cursor()
        try query.finish()
        let found = try await cache.namespaces(after: cursor, limit: limit + 1)
        let page = found.prefix(limit)
        return try .page(
            page.map { $0.json(settings.current) }, next: found.count > limit ? page.last?.name.rawValue : nil,
            for: request)
    }

    @Sendable func get(_ request: Request, _ context: APIContext) async throws -> Response {
        let name = try context.namespace()
        try request.refuseQuery()
        return try .entity(try await cache.namespace(name).json(settings.current), for: request)
    }

    @Sendable func put(_ request: Request, _ context: APIContext) async throws -> Response {
        let name = try context.namespace()
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        let policy = CachePolicy(body: &body)
        try body.finish()
        try await check(request.condition, of: name)
        let (namespace, created) = try await cache.setPolicy(policy, of: name)
        return .json(namespace.json(settings.current), status: created ? .created : .ok)
    }

    /// - Throws: `precondition_failed`.
    private func check(_ condition: EntityCondition, of name: Name) async throws {
        guard condition != .none else { return }
        var current = EntityCondition.Entity.absent
        do {
            current = .present(try await cache.namespace(name).json(settings.current).entityTag)
        } catch let failure as Failure where failure.code == .namespaceNotFound {}
        try condition.check(current)
    }

    @Sendable func remove(_ request: Request, _ context: APIContext) async throws -> Response {
        let name = try context.namespace()
        try request.refuseQuery()
        try await check(request.condition, of: name)
        try await cache.removeNamespace(name)
        return Response(status: .noContent)
    }

    // MARK: Entries

    @Sendable func entries(_ request: Request, _ context: APIContext) async throws -> Response {
        let name = try context.namespace()
        var query = try QueryReader(request)
        let filter = query.entryFilter(withAge: false)
        let limit = query.limit()
        let cursor = query.cursor()
        try query.finish()
        let found = try await cache.list(name, filter: filter, after: cursor, limit: limit + 1)
        let page = found.prefix(limit)
        return try .page(
            page.map(\.json), next: found.count > limit ? page.last?.address.key.rawValue : nil, for: request)
    }

    @Sendable func clear(_ request: Request, _ context: APIContext) async throws -> Response {
        let name = try context.namespace()
        var query = try QueryReader(request)
        let filter = query.entryFilter(withAge: true)
        let isDryRun = query.flag("dry_run")
        try query.finish()
        try request.condition.check(.untagged(isPresent: true))
        return .json(try await cache.clear(name, filter: filter, isDryRun: isDryRun).json)
    }

    @Sendable func clearAll(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let tag = query.tag()
        let all = query.flag("all")
        let isDryRun = query.flag("dry_run")
        try query.finish()
        guard (tag != nil) != all else {
            throw Failure.invalid(
                "tag",
                all
                    ? "cannot be sent together with all=true."
                    : "is missing: send a tag, or all=true to clear every namespace.")
        }
        return .json(try await cache.clearAll(tag: tag, isDryRun: isDryRun).json)
    }
}

extension QueryReader {
    fileprivate mutating func tag() -> Tag? {
        value("tag") { text throws(Failure) in try Tag(text, field: "tag") }
    }

    /// The filter in `prefix`, `tag` and, if the route has it, `older_than_seconds`.
    fileprivate mutating func entryFilter(withAge: Bool) -> EntryFilter {
        EntryFilter(
            prefix: value("prefix") { text throws(Failure) in try Key(text, field: "prefix").rawValue }, tag: tag(),
            olderThanMilliseconds: withAge ? milliseconds("older_than_seconds") : nil)
    }
}

extension Removal {
    var json: JSON { ["removed": .integer(removed), "freed_bytes": .integer(freedBytes)] }
}

extension CachePolicy {
    /// From the fields of a request. Absent or null means the default, except for `ttl_seconds`, where null means
    /// never.
    fileprivate init(body: inout ObjectReader) {
        let positive: ClosedRange<Int64> = 1...Int64(Int.max)
        let lifetime = body.lifetime("ttl_seconds")
        let maxEntries = body.integer("max_entries", in: positive)
        let maxBytes = body.integer("max_bytes", in: positive)
        let maxEntryBytes = body.integer("max_entry_bytes", in: 1...Int64(Limits.maxEntryBytesCeiling))
        let eviction: Eviction = body.choice("eviction") ?? .leastRecentlyUsed
        self.init(
            timeToLive: lifetime, maxEntries: maxEntries.map(Int.init), maxBytes: maxBytes.map(Int.init),
            maxEntryBytes: maxEntryBytes.map(Int.init), eviction: eviction)
    }
}

extension CacheNamespace {
    /// - Parameter settings: the defaults for what the policy does not set.
    func json(_ settings: Settings) -> JSON {
        let defaultLifetime = TimeToLive.finite(milliseconds: settings.milliseconds(.cacheTTL))
        return [
            "namespace": .string(name.rawValue),
            "policy": [
                "ttl_seconds": (policy.timeToLive ?? defaultLifetime).json,
                "max_entries": .optional(policy.maxEntries) { .integer($0) },
                "max_bytes": .optional(policy.maxBytes) { .integer($0) },
                "max_entry_bytes": .integer(min(policy.maxEntryBytes ?? .max, settings.integer(.maxEntryBytes))),
                "eviction": .string(policy.eviction.rawValue),
            ],
            "entry_count": .integer(entryCount),
            "size_bytes": .integer(sizeBytes),
            "hits": .integer(hits),
            "misses": .integer(missCount),
            "hit_ratio": .optional(hitRatio, JSON.decimal),
            "expirations": .integer(expirations),
            "evictions": .integer(evictions),
            "misses_by_reason": MissReason.json(misses),
        ]
    }
}
