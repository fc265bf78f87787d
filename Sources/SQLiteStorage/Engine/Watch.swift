// When a running statement must end: at its deadline, or because its owner closes.

import Synchronization

/// Ends what is running on several connections at once, and whatever runs on them later. This cannot be undone.
final class StopSignal: Sendable {
    private let raised = Atomic(false)

    var isRaised: Bool { raised.load(ordering: .relaxed) }

    func raise() { raised.store(true, ordering: .relaxed) }
}

/// What SQLite asks, between instructions and inside the functions of ``Connection/confine(to:)``, whether to go on.
///
/// Only the thread that has the connection sets the deadline; any thread may raise the signal. SQLite asks anew each
/// time, so a signal raised before a statement begins ends that statement too.
final class Watch: Sendable {
    let signal: StopSignal
    /// Milliseconds of the monotonic clock; the largest value if there is none.
    private let deadline = Atomic<Int64>(.max)

    init(signal: StopSignal = StopSignal()) { self.signal = signal }

    var isOver: Bool { signal.isRaised || monotonicMilliseconds() > deadline.load(ordering: .relaxed) }

    /// Runs `body` with a deadline this far away.
    func withDeadline<T>(milliseconds: Int64, _ body: () throws -> T) rethrows -> T {
        deadline.store(monotonicMilliseconds() + milliseconds, ordering: .relaxed)
        defer { deadline.store(.max, ordering: .relaxed) }
        return try body()
    }
}
