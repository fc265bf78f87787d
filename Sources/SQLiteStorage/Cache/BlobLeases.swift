// Which large values are being read or written, so that the sweep leaves them alone.

import Synchronization

/// Blobs in use by a request. Kept in memory only: after a crash none is in use.
///
/// A reader looks up its entry first and leases the blob afterwards. In between, the entry may be replaced and the blob
/// swept. The sweep therefore condemns a blob under the same lock before it deletes it, and a reader that finds it
/// condemned looks up the entry again. Blob ids are never used twice while the process runs.
final class BlobLeases: Sendable {
    private struct State {
        var users: [Int64: Int] = [:]
        var condemned: Set<Int64> = []
    }

    private let state = Mutex(State())

    /// Keeps a blob for as long as the lease exists.
    final class Lease: Sendable {
        let blobID: Int64
        private let leases: BlobLeases

        fileprivate init(blobID: Int64, leases: BlobLeases) {
            self.blobID = blobID
            self.leases = leases
        }

        deinit { leases.release(blobID) }
    }

    /// - Returns: nil when the blob is about to be deleted.
    func lease(_ blobID: Int64) -> Lease? {
        state.withLock { state in
            if state.condemned.contains(blobID) { return nil }
            state.users[blobID, default: 0] += 1
            return Lease(blobID: blobID, leases: self)
        }
    }

    private func release(_ blobID: Int64) {
        state.withLock { state in
            state.users[blobID]! -= 1
            if state.users[blobID] == 0 { state.users[blobID] = nil }
        }
    }

    func isLeased(_ blobID: Int64) -> Bool {
        state.withLock { $0.users[blobID] != nil }
    }

    /// Prevents further leases of a blob.
    /// - Returns: whether the blob is unused; if it is in use, nothing has changed.
    func condemn(_ blobID: Int64) -> Bool {
        state.withLock { state in
            guard state.users[blobID] == nil else { return false }
            state.condemned.insert(blobID)
            return true
        }
    }

    /// Forgets a blob that has been deleted, or that was not deleted after all.
    func forget(_ blobID: Int64) {
        state.withLock { _ = $0.condemned.remove(blobID) }
    }
}
