// A namespace's policy and statistics.

import Domain
import Testing

struct CachePolicyTests {
    @Test func withoutCapsNothingIsTooMuch() {
        let policy = CachePolicy(timeToLive: .never, maxEntryBytes: 1)
        #expect(!policy.isCapped)
        #expect(!policy.isExceeded(entries: .max, bytes: .max))
        #expect(policy.eviction == .leastRecentlyUsed)
    }

    @Test(arguments: [(3, 100, false), (4, 100, true), (3, 101, true), (4, 101, true), (0, 0, false)])
    func aCapMayBeReachedButNotExceeded(entries: Int, bytes: Int, isExceeded: Bool) {
        let policy = CachePolicy(maxEntries: 3, maxBytes: 100)
        #expect(policy.isCapped)
        #expect(policy.isExceeded(entries: entries, bytes: bytes) == isExceeded)
    }

    @Test func eachCapHoldsAlone() {
        #expect(CachePolicy(maxEntries: 0).isExceeded(entries: 1, bytes: 0))
        #expect(!CachePolicy(maxEntries: 1).isExceeded(entries: 1, bytes: .max))
        #expect(CachePolicy(maxBytes: 0).isExceeded(entries: 0, bytes: 1))
        #expect(!CachePolicy(maxBytes: 1).isExceeded(entries: .max, bytes: 1))
    }

    @Test func theRatioIsOfAllReads() throws {
        var namespace = CacheNamespace(
            name: try Name("n", field: "namespace"), policy: CachePolicy(), entryCount: 0, sizeBytes: 0, hits: 0,
            misses: [:], expirations: 0, evictions: 0)
        #expect(namespace.hitRatio == nil)
        namespace.hits = 3
        namespace.misses = [.absent: 1, .expired: 2]
        #expect(namespace.missCount == 3)
        #expect(namespace.hitRatio == 0.5)
    }

    @Test func whatWasRemovedAddsUp() {
        var total = Removal(removed: 1, freedBytes: 10)
        total += Removal(removed: 2, freedBytes: 5)
        #expect(total == Removal(removed: 3, freedBytes: 15))
    }

    @Test func aFilterOfNothingIsEmpty() {
        #expect(EntryFilter().isEmpty)
        #expect(!EntryFilter(prefix: "").isEmpty)
        #expect(!EntryFilter(tag: Tag(stored: "t")).isEmpty)
        #expect(!EntryFilter(olderThanMilliseconds: 0).isEmpty)
    }
}
