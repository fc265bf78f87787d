// /v1/cache/{namespace}/entries: values in and out.

import Crypto
import Domain
import HTTPTypes
import Hummingbird
import NIOCore

/// Single entries of the cache.
struct CacheRoutes: Sendable {
    let cache: any CacheStore
    let settings: LiveSettings

    var routes: [Route] {
        [
            Route(.get, "/v1/cache/{namespace}/entries/{key}", scope: .read, answersJSON: false, get),
            Route(
                .put, "/v1/cache/{namespace}/entries/{key}", scope: .write, answersJSON: false, streamsBody: true, put),
            Route(.delete, "/v1/cache/{namespace}/entries/{key}", scope: .write, answersJSON: false, delete),
            Route(.get, "/v1/cache/{namespace}/entries/{key}/metadata", scope: .read, metadata),
            Route(.post, "/v1/cache/{namespace}/entries/{key}/touch", scope: .write, touch),
            Route(.post, "/v1/cache/{namespace}/entries/{key}/increment", scope: .write, increment),
        ]
    }

    // MARK: Reading

    @Sendable func get(_ request: Request, _ context: APIContext) async throws -> Response {
        let address = try context.entryAddress()
        try request.refuseQuery()
        if request.method == .head { return try head(try await cache.metadata(address), request) }
        let hit = try await cache.read(address)
        let tag = hit.entityTag.header
        var headers = Self.headers(
            tag: tag, updatedAt: hit.updatedAt, expiresAt: hit.expiresAt, asOf: hit.asOf)
        if try request.condition.isKnown(hit.entityTag, updatedAt: hit.updatedAt) {
            return Response(status: .notModified, headers: headers)
        }
        headers.describe(hit.description)
        if let header = request.headers[.range],
            request.rangeApplies(entityTag: tag, updatedAt: hit.updatedAt),
            let range = try ByteRange.parse(header, length: hit.sizeBytes)
        {
            headers[.contentRange] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(hit.sizeBytes)"
            return Response(status: .partialContent, headers: headers, body: Self.body(of: hit, range))
        }
        return Response(status: .ok, headers: headers, body: Self.body(of: hit, 0..<hit.sizeBytes))
    }

    /// The answer of GET without the value. It is built from the metadata, so it counts neither as a look-up nor as a
    /// use.
    private func head(_ entry: CacheMetadata, _ request: Request) throws(Failure) -> Response {
        let tag = entry.entityTag.header
        var headers = Self.headers(
            tag: tag, updatedAt: entry.updatedAt, expiresAt: entry.expiresAt, asOf: entry.asOf)
        if try request.condition.isKnown(entry.entityTag, updatedAt: entry.updatedAt) {
            return Response(status: .notModified, headers: headers)
        }
        headers.describe(entry.description)
        headers[.contentLength] = String(entry.sizeBytes)
        return Response(status: .ok, headers: headers)
    }

    private static let acceptsRanges = HTTPField(name: .acceptRanges, value: "bytes")

    /// The fields a 200 and a 304 share. This is the hot path: nothing here is looked up or formatted twice.
    private static func headers(tag: String, updatedAt: Instant, expiresAt: Instant?, asOf: Instant) -> HTTPFields {
        var headers = HTTPFields()
        headers.reserveCapacity(14)
        headers.append(HTTPField(name: .eTag, value: tag))
        headers.append(HTTPField(name: .lastModified, value: updatedAt.httpDate))
        let age = max(0, asOf.milliseconds(since: updatedAt) / 1000)
        headers.append(HTTPField(name: .age, value: String(age)))
        if let expiresAt {
            let left = max(0, expiresAt.milliseconds(since: asOf) / 1000)
            headers.append(HTTPField(name: .cacheControl, value: "private, max-age=\(left)"))
            headers.append(HTTPField(name: .repriseExpiresAt, value: expiresAt.rfc3339))
            headers.append(HTTPField(name: .cacheStatus, value: "reprise; hit; ttl=\(left)"))
        } else {
            headers.append(HTTPField(name: .cacheStatus, value: "reprise; hit"))
        }
        headers.append(acceptsRanges)
        return headers
    }

    private static func body(of hit: CacheHit, _ range: Range<Int>) -> ResponseBody {
        switch hit.content {
        case .bytes(let bytes):
            return ResponseBody(
                byteBuffer: range.count == bytes.count ? ByteBuffer(bytes: bytes) : ByteBuffer(bytes: bytes[range]))
        case .large(let value): return ResponseBody(value, range)
        }
    }

    @Sendable func metadata(_ request: Request, _ context: APIContext) async throws -> Response {
        let address = try context.entryAddress()
        try request.refuseQuery()
        return try .entity(try await cache.metadata(address).json, for: request)
    }

