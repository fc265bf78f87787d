// JSON in responses: answers, entities with their tags, pages.

import Crypto
import Domain
import HTTPTypes
import Hummingbird
import NIOCore

extension JSON {
    /// The entity tag of a JSON entity, computed from its text, without quotes.
    var entityTag: String { Self.entityTag(of: utf8) }

    fileprivate static func entityTag(of bytes: [UInt8]) -> String {
        // Half of the digest is enough, because only the reader of these texts could make them collide.
        EntityTag(digest: Array(SHA256.hash(data: bytes).prefix(16))).hex
    }
}

extension Response {
    /// A JSON answer.
    static func json(_ json: JSON, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response {
        var headers = headers
        headers[.contentType] = "application/json"
        return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: json.utf8)))
    }

    /// A JSON entity with a strong `ETag` computed from its text, or 304 if the caller has it.
    /// - Parameter before: the entity that conditions refer to, if the request itself changed it (RFC 9110, 13.2.1).
    /// - Throws: `precondition_failed` for an `If-Match` that names another tag.
    static func entity(_ json: JSON, before: JSON? = nil, for request: Request) throws(Failure) -> Response {
        let bytes = json.utf8
        let newTag = JSON.entityTag(of: bytes)
        let tag = before?.entityTag ?? newTag
        if try request.condition.isKnown(.present(tag)) { return unchanged(tag: tag) }
        return Response(
            status: .ok, headers: entityHeaders(tag: newTag), body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
    }

    /// A JSON entity with an `ETag` that is known without its text.
    /// - Parameter tag: without its quotes.
    static func entity(_ json: JSON, tag: String, status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status, headers: entityHeaders(tag: tag),
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: json.utf8)))
    }

    /// The answer for a caller that has the entity with this tag.
    /// - Parameter tag: without its quotes.
    static func unchanged(tag: String) -> Response {
        Response(status: .notModified, headers: entityHeaders(tag: tag).removing(.contentType))
    }

    private static func entityHeaders(tag: String) -> HTTPFields {
        [.contentType: "application/json", .eTag: "\"\(tag)\"", .cacheControl: "no-cache"]
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
