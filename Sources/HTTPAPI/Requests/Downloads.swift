// How much memory each large value may take while it is sent.

import Domain
import Synchronization

/// The large values that are being sent.
///
/// A client that does not read what it asked for keeps about three parts in memory: what the system does not take of
/// the first, the second, which waits, and what precedes them. Thousands of such clients must not fill memory, so parts
/// get smaller the more values are being sent. To read a part costs about the same whatever its size, so all of them
/// get slower then.
final class Downloads: Sendable {
    /// Those of the process, whose memory it is.
    static let all = Downloads()

    private let count = Atomic(0)

    /// Runs `body` as one of them.
    func counting<T>(_ body: () async throws -> T) async rethrows -> T {
        count.wrappingAdd(1, ordering: .relaxed)
        defer { count.wrappingSubtract(1, ordering: .relaxed) }
        return try await body()
    }

    /// Size of the next part, in bytes.
    var partBytes: Int { Self.partBytes(beside: count.load(ordering: .relaxed)) }

    /// - Parameter count: values that are being sent, this one included.
    static func partBytes(beside count: Int) -> Int {
        switch count {
        case ...Limits.fewDownloads: Limits.chunkBytes
        case ...Limits.manyDownloads: Limits.chunkBytes / 4
        default: Limits.chunkBytes / 16
        }
    }
}