    // MARK: Writing

    @Sendable func put(_ request: Request, _ context: APIContext) async throws -> Response {
        let address = try context.entryAddress()
        try request.refuseQuery()
        let headers = try EntryHeaders(request)
        let condition = request.condition
        let value = try await receive(request, for: address, condition: condition, context.body)
        let outcome = try await cache.write(
            CacheWrite(
                key: address.key, content: value.content, sizeBytes: value.sizeBytes, entityTag: value.entityTag,
                description: headers.description, timeToLive: headers.timeToLive, tags: headers.tags,
                computeSeconds: headers.computeSeconds, condition: condition),
            namespace: address.namespace)
        var fields: HTTPFields = [.eTag: outcome.entityTag.header]
        if let expiresAt = outcome.expiresAt { fields[.repriseExpiresAt] = expiresAt.rfc3339 }
        return Response(status: outcome.created ? .created : .noContent, headers: fields)
    }

    /// Receives the body and computes its digest. A small body is kept in memory, a larger one goes into the store
    /// chunk by chunk, so memory use does not grow with its size.
    private func receive(
        _ request: Request, for address: EntryAddress, condition: EntityCondition, _ reservation: BodyReservation?
    ) async throws -> (content: NewContent, sizeBytes: Int, entityTag: EntityTag) {
        let maxBytes = settings.current.integer(.maxEntryBytes)
        let tooLarge = Failure(
            .payloadTooLarge, "The value is larger than max_entry_bytes, \(maxBytes) bytes. Nothing was stored.")
        let declared = request.declaredLength
        if let declared, declared > maxBytes { throw tooLarge }
        var upload: (any ValueUpload)?
        if let declared, declared > Limits.maxInlineValueBytes {
            try await checkEarly(address, condition)
            upload = try await cache.beginUpload(sizeBytes: declared)
            try reservation?.take(declared)
        }

        var hasher = SHA256()
        var pending: [UInt8] = []
        pending.reserveCapacity(min(declared ?? Limits.chunkBytes, Limits.chunkBytes))
        var size = 0
        for try await var part in request.body {
            size += part.readableBytes
            guard size <= maxBytes else { throw tooLarge }
            part.withUnsafeReadableBytes { hasher.update(bufferPointer: $0) }
            while part.readableBytes > 0 {
                if pending.count == Limits.chunkBytes {
                    if upload == nil { upload = try await cache.beginUpload() }
                    if declared == nil { try reservation?.take(pending.count) }
                    try await upload!.append(pending)
                    pending = []
                    pending.reserveCapacity(Limits.chunkBytes)
                }
                let taken = part.readSlice(length: min(part.readableBytes, Limits.chunkBytes - pending.count))!
                pending.append(contentsOf: taken.readableBytesView)
            }
        }
        // Hummingbird ends the body without an error when the connection closes, so the bytes are counted.
        if let declared, size < declared { throw TruncatedBody() }
        let entityTag = EntityTag(digest: Array(hasher.finalize()))
        guard let upload else { return (.bytes(pending), size, entityTag) }
        if !pending.isEmpty { try await upload.append(pending) }
        return (.uploaded(upload), size, entityTag)
    }

    /// Refuses a write that is bound to fail before its large body is received. The write itself checks again.
    private func checkEarly(_ address: EntryAddress, _ condition: EntityCondition) async throws {
        guard condition != .none else { return }
        var current = EntityCondition.Entity.absent
        do {
            let metadata = try await cache.metadata(address)
            current = .present(metadata.entityTag.hex, updatedAt: metadata.updatedAt)
        } catch let failure as Failure where failure.code == .cacheMiss {}
        try condition.check(current)
    }

    @Sendable func delete(_ request: Request, _ context: APIContext) async throws -> Response {
        let address = try context.entryAddress()
        try request.refuseQuery()
        try await cache.delete(address, condition: request.condition)
        return Response(status: .noContent)
    }

    @Sendable func touch(_ request: Request, _ context: APIContext) async throws -> Response {
        let address = try context.entryAddress()
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        let timeToLive = body.lifetime("ttl_seconds")
        try body.finish()
        let metadata = try await cache.touch(address, timeToLive: timeToLive, condition: request.condition)
        return .json(metadata.json)
    }

    @Sendable func increment(_ request: Request, _ context: APIContext) async throws -> Response {
        let address = try context.entryAddress()
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        var increment = CacheIncrement(key: address.key, body: &body)
        try body.finish()
        increment.condition = request.condition
        let value = try await cache.increment(increment, namespace: address.namespace)
        return .json(["value": .integer(value)])
    }
}

