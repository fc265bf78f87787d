// JSON in the bodies of requests.

import Domain
import HTTPTypes
import Hummingbird
import NIOCore

extension Request {
    /// The body as a JSON object's fields; without a body, as if it were `{}`.
    /// - Throws: `unsupported_media_type`, `payload_too_large`, `malformed_json`, `validation_failed`, `overloaded`,
    ///   `request_timeout`; what `bound` throws.
    func objectBody(
        _ context: APIContext, maxBytes: Int = Limits.maxJSONBodyBytes, bound: JSONListBound? = nil
    ) async throws -> ObjectReader {
        try requireJSONContentType()
        let bytes = try await collectBytes(maxBytes: maxBytes, context)
        return try ObjectReader(bytes.readableBytes == 0 ? [:] : json(in: bytes, context, bound: bound))
    }

    /// The body as one JSON value of any kind.
    /// - Throws: as ``objectBody(_:maxBytes:bound:)``; `malformed_json` also for an empty body.
    func jsonBody(
        _ context: APIContext, maxBytes: Int = Limits.maxJSONBodyBytes, bound: JSONListBound? = nil
    ) async throws -> JSON {
        try requireJSONContentType()
        return try json(in: try await collectBytes(maxBytes: maxBytes, context), context, bound: bound)
    }

    /// Parses a collected body, whose own bytes are freed with it.
    private func json(
        in bytes: consuming ByteBuffer, _ context: APIContext, bound: JSONListBound?
    ) throws(Failure) -> JSON {
        let json = try JSON(parsing: bytes.readableBytesView, memory: context.body, bound: bound)
        context.body?.release(bytes.readableBytes)
        return json
    }

    /// `application/json` or a `+json` type. A body must have one, because a page of another site can send a body
    /// without a type, or with some types, and no browser asks first.
    private func requireJSONContentType() throws(Failure) {
        guard headers[.contentType] != nil || hasBody else { return }
        guard let value = headers[.contentType], MediaRange.isJSON(value) else {
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

    /// - Throws: `payload_too_large` as soon as that is known; `overloaded`; `request_timeout` for a body that arrives
    ///   too slowly.
    func collectBytes(maxBytes: Int, _ context: APIContext) async throws -> ByteBuffer {
        let tooLarge = Failure(.payloadTooLarge, "The body is larger than the \(maxBytes) bytes allowed here.")
        let declared = declaredLength
        if let declared, declared > maxBytes { throw tooLarge }
        var collected = ByteBuffer()
        for try await var part in body {
            guard collected.readableBytes + part.readableBytes <= maxBytes else { throw tooLarge }
            try context.body?.take(part.readableBytes)
            if collected.readableBytes == 0 { collected = part } else { collected.writeBuffer(&part) }
        }
        if let declared, collected.readableBytes < declared { throw TruncatedBody() }
        return collected
    }

    /// `Content-Length`, which the HTTP parser has checked.
    var declaredLength: Int? { headers[.contentLength].flatMap { Int($0) } }

    /// Whether a body follows the head (RFC 9112, section 6.3).
    var hasBody: Bool { declaredLength.map { $0 > 0 } ?? (headers[.transferEncoding] != nil) }
}

/// The connection ended before the body did.
struct TruncatedBody: Error {}
