// A clock that the test controls.

import Domain
import Synchronization

/// A clock that stands still until it is advanced.
package final class ManualClock: Sendable {
    private let milliseconds: Atomic<Int64>

    package init(_ start: Instant = Instant(milliseconds: 1_800_000_000_000)) {
        milliseconds = Atomic(start.milliseconds)
    }

    package var now: Instant { Instant(milliseconds: milliseconds.load(ordering: .sequentiallyConsistent)) }
    package var wallClock: WallClock { WallClock { self.now } }

    /// A clock that is set by the test, beside a steady one that the test moves.
    package func wallClock(steady: ManualClock) -> WallClock {
        WallClock(now: { self.now }, steadyMilliseconds: { steady.now.milliseconds })
    }

    package func advance(milliseconds step: Int64) {
        milliseconds.wrappingAdd(step, ordering: .sequentiallyConsistent)
    }

    package func advance(seconds: Double) { advance(milliseconds: Int64((seconds * 1000).rounded())) }
}
