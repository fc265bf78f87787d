// The field Idempotency-Key, and the digests by which requests are compared.

import Crypto
import Domain
import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

/// A caller's name for one request, which it keeps when it sends the request again.
enum IdempotencyKey {
    /// Sent in a request.
    case sent(String)
    /// Of a request without its own in a batch that has one.
    case derived(KeyedBatch, position: Int)

    /// - Returns: nil without a key.
    /// - Throws: `malformed_request`.
    init?(_ request: Request, _ context: APIContext) throws(Failure) {
        let sent = request.headers[fields: .idempotencyKey]
        if sent.isEmpty {
            guard let batch = context.keyedBatch else { return nil }
            self = .derived(batch, position: context.batchPosition)
            return
        }
        guard sent.count == 1, let key = sent.first?.value,
            (1...Limits.maxIdempotencyKeyBytes).contains(key.utf8.count),
            key.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
        else {
            throw Failure(
                .malformedRequest,
                "Idempotency-Key must be sent once, with 1 to \(Limits.maxIdempotencyKeyBytes) visible ASCII "
                    + "characters. A new random UUID for each request is a good choice.")
        }
        self = .sent(key)
    }

    /// Of the key together with whose and where it is.
    func digest(_ request: Request, _ context: APIContext) -> [UInt8] {
        let parts = [context.identity.digested, request.method.rawValue, request.head.path ?? ""]
        return switch self {
        case .sent(let key): Self.digest((parts + [key]).map { Array($0.utf8) })
        case .derived(let batch, let position):
            Self.digest(parts.map { Array($0.utf8) } + [Array("\(position)".utf8), batch.digest])
        }
    }

    /// Of what a request sends, as far as it decides what the request does.
    static func contentDigest(_ headers: HTTPFields, _ body: ByteBuffer) -> [UInt8] {
        let type = Array((headers[.contentType] ?? "").utf8)
        let encoding = Array((headers[.contentEncoding] ?? "").utf8)
        return digest([type, encoding], Array(body.readableBytesView))
    }

    /// Each part with its length, so that different parts never make the same text.
    private static func digest(_ parts: [[UInt8]], _ last: [UInt8] = []) -> [UInt8] {
        var hasher = SHA256()
        for part in parts + [last] {
            withUnsafeBytes(of: UInt64(part.count).littleEndian) { hasher.update(bufferPointer: $0) }
            part.withUnsafeBytes { hasher.update(bufferPointer: $0) }
        }
        return hasher.finalize().withUnsafeBytes { Array($0) }
    }
}

/// A batch with a key, whose requests without their own have keys derived from it.
final class KeyedBatch: Sendable {
    /// Of its key.
    let digest: [UInt8]
    /// Whether the answer to one of its requests must not be kept.
    let hasSecret = Atomic(false)

    init(digest: [UInt8]) { self.digest = digest }
}

extension AccessControl.Identity {
    /// Tells callers apart. A token's id is never used again.
    fileprivate var digested: String {
        switch self {
        case .anyone: "anyone"
        case .configuredAdmin: "admin_token"
        case .token(let token): "token \(token.id)"
        }
    }
}

extension HTTPField.Name {
    static let idempotencyKey = HTTPField.Name("Idempotency-Key")!
    static let idempotencyReplayed = HTTPField.Name("Idempotency-Replayed")!
}
