// The body of an answer, held in memory instead of being sent.

import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

/// The bytes of an answer.
final class CollectedBody: Sendable {
    struct LimitExceeded: Error {}

    private let limit: Int
    private let collected = Mutex<[UInt8]>([])

    init(limit: Int) { self.limit = limit }

    var bytes: [UInt8] { collected.withLock { $0 } }

    func append(_ buffer: ByteBuffer) throws(LimitExceeded) {
        try collected.withLock { bytes throws(LimitExceeded) in
            guard bytes.count + buffer.readableBytes <= limit else { throw LimitExceeded() }
            bytes.append(contentsOf: buffer.readableBytesView)
        }
    }
}

struct CollectingWriter: ResponseBodyWriter {
    let body: CollectedBody

    mutating func write(_ buffer: ByteBuffer) async throws { try body.append(buffer) }

    consuming func finish(_ trailingHeaders: HTTPFields?) async throws {}
}
