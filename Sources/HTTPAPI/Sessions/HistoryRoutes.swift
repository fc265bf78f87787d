// /v1/sessions/{session_id}/history and /v1/history: items appended, listed, streamed, rated.

import Domain
import HTTPTypes
import Hummingbird
import NIOCore

/// Histories of sessions.
struct HistoryRoutes: Sendable {
    let history: any HistoryStore

    var routes: [Route] {
        [
            Route(.get, "/v1/sessions/{session_id}/history", scope: .read, answersJSON: false, list),
            Route(.post, "/v1/sessions/{session_id}/history", scope: .write, append),
            Route(.delete, "/v1/sessions/{session_id}/history", scope: .write, clear),
            Route(.get, "/v1/sessions/{session_id}/history/{item_id}", scope: .read, get),
            Route(.patch, "/v1/sessions/{session_id}/history/{item_id}", scope: .write, patch),
            Route(.delete, "/v1/sessions/{session_id}/history/{item_id}", scope: .write, answersJSON: false, remove),
            Route(.get, "/v1/history", scope: .read, listAll),
        ]
    }

    // MARK: Reading

    @Sendable func list(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        let accept = request.headers[.accept] ?? "*/*"
        let isStream = MediaRange.prefers(accept, type: "application", subtype: "x-ndjson")
        if !isStream { try request.requireJSONAccepted() }
        var query = try QueryReader(request)
        let kind = query.name("kind")
        let order: HistoryOrder = query.choice("order") ?? .newest
        if isStream {
            try query.finish()
            return try await stream(id, kind: kind, order: order)
        }
        let limit = query.limit()
        let position = query.position()
        try query.finish()
        let page = try await history.history(of: id, kind: kind, order: order, after: position, limit: limit)
        var response = try Response.page(page.items.map(\.json), next: page.next?.text, for: request)
        response.headers[.vary] = "Accept"
        return response
    }

    /// All items, one per line. Only one page of them is in memory at a time.
    private func stream(_ id: Name, kind: Name?, order: HistoryOrder) async throws -> Response {
        let history = history
        let next: @Sendable (CollectionPosition?) async throws -> Page<HistoryItem> = { position in
            try await history.history(of: id, kind: kind, order: order, after: position, limit: Limits.maxPageItems)
        }
        let first = try await next(nil)
        let headers: HTTPFields = [
            .contentType: "application/x-ndjson", .cacheControl: "no-cache", .vary: "Accept",
        ]
        return Response(
            status: .ok, headers: headers,
            body: ResponseBody { writer in
                var page = first
                while true {
                    if !page.items.isEmpty { try await writer.write(page.items.lines) }
                    guard let position = page.next else { break }
                    do {
                        page = try await next(position)
                    } catch let failure as Failure where failure.code == .sessionNotFound {
                        // The session was deleted in the meantime, and its items with it.
                        break
                    }
                }
                try await writer.finish(nil)
            })
    }

    @Sendable func get(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        let itemID = try context.name("item_id")
        try request.refuseQuery()
        let item = try await history.historyItem(itemID, of: id)
        if try request.condition.isKnown(.present(item.tag)) { return .unchanged(tag: item.tag) }
        return .entity(item.json, tag: item.tag)
    }

    @Sendable func listAll(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let filter = HistoryFilter(
            kind: query.name("kind"), since: query.instant("since"), until: query.instant("until"))
        let limit = query.limit()
        let position = query.position()
        try query.finish()
        let page = try await history.history(filter, after: position, limit: limit)
        return try .page(page.items.map(\.json), next: page.next?.text, for: request)
    }

    // MARK: Writing

    @Sendable func append(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        let session = try request.sessionToCreate()
        var body = try await request.objectBody(context)
        let itemID = body.name("id") ?? .random()
        let kind = body.name("kind")
        let data = body.take("data")
        if data == nil { body.report("data", "is missing: send any JSON value.") }
        try body.finish()
        let draft = HistoryDraft(id: itemID, kind: kind, data: JSONText(data ?? .null))
        let append = try await history.appendHistory(draft, to: id, orCreating: session)
        return .json(
            ["item": append.item.json, "removed": .integer(append.removed)], status: append.isNew ? .created : .ok,
            headers: append.isNew ? [.location: append.item.location] : [:])
    }

    @Sendable func patch(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        let itemID = try context.name("item_id")
        try request.refuseQuery()
        let patch = try await request.jsonBody(context)
        let item = try await history.patchHistoryItem(
            itemID, of: id, patch: patch, condition: request.condition)
        return .entity(item.json, tag: item.tag)
    }

    @Sendable func remove(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        let itemID = try context.name("item_id")
        try request.refuseQuery()
        try await history.removeHistoryItem(itemID, of: id, condition: request.condition)
        return Response(status: .noContent)
    }

    @Sendable func clear(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        try request.refuseQuery()
        try request.condition.check(.untagged(isPresent: true))
        return .json(["removed": .integer(try await history.clearHistory(of: id))])
    }
}

extension HistoryItem {
    /// The URL of an item.
    fileprivate var location: String { "/v1/sessions/\(sessionID.rawValue)/history/\(id.rawValue)" }

    var json: JSON {
        [
            "id": .string(id.rawValue),
            "session_id": .string(sessionID.rawValue),
            "kind": .optional(kind) { .string($0.rawValue) },
            "data": .verbatim(data),
            "created_at": .instant(createdAt),
            "updated_at": .instant(updatedAt),
            "size_bytes": .integer(sizeBytes),
        ]
    }
}

extension [HistoryItem] {
    /// Newline-delimited JSON.
    fileprivate var lines: ByteBuffer {
        var bytes: [UInt8] = []
        for item in self {
            item.json.write(to: &bytes)
            bytes.append(UInt8(ascii: "\n"))
        }
        return ByteBuffer(bytes: bytes)
    }
}
