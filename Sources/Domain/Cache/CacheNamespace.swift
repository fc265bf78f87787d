// A namespace: its policy and its figures.

/// Which entry is evicted first when a namespace is full. The raw values are stored in databases: changing one needs a
/// migration.
public enum Eviction: String, Sendable, CaseIterable {
    /// The one read or written longest ago.
    case leastRecentlyUsed = "lru"
    /// The one with the fewest hits; among equals, the oldest.
    case leastFrequentlyUsed = "lfu"
    /// The oldest.
    case firstInFirstOut = "fifo"
}

/// What the owner of a namespace decided. Everything is optional: a namespace is created with defaults on its first
/// write.
public struct CachePolicy: Sendable, Equatable {
    /// nil: the setting `cache_ttl_seconds`.
    public var timeToLive: TimeToLive?
    /// nil: no cap.
    public var maxEntries: Int?
    /// Bytes of values; nil: no cap.
    public var maxBytes: Int?
    /// Largest value; nil: the setting `max_entry_bytes`, which also bounds this.
    public var maxEntryBytes: Int?
    public var eviction: Eviction

    public init(
        timeToLive: TimeToLive? = nil, maxEntries: Int? = nil, maxBytes: Int? = nil, maxEntryBytes: Int? = nil,
        eviction: Eviction = .leastRecentlyUsed
    ) {
        self.timeToLive = timeToLive
        self.maxEntries = maxEntries
        self.maxBytes = maxBytes
        self.maxEntryBytes = maxEntryBytes
        self.eviction = eviction
    }

    /// Whether entries must be kept in order of eviction.
    public var isCapped: Bool { maxEntries != nil || maxBytes != nil }

    /// How long a new value lives.
    /// - Parameters:
    ///   - asked: the lifetime in the request; nil if it has none.
    ///   - standard: the setting `cache_ttl_seconds`.
    public func lifetime(asked: TimeToLive?, standard: TimeToLive) -> TimeToLive { asked ?? timeToLive ?? standard }

    /// - Parameter ceiling: the setting `max_entry_bytes`.
    /// - Throws: `payload_too_large` when a value of this size cannot be stored here.
    public func admit(sizeBytes: Int, ceiling: Int) throws(Failure) {
        for (limit, name) in [
            (ceiling, "the setting max_entry_bytes"), (maxEntryBytes, "the namespace's max_entry_bytes"),
            (maxBytes, "the namespace's max_bytes"),
        ] {
            if let limit, sizeBytes > limit {
                throw Failure(
                    .payloadTooLarge,
                    "The value has \(sizeBytes) bytes; \(name) allows \(limit). Nothing was stored.")
            }
        }
    }

    /// Whether this many entries and bytes exceed the caps.
    public func isExceeded(entries: Int, bytes: Int) -> Bool {
        entries > maxEntries ?? .max || bytes > maxBytes ?? .max
    }
}

/// A namespace and its figures. Counters may lag by a second or two; entry count and size do not.
public struct CacheNamespace: Sendable, Equatable {
    public var name: Name
    public var policy: CachePolicy
    public var entryCount: Int
    public var sizeBytes: Int
    public var hits: Int
    public var misses: [MissReason: Int]
    public var expirations: Int
    public var evictions: Int

    public init(
        name: Name, policy: CachePolicy, entryCount: Int, sizeBytes: Int, hits: Int, misses: [MissReason: Int],
        expirations: Int, evictions: Int
    ) {
        self.name = name
        self.policy = policy
        self.entryCount = entryCount
        self.sizeBytes = sizeBytes
        self.hits = hits
        self.misses = misses
        self.expirations = expirations
        self.evictions = evictions
    }

    public var missCount: Int { misses.values.reduce(0, +) }

    /// Hits per read; nil before the first read.
    public var hitRatio: Double? {
        let reads = hits + missCount
        return reads == 0 ? nil : Double(hits) / Double(reads)
    }
}
