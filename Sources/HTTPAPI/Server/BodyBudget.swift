// Bounds the total size of JSON bodies in memory.

import Domain
import Synchronization

/// The bytes of one request's body, released when the request is answered.
final class BodyReservation: Sendable {
    private static let held = Atomic(0)
    private let bytes = Atomic(0)

    /// Takes `count` more bytes.
    /// - Throws: `overloaded` when all requests together would hold more than ``Limits/maxHeldBodyBytes``.
    func add(_ count: Int) throws(Failure) {
        guard Self.held.wrappingAdd(count, ordering: .relaxed).newValue <= Limits.maxHeldBodyBytes else {
            Self.held.wrappingSubtract(count, ordering: .relaxed)
            throw .overloaded("Too many large bodies are being processed.")
        }
        bytes.wrappingAdd(count, ordering: .relaxed)
    }

    deinit { Self.held.wrappingSubtract(bytes.load(ordering: .relaxed), ordering: .relaxed) }
}
