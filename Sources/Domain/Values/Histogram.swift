// Counts of values between fixed bounds, as monitoring reads distributions.

/// A histogram of fixed size; adding to it allocates nothing.
public struct Histogram: Sendable, Equatable {
    /// Inclusive upper bounds in ascending order.
    public let bounds: [Double]
    /// One for each of ``bounds``, and one for what is above; not cumulative.
    public private(set) var counts: [Int]
    public private(set) var sum = 0.0

    public init(bounds: [Double]) {
        self.bounds = bounds
        counts = [Int](repeating: 0, count: bounds.count + 1)
    }

    public var count: Int { counts.reduce(0, +) }

    public mutating func add(_ value: Double) {
        counts[bounds.firstIndex { value <= $0 } ?? bounds.count] += 1
        sum += value
    }
}
