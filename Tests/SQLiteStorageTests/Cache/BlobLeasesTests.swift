// Leases on large values.

import Testing

@testable import SQLiteStorage

struct BlobLeasesTests {
    private let leases = BlobLeases()

    @Test func whatIsUsedIsNotCondemned() {
        var first: BlobLeases.Lease? = leases.lease(1)
        let second = leases.lease(1)
        #expect(!leases.condemn(1))
        #expect(leases.condemn(2))
        #expect(first?.blobID == 1)
        first = nil
        #expect(!leases.condemn(1))
        withExtendedLifetime(second) {}
    }

    @Test func whatIsCondemnedCannotBeUsedUntilItIsGone() {
        #expect(leases.condemn(1))
        #expect(leases.lease(1) == nil)
        leases.forget(1)
        #expect(leases.lease(1) != nil)
    }

    @Test func aLeaseEndsWithItsHolder() {
        var lease = leases.lease(1)
        #expect(leases.isLeased(1))
        #expect(lease != nil)
        lease = nil
        #expect(!leases.isLeased(1))
    }
}