extension EntityCondition {
    /// Whether a reader already has an entry's value. Without a condition the tag is not even formatted.
    /// - Throws: `precondition_failed`.
    fileprivate func isKnown(_ tag: EntityTag, updatedAt: Instant) throws(Failure) -> Bool {
        guard self != .none else { return false }
        return try isKnown(.present(tag.hex, updatedAt: updatedAt))
    }
}

extension HTTPFields {
    /// Appends the value's media type, and that clients must not guess another.
    fileprivate mutating func describe(_ description: ContentDescription) {
        append(HTTPField(name: .contentType, value: description.type ?? "application/octet-stream"))
        if let encoding = description.encoding { append(HTTPField(name: .contentEncoding, value: encoding)) }
        append(noSniffing)
    }
}

private let noSniffing = HTTPField(name: .contentTypeOptions, value: "nosniff")

/// What the header fields of a PUT say about the entry.
private struct EntryHeaders {
    var description: ContentDescription
    var timeToLive: TimeToLive?
    var tags: [Tag] = []
    var computeSeconds: Double?

    /// - Throws: `validation_failed` naming the header; `malformed_request` for a partial PUT.
    init(_ request: Request) throws(Failure) {
        let headers = request.headers
        if headers[.contentRange] != nil {
            // RFC 9110, section 14.5: a part must not be mistaken for the whole value.
            throw Failure(.malformedRequest, "Content-Range is not supported: PUT stores whole values.")
        }
        description = ContentDescription(
            type: headers[.contentType].nonEmpty, encoding: headers[.contentEncoding].nonEmpty)
        for (value, name) in [(description.type, "Content-Type"), (description.encoding, "Content-Encoding")] {
            guard value?.utf8.count ?? 0 <= Limits.maxMediaTypeBytes else {
                throw .invalid(name, "must be at most \(Limits.maxMediaTypeBytes) bytes.")
            }
        }
        if let text = headers[.repriseTTL] { timeToLive = try Self.lifetime(text.trimmed) }
        if let text = headers[.repriseTags] {
            tags = try Tag.set(
                of: text.split(separator: ",").map(\.trimmed).filter { !$0.isEmpty }, field: "Reprise-Tags")
        }
        if let text = headers[.repriseComputeSeconds] {
            guard let seconds = DecimalSeconds.parse(text.trimmed), seconds <= Limits.maxComputeSeconds else {
                throw .invalid(
                    "Reprise-Compute-Seconds",
                    "must be a number of seconds from 0 to \(Int(Limits.maxComputeSeconds)).")
            }
            computeSeconds = seconds
        }
    }

    private static func lifetime(_ text: String) throws(Failure) -> TimeToLive {
        if text.lowercased() == "none" { return .never }
        guard let seconds = DecimalSeconds.parse(text) else {
            throw .invalid("Reprise-TTL", "must be a positive decimal number of seconds, or 'none'.")
        }
        return try TimeToLive(seconds: seconds, field: "Reprise-TTL")
    }
}

extension String? {
    /// Also nil for an empty text: an empty header counts as absent.
    var nonEmpty: String? { self?.isEmpty == false ? self : nil }
}

extension CacheIncrement {
    /// From the fields `delta`, `initial` and `ttl_seconds`.
    init(key: Key, body: inout ObjectReader) {
        self.init(
            key: key, delta: body.integer("delta") ?? 1, initial: body.integer("initial") ?? 0,
            timeToLive: body.lifetime("ttl_seconds"))
    }
}

extension TimeToLive {
    /// Decimal seconds, or null for never.
    var json: JSON { .optional(milliseconds) { .seconds(milliseconds: $0) } }
}

extension CacheMetadata {
    var json: JSON {
        [
            "key": .string(address.key.rawValue),
            "namespace": .string(address.namespace.rawValue),
            "size_bytes": .integer(sizeBytes),
            "content_type": .string(description.type ?? "application/octet-stream"),
            "content_encoding": .optional(description.encoding, JSON.string),
            "etag": .string(entityTag.header),
            "created_at": .instant(createdAt),
            "updated_at": .instant(updatedAt),
            "expires_at": .optional(expiresAt, JSON.instant),
            "ttl_seconds": timeToLive.json,
            "expires_in_seconds": .optional(expiresAt) { .seconds(milliseconds: $0.milliseconds(since: asOf)) },
            "hit_count": .integer(hitCount),
            "last_accessed_at": .optional(lastAccessedAt, JSON.instant),
            "tags": .array(tags.map { .string($0.rawValue) }),
            "compute_seconds": .optional(computeSeconds, JSON.decimal),
        ]
    }
}
