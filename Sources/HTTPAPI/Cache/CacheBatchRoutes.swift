// /v1/cache/{namespace}/batch: many operations in one request.

import Crypto
import Domain
import FoundationEssentials
import HTTPTypes
import Hummingbird

/// Batches of cache operations.
struct CacheBatchRoutes: Sendable {
    let cache: any CacheStore

    var routes: [Route] { [Route(.post, "/v1/cache/{namespace}/batch", scope: .write, computesLong: true, batch)] }

    @Sendable func batch(_ request: Request, _ context: APIContext) async throws -> Response {
        let namespace = try context.namespace()
        try request.refuseQuery()
        var body = try await request.objectBody(
            context, maxBytes: Limits.maxBatchBodyBytes,
            bound: JSONListBound("operations", maxItems: Limits.maxBatchOperations, otherwise: Self.tooMany))
        let isAtomic = body.bool("atomic") ?? false
        let operations = operations(in: &body)
        try body.finish()
        let results = try await cache.batch(operations, namespace: namespace, atomic: isAtomic)
        let items = results.enumerated().map { index, result in
            result.json(key: operations[index].key, requestID: context.requestID)
        }
        return .json(["results": .array(items)])
    }

    private static let tooMany = Failure.invalid(
        "operations", "must be at most \(Limits.maxBatchOperations) operations.")

    /// The operations. Anything else, such as a number or an unknown `op`, is reported with its position; an error
    /// within an operation only fails that operation.
    private func operations(in body: inout ObjectReader) -> [CacheOperation] {
        guard case .array(let items)? = body.take("operations") else {
            body.report("operations", "must be an array of operations.")
            return []
        }
        var operations: [CacheOperation] = []
        for (index, item) in items.enumerated() {
            let path = "operations[\(index)]"
            guard case .object = item else {
                body.report(path, "must be a JSON object.")
                continue
            }
            guard let kind = item["op"]?.stringValue.flatMap(OperationKind.init) else {
                let kinds = OperationKind.allCases.map(\.rawValue).joined(separator: ", ")
                body.report("\(path).op", "must be one of \(kinds).")
                continue
            }
            operations.append(CacheOperation(kind, item, path: path))
        }
        return operations
    }
}

/// What an operation's `op` can be.
private enum OperationKind: String, CaseIterable {
    case get, set, delete, touch, increment
}

extension CacheOperation {
    /// From an operation's object.
    fileprivate init(_ kind: OperationKind, _ object: JSON, path: String) {
        var key: Key?
        do throws(Failure) {
            var fields = try ObjectReader(object, path: path)
            _ = fields.take("op")
            key = fields.key()
            let operation = Self.read(kind, key, &fields)
            try fields.finish()
            self = operation!
        } catch {
            self = .invalid(error, key: key)
        }
    }

    /// - Returns: nil if something is wrong, which has then been reported.
    private static func read(_ kind: OperationKind, _ key: Key?, _ fields: inout ObjectReader) -> CacheOperation? {
        switch kind {
        case .get: return key.map { .get($0) }
        case .delete:
            let condition = fields.writeCondition()
            return key.map { .delete($0, condition: condition) }
        case .touch:
            let lifetime = fields.lifetime("ttl_seconds")
            let condition = fields.writeCondition()
            return key.map { .touch($0, lifetime, condition: condition) }
        case .increment:
            // Read even without a key, so that all errors are reported.
            var increment = CacheIncrement(key: key ?? Key(stored: ""), body: &fields)
            increment.condition = fields.writeCondition()
            return key == nil ? nil : .increment(increment)
        case .set: return CacheWrite(key: key, fields: &fields).map { .set($0) }
        }
    }
}

extension ObjectReader {
    fileprivate mutating func key() -> Key? {
        guard isPresent("key") else {
            _ = take("key")
            report("key", "is missing.")
            return nil
        }
        guard let text = string("key") else { return nil }
        do throws(Failure) {
            return try Key(text, field: fieldPath("key"))
        } catch {
            report(error)
            return nil
        }
    }

    /// The condition in `if_match` and `if_none_match`.
    fileprivate mutating func writeCondition() -> EntityCondition {
        EntityCondition(
            match: entityTags("if_match"), noneMatch: entityTags("if_none_match"))
    }

