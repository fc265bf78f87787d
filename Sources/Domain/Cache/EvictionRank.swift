// The order of eviction: what an entry's rank is, and how each use of the entry changes it.

/// The entries of a namespace with caps have ranks, and the lowest rank is evicted first.
///
/// A *tick* is a time in microseconds that no two uses share, so uses within one millisecond keep their order. Each
/// policy says here what it makes of each use; an engine only stores the result.
extension Eviction {
    /// The rank of an entry that is created.
    public func rank(createdAt tick: Int64) -> Int64 {
        switch self {
        case .leastRecentlyUsed, .firstInFirstOut: tick
        case .leastFrequentlyUsed: 0
        }
    }

    /// The rank of an entry whose value or lifetime was renewed, and that had the rank `rank`.
    public func rank(_ rank: Int64, renewedAt tick: Int64) -> Int64 {
        switch self {
        case .leastRecentlyUsed: max(rank, tick)
        case .leastFrequentlyUsed, .firstInFirstOut: rank
        }
    }

    /// The rank of an entry that had the rank `rank` and was then read `count` times, the last time at `tick`.
    public func rank(_ rank: Int64, readTimes count: Int, lastAt tick: Int64) -> Int64 {
        switch self {
        case .leastRecentlyUsed: max(rank, tick)
        case .leastFrequentlyUsed: rank + Int64(count)
        case .firstInFirstOut: rank
        }
    }

    /// The rank of an entry that had none, or that of another policy. The first tick of a millisecond belongs to no
    /// use, so such an entry goes before those that were used in the same millisecond and whose order is known.
    public func rank(createdAt creation: Instant, lastUsedAt use: Instant, hits: Int) -> Int64 {
        switch self {
        case .leastRecentlyUsed: use.milliseconds * 1000
        case .leastFrequentlyUsed: Int64(hits)
        case .firstInFirstOut: creation.milliseconds * 1000
        }
    }
}
