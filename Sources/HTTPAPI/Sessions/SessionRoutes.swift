// /v1/sessions: sessions as a whole, optimizing, debouncing.

import Domain
import HTTPTypes
import Hummingbird

/// Sessions, without their state and history.
struct SessionRoutes: Sendable {
    let sessions: any SessionStore
    let settings: LiveSettings

    var routes: [Route] {
        [
            Route(.get, "/v1/sessions", scope: .read, list),
            Route(.post, "/v1/sessions", scope: .write, create),
            Route(.delete, "/v1/sessions", scope: .write, removeInactive),
            Route(.get, "/v1/sessions/{session_id}", scope: .read, get),
            Route(.put, "/v1/sessions/{session_id}", scope: .write, open),
            Route(.delete, "/v1/sessions/{session_id}", scope: .write, answersJSON: false, remove),
            Route(.post, "/v1/sessions/{session_id}/touch", scope: .write, touch),
            Route(.post, "/v1/sessions/{session_id}/optimize", scope: .write, optimize),
            Route(.post, "/v1/sessions/{session_id}/debounce/{name}", scope: .write, debounce),
        ]
    }

    @Sendable func list(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let activeWithin = query.milliseconds("active_within_seconds")
        let limit = query.limit()
        let position = query.position()
        try query.finish()
        let page = try await sessions.sessions(activeWithinMilliseconds: activeWithin, after: position, limit: limit)
        return try .page(page.items.map(\.json), next: page.next?.text, for: request)
    }

    @Sendable func create(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        var body = try await request.objectBody(context, maxBytes: Limits.maxStateBodyBytes)
        let id = body.name("id") ?? .random()
        let draft = try SessionDraft(body: &body)
        try body.finish()
        let session = try await sessions.createSession(id, draft)
        return .json(session.json, status: .created, headers: [.location: session.location])
    }

    @Sendable func open(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        try request.refuseQuery()
        var body = try await request.objectBody(context, maxBytes: Limits.maxStateBodyBytes)
        if let other = body.name("id"), other != id {
            body.report("id", "must equal the id in the path, or be absent.")
        }
        let draft = try SessionDraft(body: &body)
        let defaults = try body.entries("defaults") ?? []
        try body.finish()
        let opening = try await sessions.openSession(
            id, draft, defaults: defaults, condition: request.condition)
        return .json(
            opening.json, status: opening.isNew ? .created : .ok,
            headers: opening.isNew ? [.location: opening.session.location] : [:])
    }

    @Sendable func get(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        try request.refuseQuery()
        let (session, before) = try await sessions.readSession(id)
        // The caller may have the session as it was before this read, which itself updated the activity.
        return try .entity(session.json, before: request.condition == .none ? nil : before.json, for: request)
    }

    @Sendable func remove(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        try request.refuseQuery()
        try request.condition.check(.untagged(isPresent: true))
        try await sessions.removeSession(id)
        return Response(status: .noContent)
    }

    @Sendable func removeInactive(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let inactive = query.milliseconds("inactive_for_seconds")
        let isDryRun = query.flag("dry_run")
        try query.finish()
        guard let inactive else {
            throw Failure.invalid(
                "inactive_for_seconds",
                "is missing: send how long the sessions must have been inactive, such as inactive_for_seconds=86400.")
        }
        try request.condition.check(.untagged(isPresent: true))
        let removed = try await sessions.removeSessions(inactiveForMilliseconds: inactive, isDryRun: isDryRun)
        return .json(["removed": .integer(removed)])
    }

    @Sendable func touch(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        try body.finish()
        return .json(try await sessions.touchSession(id).json)
    }

    @Sendable func optimize(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        let keep = body.keys("keep") ?? [TemporaryKeys.keptByDefault]
        try body.finish()
        let optimization = try await sessions.optimizeSession(id, keep: keep)
        return .json([
            "history_removed": .integer(optimization.historyRemoved),
            "keys_removed": .keys(optimization.keysRemoved),
            "freed_bytes": .integer(optimization.freedBytes),
        ])
    }

    @Sendable func debounce(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        let name = try context.name("name")
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        let seconds = body.decimal("delay_seconds", in: 0...Double(Limits.maxDebounceDelayMilliseconds / 1000))
        try body.finish()
        let delay = seconds.map { Int64(($0 * 1000).rounded(.up)) } ?? settings.current.milliseconds(.debounceDelay)
        let decision = try await sessions.debounce(name, of: id, delayMilliseconds: delay)
        return .json([
            "allowed": .bool(decision.isAllowed),
            "retry_after_seconds": .seconds(milliseconds: decision.retryAfterMilliseconds),
            "last_allowed_at": .instant(decision.lastAllowedAt),
        ])
    }
}

extension SessionDraft {
    /// From the fields of a request that may create a session.
    /// - Throws: `too_many_keys`, `payload_too_large`.
    fileprivate init(body: inout ObjectReader) throws(Failure) {
        self.init(
            timeToLive: body.lifetime("ttl_seconds"), template: body.name("template"),
            maxHistoryItems: body.maxHistoryItems())
        if let json = body.take("metadata"), json != .null {
            if case .object = json {} else { body.report("metadata", "must be a JSON object.") }
            metadata = JSONText(json)
            guard metadata.sizeBytes <= Limits.maxMetadataBytes else {
                throw Failure(
                    .payloadTooLarge,
                    "The metadata has \(metadata.sizeBytes) bytes; the maximum is \(Limits.maxMetadataBytes). "
                        + "Keep data in the state.")
            }
        }
        state = try body.entries("state") ?? []
    }
}

extension Session {
    var json: JSON { .object(members) }

    /// The URL of a session.
    fileprivate var location: String { "/v1/sessions/\(id.rawValue)" }

    fileprivate var members: [JSON.Member] {
        [
            .init(name: "id", value: .string(id.rawValue)),
            .init(name: "created_at", value: .instant(createdAt)),
            .init(name: "last_active_at", value: .instant(lastActiveAt)),
            .init(name: "expires_at", value: .optional(expiresAt, JSON.instant)),
            .init(name: "ttl_seconds", value: timeToLive.json),
            .init(name: "version", value: .integer(version)),
            .init(name: "template", value: .optional(template) { .string($0.rawValue) }),
            .init(name: "metadata", value: .verbatim(metadata)),
            .init(name: "state_key_count", value: .integer(stateKeyCount)),
            .init(name: "state_size_bytes", value: .integer(stateSizeBytes)),
            .init(name: "history_count", value: .integer(historyCount)),
            .init(name: "history_size_bytes", value: .integer(historySizeBytes)),
        ]
    }
}

extension SessionOpening {
    /// The members of the session, and which keys were initialized.
    fileprivate var json: JSON {
        .object(session.members + [.init(name: "initialized_keys", value: .keys(initializedKeys))])
    }
}
