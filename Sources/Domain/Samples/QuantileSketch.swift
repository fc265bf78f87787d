// Logarithmic buckets, which keep a distribution small, mergeable in any order, and accurate within a bounded error.

import Glibc

/// The buckets of a DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with
/// Relative-Error Guarantees", PVLDB 12(12), 2019, https://arxiv.org/abs/1908.10693).
///
/// A magnitude x belongs to the bucket i = ⌈log x / log γ⌉ with γ = (1 + α) / (1 − α), so that the bucket's value, 2γⁱ
/// / (γ + 1), is never further than αx from it. α is ``relativeAccuracy``. Merging is adding counts, in any order.
/// Unlike the paper's, buckets are never collapsed: between ``smallest`` and ``largest`` there is a fixed number of
/// them, few of which any real distribution touches, and each that is touched is a row.
///
/// Bucket numbers are shifted so that they sort as their values do: negative for negative values, 0 for everything
/// nearer to zero than ``smallest``, positive for positive ones.
///
/// Databases hold bucket numbers: changing any of these constants needs a migration.
public enum SketchBucket {
    /// α: three quarters of the 1 % that is promised.
    public static let relativeAccuracy = 0.0075
    /// Magnitudes below count as zero: a nanosecond, for a timing.
    public static let smallest = 1e-9
    /// Magnitudes above count as this.
    public static let largest = 1e18

    private static let gamma = (1 + relativeAccuracy) / (1 - relativeAccuracy)
    private static let logGamma = log(gamma)
    private static let offset = 1 - Int((log(smallest) / logGamma).rounded(.up))

    /// The bucket of a finite value.
    public static func index(of value: Double) -> Int {
        let magnitude = min(value.magnitude, largest)
        guard magnitude >= smallest else { return 0 }
        let bucket = max(Int((log(magnitude) / logGamma).rounded(.up)) + offset, 1)
        return value < 0 ? -bucket : bucket
    }

    /// The value that represents a bucket.
    public static func value(of bucket: Int) -> Double {
        guard bucket != 0 else { return 0 }
        let magnitude = 2 * exp(Double(bucket.magnitude.advanced(by: -offset)) * logGamma) / (gamma + 1)
        return bucket < 0 ? -magnitude : magnitude
    }
}

extension UInt {
    fileprivate func advanced(by distance: Int) -> Int { Int(self) + distance }
}

/// A distribution of measured values: exact while it holds the values themselves, within
/// ``SketchBucket/relativeAccuracy`` once it includes rolled-up ones.
public struct Distribution: Sendable, Equatable {
    public private(set) var count = 0
    public var errorCount = 0
    /// Samples that said whether a cache had the result.
    public var cacheHits = 0
    public var cacheMisses = 0
    public private(set) var sum = 0.0
    public private(set) var min = Double.infinity
    public private(set) var max = -Double.infinity
    /// The value recorded last.
    public private(set) var last: Double?
    public private(set) var lastRecordedAt: Instant?

    /// The number of values in a bucket.
    public struct BucketCount: Sendable, Equatable {
        public var bucket: Int
        public var count: Int

        public init(bucket: Int, count: Int) {
            self.bucket = bucket
            self.count = count
        }
    }

    private var values: [Double] = []
    /// In ascending order, so that merging two takes one pass over both.
    private var buckets: [BucketCount] = []

    public init() {}

    /// Whether percentiles are exact.
    public var isExact: Bool { buckets.isEmpty }

    public var mean: Double? { count == 0 ? nil : sum / Double(count) }

    public var cacheHitRatio: Double? {
        cacheHits + cacheMisses == 0 ? nil : Double(cacheHits) / Double(cacheHits + cacheMisses)
    }

    /// Adds a measured value.
    public mutating func add(_ value: Double, at instant: Instant) {
        addFigures(count: 1, sum: value, min: value, max: value, last: value, at: instant)
        values.append(value)
    }

    /// Adds the statistics of a roll-up; its buckets are added by ``add(_:)``.
    public mutating func addFigures(
        count: Int, sum: Double, min: Double, max: Double, last: Double, at instant: Instant
    ) {
        self.count += count
        self.sum += sum
        self.min = Swift.min(self.min, min)
        self.max = Swift.max(self.max, max)
        if lastRecordedAt.map({ instant >= $0 }) ?? true { (self.last, lastRecordedAt) = (last, instant) }
    }

