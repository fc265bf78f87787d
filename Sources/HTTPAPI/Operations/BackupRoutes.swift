// /v1/backups: making, listing, fetching and removing backups.

import Domain
import HTTPTypes
import Hummingbird
import NIOCore

struct BackupRoutes: Sendable {
    /// nil if the storage engine cannot make backups.
    let store: (any BackupStore)?

    var routes: [Route] {
        [
            Route(.post, "/v1/backups", scope: .admin, concernsDatabase: false, create),
            Route(.get, "/v1/backups", scope: .admin, concernsDatabase: false, list),
            Route(.get, "/v1/backups/{name}", scope: .admin, answersJSON: false, concernsDatabase: false, get),
            Route(.delete, "/v1/backups/{name}", scope: .admin, answersJSON: false, concernsDatabase: false, remove),
        ]
    }

    @Sendable func create(_ request: Request, _ context: APIContext) async throws -> Response {
        let store = try supported()
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        try body.finish()
        let backup = try await store.createBackup()
        return .json(backup.json, status: .created, headers: [.location: "/v1/backups/\(backup.name)"])
    }

    @Sendable func list(_ request: Request, _ context: APIContext) async throws -> Response {
        let store = try supported()
        var query = try QueryReader(request)
        let limit = query.limit()
        let cursor = query.cursor()
        try query.finish()
        let found = try await store.backups(before: cursor.map(Name.init(stored:)), limit: limit + 1)
        let page = found.prefix(limit)
        return try .page(
            page.map(\.json), next: found.count > limit ? page.last?.name.rawValue : nil, for: request)
    }

    /// The file itself.
    @Sendable func get(_ request: Request, _ context: APIContext) async throws -> Response {
        let store = try supported()
        let name = try context.name("name")
        try request.refuseQuery()
        let (backup, content) = try await store.openBackup(name)
        let tag = backup.entityTag.header
        var headers: HTTPFields = [
            .eTag: tag, .lastModified: backup.createdAt.httpDate, .cacheControl: "no-cache",
            .acceptRanges: "bytes",
        ]
        if try request.condition.isKnown(.present(backup.entityTag.hex, updatedAt: backup.createdAt)) {
            return Response(status: .notModified, headers: headers)
        }
        headers[.contentType] = "application/vnd.sqlite3"
        headers[.contentTypeOptions] = "nosniff"
        headers[.contentDisposition] = "attachment; filename=\"\(backup.name)\""
        if request.method == .head {
            headers[.contentLength] = String(backup.sizeBytes)
            return Response(status: .ok, headers: headers)
        }
        if let header = request.headers[.range],
            request.rangeApplies(entityTag: tag, updatedAt: backup.createdAt),
            let range = try ByteRange.parse(header, length: backup.sizeBytes)
        {
            headers[.contentRange] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(backup.sizeBytes)"
            return Response(status: .partialContent, headers: headers, body: ResponseBody(content, range))
        }
        return Response(status: .ok, headers: headers, body: ResponseBody(content, 0..<backup.sizeBytes))
    }

    @Sendable func remove(_ request: Request, _ context: APIContext) async throws -> Response {
        let store = try supported()
        let name = try context.name("name")
        try request.refuseQuery()
        try await store.deleteBackup(name, condition: request.condition)
        return Response(status: .noContent)
    }

    /// - Throws: `not_supported`.
    private func supported() throws(Failure) -> any BackupStore {
        guard let store else {
            throw Failure(.notSupported, "The storage engine in use does not make backups. Use its own tools.")
        }
        return store
    }
}
