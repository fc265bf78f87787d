// Notices when the machine's clock is set, and decides what that means for what expires. docs/design/clock.md.

import Domain
import Logging
import Synchronization

/// Compares the wall clock with one that never steps.
///
/// After the clock was set forward, nothing that has expired is deleted for ``StorageLimits/sweepHoldMilliseconds``: it
/// is absent from every answer, but comes back if the clock turns out to have been wrong. After it was set back, what
/// was written in the meantime has deadlines that are too far away, and ``needsRepair`` is set until they are
/// shortened.
final class ClockWatch: Sendable {
    struct Jump: Sendable, Equatable {
        /// What the clock said afterwards.
        var to: Instant
        /// Positive if it was set forward.
        var milliseconds: Int64
    }

    private struct State {
        /// Readings of both clocks, taken together.
        var wall: Instant
        var steady: Int64
        var heldUntil: Int64?
        /// How far ahead the clock is of what it said before the first of the jumps for which sweeps are held.
        var ahead: Int64 = 0
        var jumps = 0
        var latest: Jump?

        mutating func hold(by milliseconds: Int64, from steady: Int64) {
            ahead += milliseconds
            heldUntil = steady + StorageLimits.sweepHoldMilliseconds
        }

        mutating func release() { (heldUntil, ahead) = (nil, 0) }
    }

    private let clock: WallClock
    private let logger: Logger
    private let state: Mutex<State>
    private let repair = Atomic(false)

    /// - Parameter newest: the latest instant that is stored; nil in a new database.
    init(clock: WallClock, newest: Instant?, logger: Logger) {
        self.clock = clock
        self.logger = logger
        let now = clock.now()
        state = Mutex(State(wall: now, steady: clock.steadyMilliseconds()))
        // The two clocks cannot be compared across a restart. That much time may also have passed.
        guard let newest else { return }
        let passed = now.milliseconds(since: newest)
        if passed < -StorageLimits.clockToleranceMilliseconds {
            note(passed, at: now)
        } else if passed > StorageLimits.longestTrustedAbsenceMilliseconds {
            state.withLock { $0.hold(by: passed, from: $0.steady) }
            logger.notice(
                "by the clock, the database was last used long ago: what has expired is deleted only in an hour",
                metadata: ["last_used": "\(newest.rfc3339)", "now": "\(now.rfc3339)"])
        }
    }

    /// Whether deadlines may be too far away, because the clock was set back.
    var needsRepair: Bool { repair.load(ordering: .relaxed) }

    /// Called before deadlines are repaired; those written from now on are right.
    func repairBegins() { repair.store(false, ordering: .relaxed) }

    /// Called when the repair failed, so that it is repeated.
    func repairFailed() { repair.store(true, ordering: .relaxed) }

    /// Whether what has expired must not be deleted yet.
    var holdsSweeps: Bool {
        state.withLock { state in
            guard let until = state.heldUntil else { return false }
            if clock.steadyMilliseconds() < until { return true }
            state.release()
            return false
        }
    }

    /// Jumps since the start, and the latest.
    var jumps: (count: Int, latest: Jump?) { state.withLock { ($0.jumps, $0.latest) } }

    /// Compares the clocks: called once a second, so that both have moved by about the same.
    func check() {
        let now = clock.now()
        let steady = clock.steadyMilliseconds()
        let jump = state.withLock { state -> Int64 in
            defer { (state.wall, state.steady) = (now, steady) }
            return now.milliseconds(since: state.wall) - (steady - state.steady)
        }
        if abs(jump) > StorageLimits.clockToleranceMilliseconds { note(jump, at: now) }
    }

    private func note(_ milliseconds: Int64, at now: Instant) {
        state.withLock { state in
            state.jumps += 1
            state.latest = Jump(to: now, milliseconds: milliseconds)
            if milliseconds > 0 {
                state.hold(by: milliseconds, from: clock.steadyMilliseconds())
            } else if state.heldUntil != nil {
                state.ahead += milliseconds
                if state.ahead <= StorageLimits.clockToleranceMilliseconds { state.release() }
            }
        }
        if milliseconds < 0 { repair.store(true, ordering: .relaxed) }
        logger.warning(
            "the machine's clock was set",
            metadata: ["by_seconds": "\(milliseconds / 1000)", "to": "\(now.rfc3339)"])
    }
}
