// Slows down addresses that send wrong tokens.

import Domain
import Synchronization

/// Failed attempts to authenticate, counted for each address.
///
/// Each address has a bucket that every failed attempt fills and time empties (a leaky bucket). As long as little is
/// in it, answers come at once; then each takes a little longer than the one before. Addresses whose buckets are empty
/// are forgotten, and there are at most ``Limits/maxCountedAddresses``; all others share one bucket.
final class FailedAttempts: Sendable {
    enum Verdict: Equatable {
        case answer
        /// The caller says ``FailedAttempts/waited(_:)`` afterwards.
        case wait(milliseconds: Int64)
        case refuse
    }

    private struct Bucket {
        /// Attempts in it when it was last looked at.
        var level = 0.0
        var checkedAt: ContinuousClock.Instant
        var waiting = 0

        func level(at now: ContinuousClock.Instant) -> Double {
            max(0, level - (now - checkedAt).seconds * Double(Limits.forgivenAttemptsPerSecond))
        }
    }

    private struct State {
        var buckets: [Caller: Bucket] = [:]
        var others: Bucket
    }

    private let state: Mutex<State>
    private let now: @Sendable () -> ContinuousClock.Instant

    init(now: @escaping @Sendable () -> ContinuousClock.Instant = { .now }) {
        self.now = now
        state = Mutex(State(others: Bucket(checkedAt: now())))
    }

    /// Addresses that are remembered.
    var addressCount: Int { state.withLock { $0.buckets.count } }

    /// Counts a failed attempt.
    func fail(_ caller: Caller) -> Verdict {
        let now = now()
        return state.withLock { state in
            if state.buckets[caller] == nil, state.buckets.count >= Limits.maxCountedAddresses {
                state.buckets = state.buckets.filter { $0.value.waiting > 0 || $0.value.level(at: now) > 0 }
            }
            let isCounted = state.buckets[caller] != nil || state.buckets.count < Limits.maxCountedAddresses
            guard isCounted else { return Self.fail(&state.others, now) }
            return Self.fail(&state.buckets[caller, default: Bucket(checkedAt: now)], now)
        }
    }

    private static func fail(_ bucket: inout Bucket, _ now: ContinuousClock.Instant) -> Verdict {
        let most = Double(Limits.freeFailedAttempts)
            + Double(Limits.maxAttemptDelayMilliseconds / Limits.attemptDelayStepMilliseconds)
        bucket.level = min(most, bucket.level(at: now) + 1)
        bucket.checkedAt = now
        let excess = Int64(bucket.level) - Int64(Limits.freeFailedAttempts)
        guard excess > 0 else { return .answer }
        guard bucket.waiting < Limits.maxDelayedAttempts else { return .refuse }
        bucket.waiting += 1
        return .wait(milliseconds: excess * Limits.attemptDelayStepMilliseconds)
    }

    /// A waiting attempt is about to be answered.
    func waited(_ caller: Caller) {
        state.withLock { state in
            // Its own bucket may have been made since; what matters is that each attempt is taken out once.
            if let own = state.buckets[caller], own.waiting > 0 {
                state.buckets[caller]!.waiting -= 1
            } else {
                state.others.waiting -= 1
            }
        }
    }

    /// Whether so many attempts of an address wait that the next would be refused.
    func isExhausted(_ caller: Caller) -> Bool {
        state.withLock { ($0.buckets[caller] ?? $0.others).waiting >= Limits.maxDelayedAttempts }
    }
}
