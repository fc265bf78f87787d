// /v1/session-templates: what sessions of one kind have in common.

import Domain
import HTTPTypes
import Hummingbird

/// Session templates.
struct SessionTemplateRoutes: Sendable {
    let sessions: any SessionStore
    let settings: LiveSettings

    var routes: [Route] {
        [
            Route(.get, "/v1/session-templates", scope: .read, list),
            Route(.get, "/v1/session-templates/{name}", scope: .read, get),
            Route(.put, "/v1/session-templates/{name}", scope: .write, put),
            Route(.delete, "/v1/session-templates/{name}", scope: .write, answersJSON: false, remove),
        ]
    }

    @Sendable func list(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let limit = query.limit()
        let cursor = query.cursor()
        try query.finish()
        let (items, next) = try await sessions.templates(after: cursor, limit: limit)
        return try .page(items.map { $0.json(settings.current) }, next: next?.rawValue, for: request)
    }

    @Sendable func get(_ request: Request, _ context: APIContext) async throws -> Response {
        let name = try context.name("name")
        try request.refuseQuery()
        let template = try await sessions.template(name)
        if try request.condition.isKnown(.present(template.tag)) { return .unchanged(tag: template.tag) }
        return .entity(template.json(settings.current), tag: template.tag)
    }

    @Sendable func put(_ request: Request, _ context: APIContext) async throws -> Response {
        let name = try context.name("name")
        try request.refuseQuery()
        var body = try await request.objectBody(context, maxBytes: Limits.maxStateBodyBytes)
        let draft = SessionTemplateDraft(
            defaults: try body.entries("defaults") ?? [], timeToLive: body.lifetime("ttl_seconds"),
            maxHistoryItems: body.maxHistoryItems())
        try body.finish()
        let (template, isNew) = try await sessions.setTemplate(draft, of: name, condition: request.condition)
        return .entity(template.json(settings.current), tag: template.tag, status: isNew ? .created : .ok)
    }

    @Sendable func remove(_ request: Request, _ context: APIContext) async throws -> Response {
        let name = try context.name("name")
        try request.refuseQuery()
        try await sessions.removeTemplate(name, condition: request.condition)
        return Response(status: .noContent)
    }
}

extension SessionTemplate {
    /// - Parameter settings: the defaults for what the template does not set.
    fileprivate func json(_ settings: Settings) -> JSON {
        let lifetime = content.timeToLive ?? .finite(milliseconds: settings.milliseconds(.sessionTTL))
        return [
            "name": .string(name.rawValue),
            "defaults": .entries(content.defaults),
            "ttl_seconds": lifetime.json,
            "max_history_items": .integer(content.maxHistoryItems ?? settings.integer(.maxHistoryItems)),
            "created_at": .instant(createdAt),
            "updated_at": .instant(updatedAt),
        ]
    }
}
