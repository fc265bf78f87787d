// A clock for durations and deadlines, which never steps.

import Glibc

/// Milliseconds since some fixed point.
func monotonicMilliseconds() -> Int64 { monotonicMicroseconds() / 1000 }

/// Microseconds since the same point.
@Sendable func monotonicMicroseconds() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000
}