    /// `*`, a tag as in the `etag` of an answer, or an array of such tags.
    private mutating func entityTags(_ field: String) -> EntityCondition.Tags? {
        guard let json = take(field), json != .null else { return nil }
        let texts: [String?]
        switch json {
        case .string("*"): return .any
        case .array(let items): texts = items.map(\.stringValue)
        default: texts = [json.stringValue]
        }
        let tags = texts.compactMap { $0 }.filter(\.isEntityTag)
        guard !tags.isEmpty, tags.count == texts.count else {
            report(field, "must be \"*\", a tag with its quotes as in etag, or an array of such tags.")
            return nil
        }
        return EntityCondition.Tags(header: tags.joined(separator: ", "))
    }

    /// A field that becomes the value of a header field when the entry is read.
    fileprivate mutating func headerValue(_ field: String, _ what: String) -> String? {
        guard let value = string(field) else { return nil }
        guard (1...Limits.maxMediaTypeBytes).contains(value.utf8.count), HTTPField.isValidValue(value) else {
            report(field, "must be \(what) of 1 to \(Limits.maxMediaTypeBytes) bytes.")
            return nil
        }
        return value
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

extension String {
    /// Whether it is an entity tag with its quotes, weak or strong (RFC 9110, section 8.8.3).
    fileprivate var isEntityTag: Bool {
        let quoted = hasPrefix("W/") ? dropFirst(2) : self[...]
        let quote = UInt8(ascii: "\"")
        return quoted.utf8.count >= 2 && quoted.utf8.first == quote && quoted.utf8.last == quote
            && quoted.utf8.dropFirst().dropLast().allSatisfy { $0 > 0x20 && $0 != quote && $0 != 0x7F }
    }
}

extension CacheWrite {
    /// From a set's fields: the value as `json`, or as `base64`, with its `content_type` and `content_encoding`.
    fileprivate init?(key: Key?, fields: inout ObjectReader) {
        let json = fields.take("json")
        let isBase64Sent = fields.isPresent("base64")
        let base64 = fields.string("base64")
        let type = fields.headerValue("content_type", "a media type")
        let encoding = fields.headerValue("content_encoding", "a content coding")
        let lifetime = fields.lifetime("ttl_seconds")
        let tags = fields.tags()
        let computeSeconds = fields.decimal("compute_seconds", in: 0...Limits.maxComputeSeconds)
        let condition = fields.writeCondition()
        let bytes: [UInt8]
        switch (json, base64) {
        case (let json?, nil): bytes = json.utf8
        case (nil, let base64?):
            guard let decoded = Base64.decode(base64) else {
                fields.report("base64", Base64.complaint)
                return nil
            }
            bytes = decoded
        default:
            if json != nil || !isBase64Sent {
                fields.report(
                    "json",
                    json == nil ? "is missing: send the value as json or as base64." : "excludes base64: send one.")
            }
            return nil
        }
        guard let key else { return nil }
        self.init(
            key: key, content: .bytes(bytes), sizeBytes: bytes.count,
            entityTag: EntityTag(digest: Array(SHA256.hash(data: bytes))),
            description: ContentDescription(
                type: type ?? (json == nil ? nil : "application/json"), encoding: encoding),
            timeToLive: lifetime, tags: tags, computeSeconds: computeSeconds, condition: condition)
    }
}

extension CacheOperationResult {
    /// - Parameter key: null if the operation has no valid one.
    fileprivate func json(key: Key?, requestID: String) -> JSON {
        let key = JSON.optional(key) { .string($0.rawValue) }
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
                JSON.isValid(bytes)
            {
                members.append(.init(name: "json", value: .verbatim(JSONText(stored: bytes))))
            } else {
                members.append(.init(name: "base64", value: .string(Data(bytes).base64EncodedString())))
            }
            return .object(members)
        case .stored(let outcome):
            return [
                "key": key, "status": outcome.created ? 201 : 204, "etag": .string(outcome.entityTag.header),
                "expires_at": .optional(outcome.expiresAt, JSON.instant),
            ]
        case .deleted(let removed): return ["key": key, "status": 204, "removed": .bool(removed)]
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
