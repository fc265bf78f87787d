// JSON in the bodies of requests.

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
}

/// The connection ended before the body did.
struct TruncatedBody: Error {}
