// Reads must not write: the time of each session's latest read is noted here and written about once a second.

import Domain
import Synchronization

/// When sessions were read since that was last written, in memory and bounded.
///
/// A session lives if its activity here *or* in its row is recent enough. So an activity is dropped from here only
/// after the commit that wrote it, and a reader that finds a row expired, and nothing here, must check with
/// ``settlements`` that no activity was moved to the row in between.
///
/// The removal of inactive sessions is the opposite case: it must not remove a session that a reader is just finding
/// live. See ``Condemnation``.
final class ActivityLedger: Sendable {
    private struct State {
        /// By `session_ref`.
        var activities: [Int64: Instant] = [:]
        var settlements = 0
        /// How many writes are removing each of these sessions.
        var condemned: [Int64: Int] = [:]
        var removals = 0
    }

    /// What became of an activity.
    enum Note: Equatable {
        case kept
        /// There is no room: the caller must write it.
        case full
        /// A write is removing the session, or may have removed it since the caller read its row.
        case uncertain
    }

    private let state = Mutex(State())

    /// Notes an activity.
    /// - Parameter removals: ``removals`` as it was before the caller read the session's row.
    func note(_ ref: Int64, at now: Instant, asOf removals: Int) -> Note {
        state.withLock { state in
            guard state.removals == removals, state.condemned[ref] == nil else { return .uncertain }
            if let known = state.activities[ref] {
                if known < now { state.activities[ref] = now }
                return .kept
            }
            guard state.activities.count < StorageLimits.maxTrackedSessions else { return .full }
            state.activities[ref] = now
            return .kept
        }
    }

    func lastActivity(of ref: Int64) -> Instant? { state.withLock { $0.activities[ref] } }

    var isEmpty: Bool { state.withLock { $0.activities.isEmpty } }

    /// Counts how often activities were dropped because they are written.
    var settlements: Int { state.withLock { $0.settlements } }

    /// Counts how often writes that remove inactive sessions have ended.
    var removals: Int { state.withLock { $0.removals } }

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

    /// The sessions that one write removes because they are inactive. From the check of their activity until it is
    /// known whether they are gone, no new activity of theirs is noted, so that none can be lost.
    final class Condemnation: Sendable {
        private let ledger: ActivityLedger
        private let refs = Mutex<Set<Int64>>([])

        init(in ledger: ActivityLedger) { self.ledger = ledger }

        /// Called within the write, which may be run twice or fail.
        /// - Returns: false if the session has been active since `cutoff` and must stay.
        func condemn(_ ref: Int64, ifInactiveSince cutoff: Instant) -> Bool {
            let isNew = refs.withLock { $0.insert(ref).inserted }
            let isCondemned = ledger.state.withLock { state in
                if let activity = state.activities[ref], activity > cutoff { return false }
                if isNew { state.condemned[ref, default: 0] += 1 }
                return true
            }
            if isNew && !isCondemned { refs.withLock { _ = $0.remove(ref) } }
            return isCondemned
        }

        /// Called once the write is committed or has failed.
        func release() {
            let refs = refs.withLock { refs in
                defer { refs = [] }
                return refs
            }
            guard !refs.isEmpty else { return }
            ledger.state.withLock { state in
                for ref in refs { state.condemned[ref] = state.condemned[ref].flatMap { $0 > 1 ? $0 - 1 : nil } }
                state.removals += 1
            }
        }
    }
}
