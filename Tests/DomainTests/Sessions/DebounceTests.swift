// The decision of a debounce.

import Domain
import Testing

struct DebounceTests {
    private let start = Instant(milliseconds: 1_800_000_000_000)

    private func decide(_ delay: Int64, after elapsed: Int64) -> DebounceDecision {
        DebounceDecision(
            delayMilliseconds: delay, lastAllowedAt: start, now: start.advanced(milliseconds: elapsed))
    }

    @Test func theFirstCallIsAllowed() {
        let decision = DebounceDecision(delayMilliseconds: 500, lastAllowedAt: nil, now: start)
        #expect(decision.isAllowed)
        #expect(decision.retryAfterMilliseconds == 0)
        #expect(decision.lastAllowedAt == start)
    }

    @Test(arguments: [(0, 500), (1, 499), (499, 1)] as [(Int64, Int64)])
    func callsInsideTheDelayAreNot(elapsed: Int64, wait: Int64) {
        let decision = decide(500, after: elapsed)
        #expect(!decision.isAllowed)
        #expect(decision.retryAfterMilliseconds == wait)
        #expect(decision.lastAllowedAt == start)
        #expect(decide(500, after: elapsed + wait).isAllowed)
    }

    @Test func theDelayIsThatOfTheCall() {
        #expect(decide(500, after: 500).isAllowed)
        #expect(!decide(501, after: 500).isAllowed)
        #expect(decide(0, after: 0).isAllowed)
    }

    @Test func aClockSetBackNeitherAllowsTwiceNorLocksOut() {
        #expect(!decide(500, after: -1).isAllowed)
        #expect(!decide(500, after: -499).isAllowed)
        #expect(decide(500, after: -500).isAllowed)
        #expect(decide(500, after: -86_400_000).isAllowed)
    }

    @Test func isRememberedForAnHourAtLeast() {
        #expect(DebounceDecision.expiry(ofCallAt: start, delayMilliseconds: 0).milliseconds(since: start) == 3_600_000)
        #expect(
            DebounceDecision.expiry(ofCallAt: start, delayMilliseconds: 7_200_000).milliseconds(since: start)
                == 7_200_000)
    }
}
