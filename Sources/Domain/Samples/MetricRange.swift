// Which rows answer a query over a span of time.

/// How finely samples are kept.
public enum MetricResolution: String, Sendable, CaseIterable, Comparable {
    case raw, minute, hour
    case sixHours = "six_hours"

    /// The resolutions of roll-ups, the finest first.
    public static let rollups: [Self] = [.minute, .hour, .sixHours]

    /// Length of a roll-up; 0 for raw samples. Stored in databases, in seconds: changing it needs a migration.
    public var periodMilliseconds: Int64 {
        switch self {
        case .raw: 0
        case .minute: 60_000
        case .hour: 3_600_000
        case .sixHours: 21_600_000
        }
    }

    /// The resolution used where a whole roll-up would be too coarse.
    var finer: Self {
        switch self {
        case .raw, .minute: .raw
        case .hour: .minute
        case .sixHours: .hour
        }
    }

    public static func < (a: Self, b: Self) -> Bool { a.periodMilliseconds < b.periodMilliseconds }
}

/// A span of time, excluding its end.
public struct MetricRange: Sendable, Equatable {
    public var since: Instant
    public var until: Instant

    public init(since: Instant, until: Instant) {
        self.since = since
        self.until = until
    }

    public var milliseconds: Int64 { Swift.max(until.milliseconds(since: since), 0) }

    /// The starts of steps of this length, which are multiples of it; the first may be before the start of the span.
    public func steps(milliseconds step: Int64) -> [Instant] {
        guard milliseconds > 0 else { return [] }
        let first = since.rounded(downTo: step)
        return stride(from: first.milliseconds, to: until.milliseconds, by: Int(step)).map {
            Instant(milliseconds: $0)
        }
    }

    /// The roll-ups that answer a span of this length in bounded time.
    public var rollupResolution: MetricResolution {
        if milliseconds <= Limits.maxMinuteRangeMilliseconds { return .minute }
        return milliseconds <= Limits.maxHourRangeMilliseconds ? .hour : .sixHours
    }

    /// A part of a span, and the resolution that answers it.
    public struct Segment: Sendable, Equatable {
        public var resolution: MetricResolution
        public var range: MetricRange

        public init(_ resolution: MetricResolution, _ range: MetricRange) {
            self.resolution = resolution
            self.range = range
        }
    }

    /// Splits the span into parts that whole roll-ups answer, and finer ones at its ends: for a week, hours, and
    /// minutes and raw samples for the rest at both ends. So counts cover exactly the requested span, not the whole
    /// hours around it.
    ///
    /// - Parameters:
    ///   - resolution: the coarsest one to use.
    ///   - rawSince: the start of the raw samples; before it, a part of a minute is answered by the whole minute.
    public func segments(coarsest resolution: MetricResolution, rawSince: Instant) -> [Segment] {
        guard milliseconds > 0 else { return [] }
        if resolution == .raw { return rawSegments(rawSince: rawSince) }
        let period = resolution.periodMilliseconds
        let first = since.rounded(upTo: period)
        let last = until.rounded(downTo: period)
        let finer = resolution.finer
        guard first < last else { return segments(coarsest: finer, rawSince: rawSince) }
        return MetricRange(since: since, until: first).segments(coarsest: finer, rawSince: rawSince)
            + [Segment(resolution, MetricRange(since: first, until: last))]
            + MetricRange(since: last, until: until).segments(coarsest: finer, rawSince: rawSince)
    }

    private func rawSegments(rawSince: Instant) -> [Segment] {
        if since >= rawSince { return [Segment(.raw, self)] }
        let minute = MetricResolution.minute.periodMilliseconds
        // From the first whole minute for which all raw samples exist.
        let border = rawSince == .distantFuture ? until : Swift.min(rawSince.rounded(upTo: minute), until)
        let old = MetricRange(since: since.rounded(downTo: minute), until: border.rounded(upTo: minute))
        var segments = [Segment(.minute, old)]
        if old.until < until { segments.append(Segment(.raw, MetricRange(since: old.until, until: until))) }
        return segments
    }
}

extension Instant {
    /// Later than any instant that is ever recorded.
    public static let distantFuture = Instant(milliseconds: .max)

    /// The latest multiple of `period` that is not later.
    public func rounded(downTo period: Int64) -> Instant {
        let remainder = milliseconds % period
        return Instant(milliseconds: milliseconds - (remainder < 0 ? remainder + period : remainder))
    }

    /// The earliest multiple of `period` that is not earlier.
    public func rounded(upTo period: Int64) -> Instant {
        let down = rounded(downTo: period)
        return down == self ? self : down.advanced(milliseconds: period)
    }
}
