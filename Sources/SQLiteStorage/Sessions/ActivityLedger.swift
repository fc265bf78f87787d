// Reads must not write: the time of each session's latest read is noted here and written about once a second.

import Domain
import Synchronization

/// When sessions were read since that was last written, in memory and bounded.
///
/// A session lives if its activity here *or* in its row is recent enough. So an activity is dropped from here only
/// after the commit that wrote it, and a reader that finds a row expired, and nothing here, must check with
/// ``settlements`` that no activity was moved to the row in between.
final class ActivityLedger: Sendable {
    private struct State {
        /// By `session_ref`.
        var activities: [Int64: Instant] = [:]
        var settlements = 0
    }

    private let state = Mutex(State())

    /// Notes an activity.
    /// - Returns: false if there is no room and the caller must write it.
    func note(_ ref: Int64, at now: Instant) -> Bool {
        state.withLock { state in
            if let known = state.activities[ref] {
                if known < now { state.activities[ref] = now }
                return true
            }
            guard state.activities.count < Limits.maxTrackedSessions else { return false }
            state.activities[ref] = now
            return true
        }
    }

    func lastActivity(of ref: Int64) -> Instant? { state.withLock { $0.activities[ref] } }

    var isEmpty: Bool { state.withLock { $0.activities.isEmpty } }

    /// Counts how often activities were dropped because they are written.
    var settlements: Int { state.withLock { $0.settlements } }

    /// A copy of everything noted.
    func all() -> [(ref: Int64, instant: Instant)] {
        state.withLock { $0.activities.map { ($0.key, $0.value) } }
    }

    /// Drops activities whose rows are committed, unless there have been later ones.
    func settle(_ written: some Sequence<(ref: Int64, instant: Instant)>) {
        state.withLock { state in
            for (ref, instant) in written where state.activities[ref].map({ $0 <= instant }) ?? false {
                state.activities[ref] = nil
            }
            state.settlements += 1
        }
    }
}
