// Bounds what bodies take, for all requests together and for each caller: the memory of JSON (docs/design/json.md), and
// the disk space of uploads.

import Domain
import NIOCore
import Synchronization

/// The memory that JSON bodies and their parsed forms may take, and what unfinished uploads may.
///
/// Short bodies have a share of their own, so that long ones never keep them out. Within a share, a caller may hold as
/// much as is left free (dynamic thresholds: Choudhury and Hahne, 1998). One caller gets up to a half, two get a third
/// each, and whoever comes next always finds something.
final class BodyBudget: Sendable {
    /// For bodies of at most ``Limits/maxShortBodyBytes``.
    let short: Share
    /// For longer ones, and for those of unknown length.
    let long: Share
    /// For values that are passed on to the store in chunks: what they take there until they are complete.
    let uploads: Share

    /// - Parameters:
    ///   - short: bytes that all short bodies may take together.
    ///   - long: bytes that all other bodies may take together.
    ///   - uploads: bytes that all unfinished uploads may have sent together. A single value may have half of it.
    init(
        short: Int = Limits.maxHeldShortBodyBytes, long: Int = Limits.maxHeldLongBodyBytes,
        uploads: @escaping @Sendable () -> Int = { Limits.maxUnfinishedUploadBytes }
    ) {
        self.short = Share { short }
        self.long = Share { long }
        self.uploads = Share(capacity: uploads)
    }

    final class Share: Sendable {
        private struct Held {
            var total = 0
            var byCaller: [Caller: Int] = [:]
        }

        private let capacity: @Sendable () -> Int
        private let held = Mutex(Held())

        fileprivate init(capacity: @escaping @Sendable () -> Int) { self.capacity = capacity }

        /// Bytes held now, by all callers.
        var heldBytes: Int { held.withLock { $0.total } }

        /// Takes `count` bytes for a body of which `already` are taken.
        /// - Throws: `payload_too_large` for a body that could not be held even if it were the only one; `overloaded`
        ///   when there is no room for it now.
        fileprivate func take(_ count: Int, already: Int, for caller: Caller) throws(Failure) {
            let capacity = capacity()
            guard already + count <= capacity / 2 else {
                throw Failure(
                    .payloadTooLarge,
                    "The body would take more than \(capacity / 2) bytes of memory when parsed. Send it in parts.")
            }
            try held.withLock { held throws(Failure) in
                let own = held.byCaller[caller, default: 0] + count
                guard own <= capacity - held.total - count else {
                    throw .overloaded("Too many request bodies are in progress, in total or from this address.")
                }
                held.total += count
                held.byCaller[caller] = own
            }
        }

        fileprivate func giveBack(_ count: Int, for caller: Caller) {
            held.withLock { held in
                held.total -= count
                let own = held.byCaller[caller, default: 0] - count
                held.byCaller[caller] = own > 0 ? own : nil
            }
        }
    }
}

/// What one request's body takes, given back when the request is answered.
final class BodyReservation: Sendable {
    private let share: BodyBudget.Share
    private let caller: Caller
    private let bytes = Atomic(0)

    init(_ share: BodyBudget.Share, for caller: Caller) {
        self.share = share
        self.caller = caller
    }

    /// Gives back part of it.
    func release(_ count: Int) {
        guard count > 0 else { return }
        bytes.wrappingSubtract(count, ordering: .relaxed)
        share.giveBack(count, for: caller)
    }

    deinit { release(bytes.load(ordering: .relaxed)) }
}

extension BodyReservation: JSONMemory {
    /// Takes `count` more bytes.
    /// - Throws: `payload_too_large`, `overloaded`.
    func take(_ count: Int) throws(Failure) {
        try share.take(count, already: bytes.load(ordering: .relaxed), for: caller)
        bytes.wrappingAdd(count, ordering: .relaxed)
    }
}

/// Whom a connection comes from, as far as shares of memory go: its IPv4 address, its IPv6 network (a host usually has
/// a /64 to itself), or this machine over a Unix domain socket.
enum Caller: Hashable, Sendable {
    case v4(UInt32)
    case v6(UInt64)
    case local

    init(_ address: SocketAddress?) {
        switch address {
        // The offsets are those of sin_addr and sin6_addr, which NIO does not export.
        case .v4(let address):
            self = .v4(withUnsafeBytes(of: address.address) { $0.loadUnaligned(fromByteOffset: 4, as: UInt32.self) })
        case .v6(let address):
            let bytes = withUnsafeBytes(of: address.address) { Array($0[8..<24]) }
            // An IPv4 client of a socket that serves both: ::ffff:a.b.c.d.
            if bytes[..<10].allSatisfy({ $0 == 0 }), bytes[10] == 0xFF, bytes[11] == 0xFF {
                self = .v4(bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 12, as: UInt32.self) })
            } else {
                self = .v6(bytes.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) })
            }
        case .unixDomainSocket, nil: self = .local
        }
    }
}
