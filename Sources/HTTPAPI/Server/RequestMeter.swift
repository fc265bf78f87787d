// Counts requests and their times by route, in memory.

import Domain
import HTTPTypes
import Synchronization

/// Failures by minute and code, forgotten after an hour.
struct RecentFailures: Sendable {
    private static let minutes = Int(DiagnosticThresholds.windowMilliseconds / 60_000)
    private var counts: [Int: [Failure.Code: Int]] = [:]

    /// - Parameter minute: counts up and never goes back.
    mutating func add(_ code: Failure.Code, minute: Int) {
        if counts[minute] == nil { counts = counts.filter { $0.key > minute - Self.minutes } }
        counts[minute, default: [:]][code, default: 0] += 1
    }

    func sums(minute: Int) -> [Failure.Code: Int] {
        counts.filter { $0.key > minute - Self.minutes }.values.reduce(into: [:]) { $0.merge($1, uniquingKeysWith: +) }
    }
}

/// What every request adds to: one short lock per route, no allocation, no text.
///
/// Times run from the request's head to the answer's head; streaming a large value is not included.
///
/// A lock rather than atomics, because one record changes many counts that belong together; it is held for about 20 ns.
public final class RequestMeter: Sendable {
    /// Upper bounds of the histogram's buckets, in seconds.
    static let bounds = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10]

    /// Since the process started.
    struct Figures: Sendable {
        /// By the first digit of the status.
        var statuses = [Int](repeating: 0, count: 6)
        var seconds = Histogram(bounds: bounds)
    }

    /// A distribution that requests add to.
    struct Interval: Sendable {
        private static let first = SketchBucket.index(of: 1e-6)
        private static let last = SketchBucket.index(of: 3600)

        /// By ``SketchBucket``, from a microsecond to an hour; allocated with the first request.
        private var counts: [UInt32] = []
        private(set) var errorCount = 0
        private var sum = 0.0
        private var min = Double.infinity
        private var max = 0.0

        var isEmpty: Bool { counts.isEmpty }

        static func bucket(of seconds: Double) -> Int {
            Swift.min(Swift.max(SketchBucket.index(of: seconds), first), last)
        }

        mutating func add(_ seconds: Double, bucket: Int, isError: Bool) {
            if counts.isEmpty { counts = [UInt32](repeating: 0, count: Self.last - Self.first + 1) }
            counts[bucket - Self.first] &+= 1
            errorCount += isError ? 1 : 0
            sum += seconds
            min = Swift.min(min, seconds)
            max = Swift.max(max, seconds)
        }

        func timing(_ name: String) -> ServiceTiming {
            let buckets = counts.indices.filter { counts[$0] > 0 }.map {
                Distribution.BucketCount(bucket: $0 + Self.first, count: Int(counts[$0]))
            }
            return ServiceTiming(
                name: name, errorCount: errorCount, sumSeconds: sum, minSeconds: min, maxSeconds: max,
                buckets: buckets)
        }
    }

    /// One method on one path.
    final class RouteFigures: Sendable {
        let method: String
        let path: String
        private let state = Mutex((figures: Figures(), interval: Interval()))

        init(method: String, path: String) {
            self.method = method
            self.path = path
        }

        /// Counts a request.
        func record(status: Int, since started: ContinuousClock.Instant) {
            record(status: status, seconds: (ContinuousClock.now - started).seconds)
        }

        func record(status: Int, seconds: Double) {
            // The logarithm is computed before the lock is taken.
            let bucket = Interval.bucket(of: seconds)
            state.withLock { state in
                state.figures.statuses[Swift.min(Swift.max(status / 100, 0), 5)] += 1
                state.figures.seconds.add(seconds)
                state.interval.add(seconds, bucket: bucket, isError: status >= 500)
            }
        }

        var figures: Figures { state.withLock { $0.figures } }

        /// What was added since the last call.
        fileprivate func takeInterval() -> Interval {
            state.withLock { state in
                defer { state.interval = Interval() }
                return state.interval
            }
        }
    }

    private let table = Mutex<[RouteFigures]>([])
    private let failures = Mutex(RecentFailures())
    private let started = ContinuousClock.now
    /// For requests that no route answers, whatever their method: a caller must not choose either label.
    let unmatched = RouteFigures(method: "other", path: "unmatched")
    let inFlight = Atomic(0)

    public init() {}

    /// The counters of a route; looked up once for each router that has it, when that is built.
    func figures(of route: Route) -> RouteFigures {
        table.withLock { table in
            let method = route.method.rawValue
            if let known = table.first(where: { $0.path == route.path && $0.method == method }) { return known }
            let figures = RouteFigures(method: method, path: route.path)
            table.append(figures)
            return figures
        }
    }

    /// Counts a failure of the service, not of the caller: those are too many, and say nothing about the service.
    func count(_ code: Failure.Code) {
        let minute = minute
        failures.withLock { $0.add(code, minute: minute) }
    }

    /// The failures counted in the last hour.
    var recentFailures: [Failure.Code: Int] {
        let minute = minute
        return failures.withLock { $0.sums(minute: minute) }
    }

    private var minute: Int { Int((ContinuousClock.now - started).seconds / 60) }

    var all: [RouteFigures] { table.withLock { $0 } + [unmatched] }

    /// What was added since the last call, for the service's own samples.
    public func takeTimings() -> [ServiceTiming] {
        all.compactMap { route in
            let interval = route.takeInterval()
            return interval.isEmpty ? nil : interval.timing("\(route.method) \(route.path)")
        }
    }
}
