// What the cache did in a span of time.

/// Look-ups, expirations and evictions, of one namespace or of many.
public struct CacheActivity: Sendable, Equatable {
    public var hits: Int
    /// Reasons without a miss may be left out.
    public var misses: [MissReason: Int]
    public var expirations: Int
    public var evictions: Int

    public init(hits: Int = 0, misses: [MissReason: Int] = [:], expirations: Int = 0, evictions: Int = 0) {
        self.hits = hits
        self.misses = misses
        self.expirations = expirations
        self.evictions = evictions
    }

    public var missCount: Int { misses.values.reduce(0, +) }

    public var lookups: Int { hits + missCount }

    /// Hits per look-up; nil if there were none.
    public var hitRatio: Double? { lookups == 0 ? nil : Double(hits) / Double(lookups) }

    public static func += (total: inout Self, part: Self) {
        total.hits += part.hits
        if !part.misses.isEmpty { total.misses.merge(part.misses, uniquingKeysWith: +) }
        total.expirations += part.expirations
        total.evictions += part.evictions
    }
}

/// What the cache did in a span of time, and what it holds now.
public struct CacheFigures: Sendable, Equatable {
    public struct Namespace: Sendable, Equatable {
        public var name: Name
        public var activity: CacheActivity
        /// Live entries and their bytes, now.
        public var entryCount: Int
        public var sizeBytes: Int

        public init(name: Name, activity: CacheActivity, entryCount: Int, sizeBytes: Int) {
            self.name = name
            self.activity = activity
            self.entryCount = entryCount
            self.sizeBytes = sizeBytes
        }
    }

    /// The coarsest that was used: minutes, or hours where minutes are no longer kept.
    public var resolution: MetricResolution
    /// Of all namespaces, including those removed since.
    public var totals: CacheActivity
    /// What all namespaces hold now.
    public var entryCount: Int
    public var sizeBytes: Int
    /// How many namespaces there are now.
    public var namespaceCount: Int
    /// Those with the most look-ups, the busiest first; as many as were asked for.
    public var busiest: [Namespace]
    /// ``totals`` by index of the step; steps in which nothing happened are left out.
    public var steps: [Int: CacheActivity]

    public init(
        resolution: MetricResolution, totals: CacheActivity, entryCount: Int, sizeBytes: Int, namespaceCount: Int,
        busiest: [Namespace], steps: [Int: CacheActivity]
    ) {
        self.resolution = resolution
        self.totals = totals
        self.entryCount = entryCount
        self.sizeBytes = sizeBytes
        self.namespaceCount = namespaceCount
        self.busiest = busiest
        self.steps = steps
    }
}
