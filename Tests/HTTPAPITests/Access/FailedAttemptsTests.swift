// How addresses are slowed down.

import Domain
import Synchronization
import Testing

@testable import HTTPAPI

struct FailedAttemptsTests {
    /// A clock that the test moves.
    private final class Time: Sendable {
        private let start = ContinuousClock.now
        private let milliseconds = Atomic(0)
        func advance(milliseconds step: Int) { milliseconds.wrappingAdd(step, ordering: .relaxed) }
        @Sendable func now() -> ContinuousClock.Instant {
            start + .milliseconds(milliseconds.load(ordering: .relaxed))
        }
    }

    private let time = Time()
    private let somebody = Caller.v4(1)

    @Test func eachFailureTakesLonger() {
        let attempts = FailedAttempts(now: time.now)
        for _ in 1...Limits.freeFailedAttempts { #expect(attempts.fail(somebody) == .answer) }
        for number in 1...100 {
            let expected = min(
                Int64(number) * Limits.attemptDelayStepMilliseconds, Limits.maxAttemptDelayMilliseconds)
            #expect(attempts.fail(somebody) == .wait(milliseconds: expected))
            attempts.waited(somebody)
        }
        #expect(attempts.fail(.v4(2)) == .answer)
    }

    @Test func timeForgives() {
        let attempts = FailedAttempts(now: time.now)
        for _ in 1...Limits.freeFailedAttempts { #expect(attempts.fail(somebody) == .answer) }
        time.advance(milliseconds: 2000 / Limits.forgivenAttemptsPerSecond)
        #expect(attempts.fail(somebody) == .answer)
        #expect(attempts.fail(somebody) == .answer)
        #expect(attempts.fail(somebody) == .wait(milliseconds: Limits.attemptDelayStepMilliseconds))
    }

    @Test func fewMayWait() {
        let attempts = FailedAttempts(now: time.now)
        for _ in 1...Limits.freeFailedAttempts { _ = attempts.fail(somebody) }
        for _ in 1...Limits.maxDelayedAttempts {
            #expect(!attempts.isExhausted(somebody))
            guard case .wait = attempts.fail(somebody) else { Issue.record("does not wait"); return }
        }
        #expect(attempts.isExhausted(somebody))
        #expect(!attempts.isExhausted(.v4(2)))
        #expect(attempts.fail(somebody) == .refuse)
        attempts.waited(somebody)
        #expect(!attempts.isExhausted(somebody))
    }

    @Test func theTableIsBounded() {
        let attempts = FailedAttempts(now: time.now)
        for address in 0..<UInt32(Limits.maxCountedAddresses * 2) {
            if case .wait = attempts.fail(.v4(address)) { attempts.waited(.v4(address)) }
        }
        #expect(attempts.addressCount == Limits.maxCountedAddresses)
        // The others share one count, so an attacker with many addresses is slowed down too.
        guard case .wait = attempts.fail(.v6(7)) else { Issue.record("does not wait"); return }
        attempts.waited(.v6(7))
        // Those whose buckets are empty make room.
        time.advance(milliseconds: 1000 / Limits.forgivenAttemptsPerSecond)
        #expect(attempts.fail(.v6(8)) == .answer)
        #expect(attempts.addressCount == 1)
    }
}
