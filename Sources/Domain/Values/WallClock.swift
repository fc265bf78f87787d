// Where the service's time comes from.

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// The clock that decides what is expired. Injected, so that expiry is tested without sleeping.
public struct WallClock: Sendable {
    /// The current instant.
    public let now: @Sendable () -> Instant
    /// Milliseconds since some fixed point, of a clock that nobody sets and that also runs while the machine sleeps. It
    /// tells when ``now`` was set.
    public let steadyMilliseconds: @Sendable () -> Int64

    /// - Parameter steadyMilliseconds: nil for a clock that is never set.
    public init(
        now: @escaping @Sendable () -> Instant, steadyMilliseconds: (@Sendable () -> Int64)? = nil
    ) {
        self.now = now
        self.steadyMilliseconds = steadyMilliseconds ?? { now().milliseconds }
    }

    /// The machine's real-time clock.
    public static let system = WallClock(
        now: { Instant(milliseconds: milliseconds(of: CLOCK_REALTIME)) },
        steadyMilliseconds: { milliseconds(of: steadyClock) })

    #if canImport(Darwin)
    private static let steadyClock = CLOCK_MONOTONIC
    #else
    private static let steadyClock = CLOCK_BOOTTIME
    #endif

    private static func milliseconds(of clock: clockid_t) -> Int64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}

extension Duration {
    public var seconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) + Double(attoseconds) * 1e-18
    }
}
