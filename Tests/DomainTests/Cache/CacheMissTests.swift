// Which removal explains a miss.

import Domain
import Testing

struct CacheMissTests {
    private static let now = Instant(milliseconds: 1_800_000_000_000)

    private static func ago(_ milliseconds: Int64) -> Instant { now.advanced(milliseconds: -milliseconds) }

    /// The reasons in the contract, in its order; each kind of removal has its own.
    @Test func thereIsAReasonForEachWayOut() {
        #expect(MissReason.allCases.map(\.rawValue) == ["absent", "expired", "evicted", "deleted", "cleared"])
        #expect(RemovalReason.allCases.map(\.missReason) == Array(MissReason.allCases.dropFirst()))
        for reason in RemovalReason.allCases { #expect(reason.rawValue == reason.missReason.rawValue) }
    }

    @Test func nothingKnownIsAbsent() {
        let miss = CacheMiss(after: [], now: Self.now)
        #expect(miss == .absent)
        #expect(miss.removedAt == nil)
    }

    @Test func theLatestRemovalExplains() {
        let removals = [
            EntryRemoval(.cleared, at: Self.ago(30)), EntryRemoval(.deleted, at: Self.ago(10)),
            EntryRemoval(.expired, at: Self.ago(20)),
        ]
        for order in [removals, removals.reversed()] {
            let miss = CacheMiss(after: order, now: Self.now)
            #expect((miss.reason, miss.removedAt) == (.deleted, Self.ago(10)))
        }
    }

    @Test func aDayLaterItIsForgotten() {
        for (age, reason) in [
            (Limits.removalMemoryMilliseconds, MissReason.evicted),
            (Limits.removalMemoryMilliseconds + 1, .absent),
        ] {
            #expect(CacheMiss(after: [EntryRemoval(.evicted, at: Self.ago(age))], now: Self.now).reason == reason)
        }
    }

    @Test func whatCameFirstRemovedTheEntryOfAClearedNamespace() {
        let clear = Self.ago(100)
        #expect(EntryRemoval(clearedAt: clear, expiry: nil) == EntryRemoval(.cleared, at: clear))
        #expect(EntryRemoval(clearedAt: clear, expiry: Self.ago(99)) == EntryRemoval(.cleared, at: clear))
        #expect(EntryRemoval(clearedAt: clear, expiry: clear) == EntryRemoval(.expired, at: clear))
        #expect(EntryRemoval(clearedAt: clear, expiry: Self.ago(101)) == EntryRemoval(.expired, at: Self.ago(101)))
    }

    /// The text for people says the same as the fields for programs.
    @Test func theDetailTellsReasonAndInstant() {
        for reason in RemovalReason.allCases {
            let failure = Failure.miss(CacheMiss(after: [EntryRemoval(reason, at: Self.now)], now: Self.now))
            #expect(failure.detail.contains(" \(reason.rawValue) at \(Self.now.rfc3339)"))
        }
        #expect(!Failure.miss(.absent).detail.contains(" at "))
    }

    /// Recorded before the clock was set back.
    @Test func noRemovalIsInTheFuture() {
        let miss = CacheMiss(after: [EntryRemoval(.deleted, at: Self.ago(-1000))], now: Self.now)
        #expect((miss.reason, miss.removedAt) == (.deleted, Self.now))
    }
}
