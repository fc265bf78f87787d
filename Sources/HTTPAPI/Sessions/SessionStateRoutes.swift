// /v1/sessions/{session_id}/state: reading and writing values, one by one and together.

import Domain
import HTTPTypes
import Hummingbird

/// A session's state. Its `ETag` is the version, both for the whole state and for a single key.
struct SessionStateRoutes: Sendable {
    let sessions: any SessionStore

    var routes: [Route] {
        [
            Route(.get, "/v1/sessions/{session_id}/state", scope: .read, get),
            Route(.patch, "/v1/sessions/{session_id}/state", scope: .write, patch),
            Route(.get, "/v1/sessions/{session_id}/state/{key}", scope: .read, getValue),
            Route(.put, "/v1/sessions/{session_id}/state/{key}", scope: .write, answersJSON: false, putValue),
            Route(.delete, "/v1/sessions/{session_id}/state/{key}", scope: .write, answersJSON: false, removeValue),
        ]
    }

    @Sendable func get(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        var query = try QueryReader(request)
        let keys = try query.keys("keys")
        try query.finish()
        let state = try await sessions.state(of: id, keys: keys, condition: request.condition)
        let tag = String(state.version)
        guard let entries = state.entries else { return .unchanged(tag: tag) }
        return .entity(["state": .entries(entries), "version": .integer(state.version)], tag: tag)
    }

    @Sendable func patch(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        let draft = try request.sessionToCreate()
        var body = try await request.objectBody(context, maxBytes: Limits.maxStateBodyBytes)
        let patch = try StatePatch(body: &body)
        try body.finish()
        let change = try await sessions.patchState(
            of: id, patch, condition: request.condition, orCreating: draft)
        return .json(
            [
                "version": .integer(change.version),
                "initialized_keys": .keys(change.initializedKeys),
                "removed_keys": .keys(change.removedKeys),
                "state_key_count": .integer(change.stateKeyCount),
                "state_size_bytes": .integer(change.stateSizeBytes),
            ], headers: [.eTag: Self.header(change.version)])
    }

    @Sendable func getValue(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        let key = try context.stateKey()
        try request.refuseQuery()
        let found = try await sessions.stateValue(key, of: id, condition: request.condition)
        let tag = String(found.version)
        guard let value = found.value else { return .unchanged(tag: tag) }
        return .entity(.verbatim(value), tag: tag)
    }

    @Sendable func putValue(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        let key = try context.stateKey()
        try request.refuseQuery()
        let entry = StateEntry(key: key, value: JSONText(try await request.jsonBody(context)))
        try StateBounds.check(entry)
        let (isNew, version) = try await sessions.setStateValue(entry, of: id, condition: request.condition)
        return Response(status: isNew ? .created : .noContent, headers: [.eTag: Self.header(version)])
    }

    @Sendable func removeValue(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.sessionID()
        let key = try context.stateKey()
        try request.refuseQuery()
        try await sessions.removeStateValue(key, of: id, condition: request.condition)
        return Response(status: .noContent)
    }

    private static func header(_ version: Int64) -> String { "\"\(version)\"" }
}

extension StatePatch {
    /// From the fields of a request.
    /// - Throws: `too_many_keys`, `payload_too_large`.
    fileprivate init(body: inout ObjectReader) throws(Failure) {
        self.init(
            set: try body.entries("set") ?? [], setDefault: try body.entries("set_default") ?? [],
            delete: body.keys("delete") ?? [],
            deletePrefixes: body.keys("delete_prefixes", atMost: Limits.maxDeletePrefixes)?.map(\.rawValue) ?? [],
            keep: body.keys("keep") ?? [])
    }
}
