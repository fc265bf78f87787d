// When a running statement must end: at its deadline, or because its owner closes.

import Synchronization

/// Ends what is running on several connections at once, and whatever runs on them later. This cannot be undone.
final class StopSignal: Sendable {
    private let raised = Atomic(false)

    var isRaised: Bool { raised.load(ordering: .relaxed) }

    func raise() { raised.store(true, ordering: .relaxed) }
}

/// What SQLite asks whether to go on: between instructions, and in a sandbox also inside functions and before it takes
/// memory or reads a page.
///
/// Only the thread that has the connection sets the deadline; any thread may raise the signal. SQLite asks anew each
/// time, so a signal raised before a statement begins ends that statement too.
final class Watch: Sendable {
    let signal: StopSignal
    /// Milliseconds of the monotonic clock; the largest value if there is none.
    private let deadline = Atomic<Int64>(.max)
    private let now: @Sendable () -> Int64

    /// - Parameter now: milliseconds of a clock that is never set.
    init(signal: StopSignal = StopSignal(), now: @escaping @Sendable () -> Int64 = monotonicMilliseconds) {
        self.signal = signal
        self.now = now
    }

    var isOver: Bool { signal.isRaised || now() > deadline.load(ordering: .relaxed) }

    /// Runs `body` with a deadline this far away.
    func withDeadline<T>(milliseconds: Int64, _ body: () throws -> T) rethrows -> T {
        deadline.store(now() + milliseconds, ordering: .relaxed)
        defer { deadline.store(.max, ordering: .relaxed) }
        return try body()
    }
}
