// What every storage engine promises about performance samples.

/// Performance samples: individually for a while, then as distributions by minute, hour and six hours.
///
/// A sample is in every answer as soon as it is recorded, and counted once in each: samples that are not rolled up yet
/// are read individually. Raw samples are kept for the setting `sample_retention_seconds`, roll-ups for
/// `sample_rollup_retention_seconds`.
///
/// In addition to the errors of each method, all throw `overloaded`, `deadline_exceeded`, `shutting_down` and the
/// storage failures.
public protocol SampleStore: Sendable {
    /// Records all of them, or none. Names beyond ``Limits/maxSampleNames`` of their kind, and variants beyond
    /// ``Limits/maxSampleVariants`` of their name, become ``Sample/otherName``.
    func record(_ samples: [Sample]) async throws -> SampleReceipt

    /// Adds distributions that the service measured itself to the roll-ups of the minute in which they were measured;
    /// each one separately.
    func record(_ timings: [ServiceTiming], at instant: Instant) async throws

    /// Raw samples, the latest recorded first.
    func samples(
        _ filter: SampleFilter, after: CollectionPosition?, limit: Int
    ) async throws -> (items: [Sample], next: CollectionPosition?)

    /// Distributions of a metric for each query, by name and group in their order; all from one snapshot of the store.
    /// - Throws: `validation_failed` if steps are shorter than the finest resolution kept for the range.
    func measure(_ queries: [MetricQuery]) async throws -> [Measurements]
}

extension SampleStore {
    public func measure(_ query: MetricQuery) async throws -> Measurements { try await measure([query])[0] }
}

/// The service's own timings of one route.
public struct ServiceTiming: Sendable, Equatable {
    public var name: String
    public var errorCount: Int
    public var sumSeconds: Double
    public var minSeconds: Double
    public var maxSeconds: Double
    /// Counts by ``SketchBucket``, in ascending order.
    public var buckets: [Distribution.BucketCount]

    public init(
        name: String, errorCount: Int, sumSeconds: Double, minSeconds: Double, maxSeconds: Double,
        buckets: [Distribution.BucketCount]
    ) {
        self.name = name
        self.errorCount = errorCount
        self.sumSeconds = sumSeconds
        self.minSeconds = minSeconds
        self.maxSeconds = maxSeconds
        self.buckets = buckets
    }

    public var count: Int { buckets.reduce(0) { $0 + $1.count } }
}

/// Which distributions are requested.
public struct MetricQuery: Sendable, Equatable {
    public enum Grouping: String, Sendable, CaseIterable {
        case variant, cache
        /// Only for raw samples: roll-ups do not distinguish sessions.
        case session = "session_id"
    }

    public var kind: SampleKind
    public var metric: SampleMetric
    public var source: SampleSource
    public var range: MetricRange
    /// nil for all names.
    public var name: String?
    public var variant: String?
    public var grouping: Grouping?
    /// Also a distribution for each of these steps, which begin at multiples of their length.
    public var stepMilliseconds: Int64?
    /// Whether hits and misses of the caller's own cache are also reported separately.
    public var tellsCacheApart: Bool
    /// Whether percentiles are needed; without them, far less is read.
    public var hasPercentiles: Bool

    public init(
        kind: SampleKind, metric: SampleMetric, source: SampleSource = .app, range: MetricRange, name: String? = nil,
        variant: String? = nil, grouping: Grouping? = nil, tellsCacheApart: Bool = false,
        stepMilliseconds: Int64? = nil, hasPercentiles: Bool = true
    ) {
        self.kind = kind
        self.metric = metric
        self.source = source
        self.range = range
        self.name = name
        self.variant = variant
        self.grouping = grouping
        self.tellsCacheApart = tellsCacheApart
        self.stepMilliseconds = stepMilliseconds
        self.hasPercentiles = hasPercentiles
    }

    /// The starts of the steps; the first may be before the start of the range.
    public var steps: [Instant] {
        stepMilliseconds.map(range.steps) ?? []
    }
}

/// Distributions, and how finely they were measured.
public struct Measurements: Sendable, Equatable {
    public struct Item: Sendable, Equatable {
        public var name: String
        /// The value of the grouping; nil for samples without one.
        public var group: String?
        /// Only if ``MetricQuery/tellsCacheApart`` is set; nil for samples that do not say.
        public var cache: Sample.CacheResult?
        public var unit: String?
        public var total: Distribution
        /// By index into ``MetricQuery/steps``; those without a sample are left out.
        public var steps: [Int: Distribution]

        public init(
            name: String, group: String?, cache: Sample.CacheResult? = nil, unit: String?, total: Distribution,
            steps: [Int: Distribution] = [:]
        ) {
            self.name = name
            self.group = group
            self.cache = cache
            self.unit = unit
            self.total = total
            self.steps = steps
        }
    }

    /// The same without groups, and with hits and misses combined.
    public var ungrouped: [Item] {
        var merged: [Item] = []
        for item in items {
            if merged.last.map({ ExactText($0.name) }) != ExactText(item.name) {
                merged.append(Item(name: item.name, group: nil, unit: item.unit, total: Distribution()))
            }
            merged[merged.count - 1].total.merge(item.total)
            merged[merged.count - 1].steps.merge(item.steps) { a, b in
                var sum = a
                sum.merge(b)
                return sum
            }
        }
        return merged
    }

    /// The coarsest resolution that was used.
    public var resolution: MetricResolution
    public var items: [Item]

    public init(resolution: MetricResolution, items: [Item]) {
        self.resolution = resolution
        self.items = items
    }
}
