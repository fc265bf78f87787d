// The order of eviction: every policy with every use of an entry.

import Domain
import Testing

struct EvictionRankTests {
    /// What each use makes of a rank of 5. An entry that is created or re-ranked has no earlier rank.
    private struct Ranks: Equatable {
        var created: Int64
        var renewed: Int64
        var read: Int64
        var anew: Int64
    }

    private func ranks(_ eviction: Eviction) -> Ranks {
        Ranks(
            created: eviction.rank(createdAt: 900), renewed: eviction.rank(5, renewedAt: 900),
            read: eviction.rank(5, readTimes: 3, lastAt: 900),
            anew: eviction.rank(
                createdAt: Instant(milliseconds: 2), lastUsedAt: Instant(milliseconds: 4), hits: 7))
    }

    @Test func eachPolicyRanksByItsOwnMeasure() {
        for eviction in Eviction.allCases {
            let expected =
                switch eviction {
                case .leastRecentlyUsed: Ranks(created: 900, renewed: 900, read: 900, anew: 4000)
                case .leastFrequentlyUsed: Ranks(created: 0, renewed: 5, read: 8, anew: 7)
                case .firstInFirstOut: Ranks(created: 900, renewed: 5, read: 5, anew: 2000)
                }
            #expect(ranks(eviction) == expected, "\(eviction)")
        }
    }

    /// Reads are counted in memory and written later, so they may be applied after writes that followed them.
    @Test func noUseLowersARank() {
        for eviction in Eviction.allCases {
            for (rank, tick) in [(5, 900), (900, 5), (5, 5)] as [(Int64, Int64)] {
                #expect(eviction.rank(rank, renewedAt: tick) >= rank, "\(eviction)")
                #expect(eviction.rank(rank, readTimes: 1, lastAt: tick) >= rank, "\(eviction)")
            }
        }
    }

    /// Three reads written together give the same rank as one and then two.
    @Test func readsAddUp() {
        for eviction in Eviction.allCases {
            let one = eviction.rank(5, readTimes: 1, lastAt: 300)
            #expect(
                eviction.rank(one, readTimes: 2, lastAt: 900) == eviction.rank(5, readTimes: 3, lastAt: 900),
                "\(eviction)")
        }
    }
}
