// How long after its removal an entry was asked for again: what a longer lifetime or a larger cap would have saved.

/// The delays of the latest misses of one reason: a histogram of fixed size, in which older misses weigh less.
///
/// Counts are halved whenever they reach ``maxMisses`` together, so that the distribution follows what callers do now
/// without a clock.
public struct MissDelays: Sendable, Equatable {
    /// Inclusive upper bounds, in seconds. Round numbers, because they are proposed as settings. Removals are
    /// remembered for a day (``Limits/removalMemoryMilliseconds``).
    public static let bounds = [
        1.0, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400,
    ]
    public static let maxMisses = 4096

    private var counts = [UInt16](repeating: 0, count: bounds.count)

    public init() {}

    public var count: Int { counts.reduce(0) { $0 + Int($1) } }

    /// Adds a miss that came this long after the removal.
    public mutating func add(milliseconds: Int64) {
        let seconds = Double(max(milliseconds, 0)) / 1000
        counts[Self.bounds.firstIndex { seconds <= $0 } ?? Self.bounds.count - 1] += 1
        if count >= Self.maxMisses { for place in counts.indices { counts[place] /= 2 } }
    }

    /// The delay, rounded up to one of ``bounds``, within which at least this share of the misses came.
    /// - Returns: nil without misses.
    public func seconds(covering share: Double) -> Double? {
        let total = count
        guard total > 0 else { return nil }
        var sum = 0
        for (place, bound) in Self.bounds.enumerated() {
            sum += Int(counts[place])
            if Double(sum) >= share * Double(total) { return bound }
        }
        return Self.bounds.last
    }
}
