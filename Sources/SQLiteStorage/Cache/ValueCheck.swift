// Whether a value that is read is the one that was stored.

import Crypto
import Domain
import Logging
import Synchronization

/// Compares values with the SHA-256 that was computed when they were stored, so that a damaged file or disk is noticed,
/// and never served under an `ETag` of something else.
///
/// A small value is checked on each read: that takes a microsecond or two. A larger one is checked when it is first
/// read, and on one of ``StorageLimits/readsPerRepeatedCheck`` later reads.
final class ValueCheck: Sendable {
    private struct State {
        /// The beginnings of digests of values that were right, each in the place that the next two bytes give it. An
        /// entry that was displaced is checked again.
        var right = [UInt64](repeating: 0, count: ValueCheck.places)
        var reads = 0
        var loggedAt: Int64?
    }

    private static let places = 1 << 13

    private let state = Mutex(State())
    private let damaged = Atomic(0)
    private let logger: Logger

    init(logger: Logger) { self.logger = logger }

    /// Values that were found to be damaged.
    var damagedCount: Int { damaged.load(ordering: .relaxed) }

    /// Whether a value is to be checked on this read.
    func isDue(sizeBytes: Int, digest: [UInt8]) -> Bool {
        if sizeBytes <= StorageLimits.alwaysCheckedBytes { return true }
        let (mark, place) = Self.mark(of: digest)
        return state.withLock { state in
            state.reads &+= 1
            return state.right[place] != mark || state.reads % StorageLimits.readsPerRepeatedCheck == 0
        }
    }

    /// - Throws: `database_damaged` if the value is not what was stored.
    func require(_ bytes: [UInt8], toBe digest: [UInt8], entryID: Int64) throws(Failure) {
        guard isDue(sizeBytes: bytes.count, digest: digest) else { return }
        try require(SHA256.hash(data: bytes), toBe: digest, sizeBytes: bytes.count, entryID: entryID)
    }

    /// - Throws: `database_damaged` if the digests differ.
    func require(
        _ found: SHA256Digest, toBe digest: [UInt8], sizeBytes: Int, entryID: Int64
    ) throws(Failure) {
        guard found.elementsEqual(digest) else {
            report(entryID)
            throw .valueDamaged
        }
        guard sizeBytes > StorageLimits.alwaysCheckedBytes else { return }
        let (mark, place) = Self.mark(of: digest)
        state.withLock { $0.right[place] = mark }
    }

    /// Counts a damaged value; logs at most one a minute.
    private func report(_ entryID: Int64) {
        let count = damaged.wrappingAdd(1, ordering: .relaxed).newValue
        let now = monotonicMilliseconds()
        let mustLog = state.withLock { state in
            if let loggedAt = state.loggedAt, now - loggedAt < StorageLimits.shortageReminderMilliseconds {
                return false
            }
            state.loggedAt = now
            return true
        }
        guard mustLog else { return }
        logger.critical(
            "a stored value is damaged: its bytes do not have the SHA-256 they were stored with",
            metadata: ["entry_id": "\(entryID)", "damaged_reads": "\(count)"])
    }

    private static func mark(of digest: [UInt8]) -> (mark: UInt64, place: Int) {
        digest.withUnsafeBytes { bytes in
            guard bytes.count >= 10 else { return (0, 0) }
            return (
                bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self),
                Int(bytes.loadUnaligned(fromByteOffset: 8, as: UInt16.self)) % places
            )
        }
    }
}

/// The check of a large value that is read chunk by chunk, from its beginning to its end.
final class StreamedCheck: Sendable {
    private let check: ValueCheck
    private let entryID: Int64
    private let digest: [UInt8]
    private let sizeBytes: Int
    /// nil once the value is not read in order: only a part of it is wanted.
    private let progress = Mutex<(hasher: SHA256, bytes: Int)?>((SHA256(), 0))

    init(_ check: ValueCheck, entryID: Int64, digest: [UInt8], sizeBytes: Int) {
        self.check = check
        self.entryID = entryID
        self.digest = digest
        self.sizeBytes = sizeBytes
    }

    /// Takes the next chunk into account, before it is passed on.
    /// - Throws: `database_damaged` with the last chunk if the value is not what was stored.
    func add(_ bytes: [UInt8], from offset: Int) throws(Failure) {
        let found: SHA256Digest? = progress.withLock { progress in
            guard var (hasher, count) = progress, count == offset else {
                progress = nil
                return nil
            }
            hasher.update(data: bytes)
            count += bytes.count
            progress = (hasher, count)
            return count == sizeBytes ? hasher.finalize() : nil
        }
        if let found { try check.require(found, toBe: digest, sizeBytes: sizeBytes, entryID: entryID) }
    }
}

extension Failure {
    static let valueDamaged = Failure(
        .databaseDamaged,
        "The stored value is damaged: it does not have the SHA-256 it was stored with. Store it again or delete it. "
            + "The server's operator must check the disk and the rest of the database.")
}
