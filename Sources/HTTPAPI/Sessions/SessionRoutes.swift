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
        var query = try QueryReader(request)
        let parts: Set<SessionPart> = Set(try query.choices("include") ?? [])
        try query.finish()
        var body = try await request.objectBody(context, maxBytes: Limits.maxStateBodyBytes)
        if let other = body.name("id"), other != id {
            body.report("id", "must equal the id in the path, or be absent.")
        }
        let draft = try SessionDraft(body: &body)
        let defaults = try body.entries("defaults") ?? []
        try body.finish()
        let (opening, contents) = try await sessions.openSession(
            id, draft, defaults: defaults, condition: request.condition, including: parts)
        return .json(
            contents.json(initialized: opening.initializedKeys), status: opening.isNew ? .created : .ok,
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
        let draft = try request.sessionToCreate()
        var body = try await request.objectBody(context)
        let seconds = body.decimal("delay_seconds", in: 0...Double(Limits.maxDebounceDelayMilliseconds / 1000))
        try body.finish()
        let delay = seconds.map { Int64(($0 * 1000).rounded(.up)) } ?? settings.current.milliseconds(.debounceDelay)
        let decision = try await sessions.debounce(
            name, of: id, delayMilliseconds: delay, orCreating: draft)
        return .json([
            "allowed": .bool(decision.isAllowed),
            "retry_after_seconds": .seconds(milliseconds: decision.retryAfterMilliseconds),
            "last_allowed_at": .instant(decision.lastAllowedAt),
        ])
    }
}

extension SessionStore {
    /// Opens a session and reads parts of it. If another caller removes it in between, it is opened again.
    fileprivate func openSession(
        _ id: Name, _ draft: SessionDraft, defaults: [StateEntry], condition: EntityCondition,
        including parts: Set<SessionPart>
    ) async throws -> (SessionOpening, SessionContents) {
        var attempts = 0
        while true {
            let opening = try await openSession(id, draft, defaults: defaults, condition: condition)
            guard !parts.isEmpty else { return (opening, SessionContents(session: opening.session)) }
            attempts += 1
            do {
                return (opening, try await sessionContents(of: id, including: parts))
            } catch let failure as Failure where failure.code == .sessionNotFound && attempts < Limits.maxOpenings {
                continue
            }
        }
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

extension SessionContents {
    /// The members of the session, which keys were initialized, and the parts that were asked for.
    fileprivate func json(initialized keys: [Key]) -> JSON {
        var members = session.members + [.init(name: "initialized_keys", value: .keys(keys))]
        if let state { members.append(.init(name: "state", value: .entries(state))) }
        if let history {
            members.append(.init(name: "history", value: .array(history.items.map(\.json))))
            members.append(
                .init(
                    name: "history_next_cursor",
                    value: .optional(history.next) { .string(Cursor.encode($0.text)) }))
        }
        return .object(members)
    }
}
