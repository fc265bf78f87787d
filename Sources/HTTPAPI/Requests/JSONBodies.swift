// JSON in and out of requests and responses.

import Crypto
import Domain
import HTTPTypes
import Hummingbird
import NIOCore

extension Request {
    /// The body as a JSON object's fields; without a body, as if it were `{}`.
    /// - Throws: `unsupported_media_type`, `payload_too_large`, `malformed_json`, `validation_failed`.
    func objectBody(_ context: APIContext, maxBytes: Int = Limits.maxJSONBodyBytes) async throws -> ObjectReader {
        try requireJSONContentType()
        let bytes = try await collectBytes(maxBytes: maxBytes, context)
        return try ObjectReader(bytes.readableBytes == 0 ? [:] : JSON(parsing: bytes.readableBytesView))
    }

    /// The body as one JSON value of any kind.
    /// - Throws: `unsupported_media_type`, `payload_too_large`, `malformed_json`, also for an empty body.
    func jsonBody(_ context: APIContext, maxBytes: Int = Limits.maxJSONBodyBytes) async throws -> JSON {
        try requireJSONContentType()
        return try JSON(parsing: try await collectBytes(maxBytes: maxBytes, context).readableBytesView)
    }

    /// `application/json`, a `+json` type, or none at all.
    private func requireJSONContentType() throws(Failure) {
        guard let value = headers[.contentType] else { return }
        guard MediaRange.isJSON(value) else {
            throw Failure(.unsupportedMediaType, "The body must be JSON: send Content-Type: application/json.")
        }
        try requireIdentityEncoding()
    }

    /// - Throws: `unsupported_media_type`.
    func requireIdentityEncoding() throws(Failure) {
        if let encoding = headers[.contentEncoding], encoding.lowercased() != "identity" {
            throw Failure(.unsupportedMediaType, "A JSON body must be sent without Content-Encoding.")
        }
    }

    /// - Throws: `payload_too_large` as soon as that is known; `overloaded`.
    func collectBytes(maxBytes: Int, _ context: APIContext) async throws -> ByteBuffer {
        let tooLarge = Failure(.payloadTooLarge, "The body is larger than the \(maxBytes) bytes allowed here.")
        let declared = declaredLength
        if let declared, declared > maxBytes { throw tooLarge }
        var collected = ByteBuffer()
        for try await var part in body {
            guard collected.readableBytes + part.readableBytes <= maxBytes else { throw tooLarge }
            try context.body.add(part.readableBytes)
            collected.writeBuffer(&part)
        }
        if let declared, collected.readableBytes < declared { throw TruncatedBody() }
        return collected
    }

    /// `Content-Length`, which the HTTP parser has checked.
    var declaredLength: Int? { headers[.contentLength].flatMap { Int($0) } }

    /// - Throws: `not_acceptable` when the caller takes no JSON.
    func requireJSONAccepted() throws(Failure) {
        guard let accept = headers[.accept] else { return }
        guard MediaRange.accepts(accept, type: "application", subtype: "json") else {
            throw Failure(.notAcceptable, "The answer is application/json, which the Accept header excludes.")
        }
    }
}

extension Request {
    fileprivate static let entityChanged = Failure(
        .preconditionFailed, "The resource does not meet the request's condition. Nothing was changed.")

    /// The `ETag` of a JSON entity.
    fileprivate static func entityTag(of bytes: [UInt8]) -> String {
        EntityTag(digest: Array(SHA256.hash(data: bytes).prefix(16))).header
    }

    /// Checks `If-Match` and `If-None-Match` of a change to a JSON entity.
    /// - Parameter current: the entity as GET would answer it; nil when there is none.
    /// - Throws: `precondition_failed`.
    func requireCondition(of current: JSON?) throws(Failure) {
        let tag = current.map { Self.entityTag(of: $0.utf8) }
        func matches(_ list: EntityTagList) -> Bool { tag.map { list.contains(opaque: $0, weakly: false) } ?? false }
        if let list = EntityTagList(headers, .ifMatch), !matches(list) { throw Self.entityChanged }
        if let list = EntityTagList(headers, .ifNoneMatch), matches(list) { throw Self.entityChanged }
    }

    /// For writes to what no tag lasts for: a session as a whole, which changes with each look, and collections. A
    /// condition that names one does not hold.
    /// - Throws: `precondition_failed`.
    func refuseTagCondition() throws(Failure) {
        if let list = EntityTagList(headers, .ifMatch), !list.isAny { throw Self.entityChanged }
    }

    /// Whether there is anything for ``requireCondition(of:)`` to check.
    var hasCondition: Bool { headers[.ifMatch] != nil || headers[.ifNoneMatch] != nil }
}

/// The connection ended before the body did.
struct TruncatedBody: Error {}

