// /v1/cache/{namespace}/batch: many operations in one request.

import Crypto
import Domain
import FoundationEssentials
import HTTPTypes
import Hummingbird

/// Batches of cache operations.
struct CacheBatchRoutes: Sendable {
    let cache: any CacheStore

    var routes: [Route] { [Route(.post, "/v1/cache/{namespace}/batch", computesLong: true, batch)] }

    @Sendable func batch(_ request: Request, _ context: APIContext) async throws -> Response {
        let namespace = try context.namespace()
        try request.refuseQuery()
        var body = try await request.objectBody(context, maxBytes: Limits.maxBatchBodyBytes)
        let isAtomic = body.bool("atomic") ?? false
        let operations = operations(in: &body)
        try body.finish()
        let results = try await cache.batch(operations, namespace: namespace, atomic: isAtomic)
        let items = results.enumerated().map { index, result in
            result.json(key: operations[index].key, requestID: context.requestID)
        }
        return .json(["results": .array(items)])
    }

    /// The operations; what is wrong with any of them is reported under its place.
    private func operations(in body: inout ObjectReader) -> [CacheOperation] {
        guard case .array(let items)? = body.take("operations") else {
            body.report("operations", "must be an array of operations.")
            return []
        }
        guard items.count <= Limits.maxBatchOperations else {
            body.report("operations", "must be at most \(Limits.maxBatchOperations) operations.")
            return []
        }
        var operations: [CacheOperation] = []
        for (index, item) in items.enumerated() {
            do throws(Failure) {
                var fields = try ObjectReader(item, path: "operations[\(index)]")
                let operation = CacheOperation(fields: &fields)
                try fields.finish()
                if let operation { operations.append(operation) }
            } catch {
                body.report(error)
            }
        }
        return operations
    }
}

extension CacheOperation {
    var key: Key {
        switch self {
        case .get(let key), .delete(let key), .touch(let key, _): key
        case .set(let write): write.key
        case .increment(let increment): increment.key
        }
    }

    /// From an operation's fields; nil when something was wrong, which is then reported.
    fileprivate init?(fields: inout ObjectReader) {
        let name = fields.string("op")
        let key = fields.key()
        switch name {
        case "get":
            guard let key else { return nil }
            self = .get(key)
        case "delete":
            guard let key else { return nil }
            self = .delete(key)
        case "touch":
            let lifetime = fields.lifetime("ttl_seconds")
            guard let key else { return nil }
            self = .touch(key, lifetime)
        case "increment":
            guard let key else { return nil }
            self = .increment(CacheIncrement(key: key, body: &fields))
        case "set":
            guard let write = CacheWrite(key: key, fields: &fields) else { return nil }
            self = .set(write)
        default:
            fields.report("op", "must be one of get, set, delete, touch, increment.")
            return nil
        }
    }
}

extension ObjectReader {
    fileprivate mutating func key() -> Key? {
        guard let text = string("key") else {
            report("key", "is missing.")
            return nil
        }
        do throws(Failure) {
            return try Key(text, field: fieldPath("key"))
        } catch {
            report(error)
            return nil
        }
    }

    fileprivate mutating func tags() -> [Tag] {
        guard let names = strings("tags") else { return [] }
        do throws(Failure) {
            return try Tag.set(of: names, field: fieldPath("tags"))
        } catch {
            report(error)
            return []
        }
    }
}

extension CacheWrite {
    /// From a set's fields: the value as `json`, or as `base64` with its `content_type`.
    fileprivate init?(key: Key?, fields: inout ObjectReader) {
        let json = fields.take("json")
        let base64 = fields.string("base64")
        let type = fields.string("content_type")
        let lifetime = fields.lifetime("ttl_seconds")
        let tags = fields.tags()
        let computeSeconds = fields.decimal("compute_seconds", in: 0...Limits.maxComputeSeconds)
        if let type, !(1...Limits.maxMediaTypeBytes).contains(type.utf8.count) || !HTTPField.isValidValue(type) {
            fields.report("content_type", "must be a media type of 1 to \(Limits.maxMediaTypeBytes) bytes.")
        }
        let bytes: [UInt8]
        switch (json, base64) {
        case (let json?, nil): bytes = json.utf8
        case (nil, let base64?):
            guard let data = Data(base64Encoded: base64) else {
                fields.report("base64", "is not base64 (RFC 4648, with padding).")
                return nil
            }
            bytes = Array(data)
        default:
            fields.report("json", "send the value either as json or as base64.")
            return nil
        }
        guard let key else { return nil }
        self.init(
            key: key, content: .bytes(bytes), sizeBytes: bytes.count,
            entityTag: EntityTag(digest: Array(SHA256.hash(data: bytes))),
            description: ContentDescription(type: type ?? (json == nil ? nil : "application/json")),
            timeToLive: lifetime, tags: tags, computeSeconds: computeSeconds)
    }
}

extension CacheOperationResult {
    fileprivate func json(key: Key, requestID: String) -> JSON {
        let key = JSON.string(key.rawValue)
        switch self {
        case .value(let hit, let bytes):
            var members: [JSON.Member] = [
                .init(name: "key", value: key), .init(name: "status", value: 200),
                .init(name: "etag", value: .string(hit.entityTag.header)),
                .init(name: "content_type", value: .string(hit.description.type ?? "application/octet-stream")),
                .init(name: "expires_at", value: .optional(hit.expiresAt, JSON.instant)),
            ]
            if let encoding = hit.description.encoding {
                members.append(.init(name: "content_encoding", value: .string(encoding)))
            }
            if hit.description.encoding == nil, hit.description.type.map(MediaRange.isJSON) ?? false,
                let json = try? JSON(parsing: bytes)
            {
                members.append(.init(name: "json", value: json))
            } else {
                members.append(.init(name: "base64", value: .string(Data(bytes).base64EncodedString())))
            }
            return .object(members)
        case .stored(let outcome):
            return [
                "key": key, "status": outcome.created ? 201 : 204, "etag": .string(outcome.entityTag.header),
                "expires_at": .optional(outcome.expiresAt, JSON.instant),
            ]
        case .deleted: return ["key": key, "status": 204]
        case .touched(let metadata):
            return ["key": key, "status": 200, "expires_at": .optional(metadata.expiresAt, JSON.instant)]
        case .counted(let value): return ["key": key, "status": 200, "value": .integer(value)]
        case .failed(let failure):
            return [
                "key": key, "status": .integer(Problem.kind(of: failure.code).status.code),
                "problem": Problem.json(failure, requestID: requestID),
            ]
        }
    }
}