    /// Adds the counts of buckets in ascending order; their statistics are added separately.
    public mutating func add(_ more: [BucketCount]) {
        guard let first = more.first else { return }
        guard let last = buckets.last, first.bucket <= last.bucket else {
            buckets += more
            return
        }
        var merged: [BucketCount] = []
        merged.reserveCapacity(buckets.count + more.count)
        var (here, there) = (buckets.startIndex, more.startIndex)
        while here < buckets.endIndex, there < more.endIndex {
            if buckets[here].bucket < more[there].bucket {
                merged.append(buckets[here])
                here += 1
            } else if buckets[here].bucket > more[there].bucket {
                merged.append(more[there])
                there += 1
            } else {
                merged.append(
                    BucketCount(bucket: buckets[here].bucket, count: buckets[here].count + more[there].count))
                here += 1
                there += 1
            }
        }
        merged += buckets[here...]
        merged += more[there...]
        buckets = merged
    }

    /// Adds another distribution.
    public mutating func merge(_ other: Distribution) {
        guard other.count > 0 else { return }
        addFigures(
            count: other.count, sum: other.sum, min: other.min, max: other.max, last: other.last!,
            at: other.lastRecordedAt!)
        errorCount += other.errorCount
        cacheHits += other.cacheHits
        cacheMisses += other.cacheMisses
        values += other.values
        add(other.buckets)
    }

    /// All values as buckets in ascending order, including measured ones.
    public var asBuckets: [BucketCount] {
        var counted: [BucketCount] = []
        for bucket in values.map({ SketchBucket.index(of: $0) }).sorted() {
            if counted.last?.bucket == bucket {
                counted[counted.count - 1].count += 1
            } else {
                counted.append(BucketCount(bucket: bucket, count: 1))
            }
        }
        var all = self
        all.add(counted)
        return all.buckets
    }

    /// The values in order with how often each occurs.
    public var ordered: OrderedDistribution {
        guard !isExact else { return OrderedDistribution(values.sorted().map { ($0, 1) }) }
        return OrderedDistribution(
            asBuckets.map { (Swift.min(Swift.max(SketchBucket.value(of: $0.bucket), min), max), $0.count) },
            relativeError: SketchBucket.relativeAccuracy)
    }
}

/// Values in ascending order, each with how often it occurs; built to answer many quantiles.
public struct OrderedDistribution: Sendable {
    private let values: [Double]
    /// The number of values up to and including each.
    private let cumulative: [Int]
    /// The maximum relative distance between a value and those that it represents; 0 for measured values.
    let relativeError: Double

    init(_ counted: [(value: Double, count: Int)], relativeError: Double = 0) {
        self.relativeError = relativeError
        values = counted.map(\.value)
        var total = 0
        cumulative = counted.map {
            total += $0.count
            return total
        }
    }

    public var count: Int { cumulative.last ?? 0 }

    /// The value at a rank, 0 for the smallest.
    public func value(atRank rank: Int) -> Double { values[place(ofRank: rank)] }

    /// The values at consecutive ranks.
    func values(ranks: ClosedRange<Int>) -> [Double] {
        var place = place(ofRank: ranks.lowerBound)
        return ranks.map { rank in
            while cumulative[place] <= rank { place += 1 }
            return values[place]
        }
    }

    private func place(ofRank rank: Int) -> Int {
        var low = 0
        var high = cumulative.count - 1
        while low < high {
            let middle = (low + high) / 2
            if cumulative[middle] > rank { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// The quantile, by linear interpolation between the two nearest ranks: type 7 of Hyndman and Fan, "Sample
    /// Quantiles in Statistical Packages", The American Statistician 50(4), 1996; what NumPy and SQL's
    /// `percentile_cont` compute.
    /// - Parameter fraction: 0…1.
    /// - Returns: nil if there is no value.
    public func quantile(_ fraction: Double) -> Double? {
        guard count > 0 else { return nil }
        let position = fraction * Double(count - 1)
        let rank = Int(position)
        let lower = value(atRank: rank)
        let weight = position - Double(rank)
        guard weight > 0 else { return lower }
        return lower + (value(atRank: rank + 1) - lower) * weight
    }
}