extension Response {
    /// A JSON answer.
    static func json(_ json: JSON, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response {
        var headers = headers
        headers[.contentType] = "application/json"
        return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: json.utf8)))
    }

    /// A JSON entity: with a strong `ETag` over its text, and 304 for a caller who has it.
    /// - Parameter before: what conditions are about, where the request itself changed the entity (RFC 9110, 13.2.1).
    /// - Throws: `precondition_failed` for an `If-Match` that names another.
    static func entity(_ json: JSON, before: JSON? = nil, for request: Request) throws(Failure) -> Response {
        let bytes = json.utf8
        let newTag = Request.entityTag(of: bytes)
        let tag = before.map { Request.entityTag(of: $0.utf8) } ?? newTag
        if let sent = EntityTagList(request.headers, .ifMatch), !sent.contains(opaque: tag, weakly: false) {
            throw Request.entityChanged
        }
        if let sent = EntityTagList(request.headers, .ifNoneMatch), sent.contains(opaque: tag, weakly: true) {
            return unchanged(tag: tag)
        }
        return Response(
            status: .ok, headers: entityHeaders(tag: newTag), body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
    }

    /// A JSON entity whose `ETag` is known without its text.
    /// - Parameter tag: with its quotes.
    static func entity(_ json: JSON, tag: String, status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status, headers: entityHeaders(tag: tag),
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: json.utf8)))
    }

    /// For a caller who has the entity with this `ETag`.
    static func unchanged(tag: String) -> Response {
        Response(status: .notModified, headers: entityHeaders(tag: tag).removing(.contentType))
    }

    private static func entityHeaders(tag: String) -> HTTPFields {
        [.contentType: "application/json", .eTag: tag, .cacheControl: "no-cache"]
    }

    /// A page of a collection.
    static func page(_ items: [JSON], next: String?, for request: Request) throws(Failure) -> Response {
        try entity(
            ["items": .array(items), "next_cursor": .optional(next) { .string(Cursor.encode($0)) }], for: request)
    }
}

extension HTTPFields {
    func removing(_ name: HTTPField.Name) -> HTTPFields {
        var fields = self
        fields[name] = nil
        return fields
    }
}

/// Media types as `Content-Type` and `Accept` name them (RFC 9110, sections 8.3.1 and 12.5.1).
enum MediaRange {
    static func isJSON(_ value: String) -> Bool {
        let type = essence(of: value[...])
        // A JSON Patch (RFC 6902) is a list of changes: taken as data it would replace what it was to change.
        guard type != "application/json-patch+json" else { return false }
        return type == "application/json" || (type.hasPrefix("application/") && type.hasSuffix("+json"))
    }

    /// One JSON text in each line.
    static func isLines(_ value: String) -> Bool {
        ["application/x-ndjson", "application/ndjson", "application/jsonl"].contains(essence(of: value[...]))
    }

    /// Whether the most specific range in `accept` that covers a type has a weight above 0.
    static func accepts(_ accept: String, type: String, subtype: String) -> Bool {
        weight(of: type, subtype, in: accept) > 0
    }

    /// Whether `accept` names a type itself, and JSON is not wanted more.
    static func prefers(_ accept: String, type: String, subtype: String) -> Bool {
        let isNamed = accept.split(separator: ",").contains { essence(of: $0) == "\(type)/\(subtype)" }
        guard isNamed else { return false }
        let weight = weight(of: type, subtype, in: accept)
        return weight > 0 && weight >= Self.weight(of: "application", "json", in: accept)
    }

    /// The weight of the most specific range that covers a type; 0 when none does.
    private static func weight(of type: String, _ subtype: String, in accept: String) -> Double {
        var best = (specificity: -1, weight: 0.0)
        for part in accept.split(separator: ",") {
            let essence = essence(of: part)
            let specificity =
                switch essence {
                case "\(type)/\(subtype)": 2
                case "\(type)/*": 1
                case "*/*", "*": 0
                default: -1
                }
            guard specificity > best.specificity else { continue }
            best = (specificity, weight(of: part))
        }
        return best.weight
    }

    private static func essence(of value: Substring) -> String {
        let end = value.firstIndex(of: ";") ?? value.endIndex
        return value[..<end].trimmed.lowercased()
    }

    private static func weight(of part: Substring) -> Double {
        for parameter in part.split(separator: ";").dropFirst() {
            let pair = parameter.trimmed.lowercased()
            if pair.hasPrefix("q=") { return Double(pair.dropFirst(2)) ?? 0 }
        }
        return 1
    }
}

extension StringProtocol {
    /// Without blanks and tabs at its ends.
    var trimmed: String {
        let isBlank = { (c: Character) in c == " " || c == "\t" }
        return String(drop(while: isBlank).reversed().drop(while: isBlank).reversed())
    }
}
