// Counters: the result of an increment.

/// Adding to an entry that holds a JSON integer.
public struct CacheIncrement: Sendable, Equatable {
    public var key: Key
    /// The number to add; can be negative.
    public var delta: Int64
    /// The value an absent entry starts from.
    public var initial: Int64
    /// nil keeps an existing entry's expiry and gives a new one the usual lifetime.
    public var timeToLive: TimeToLive?
    public var condition: EntityCondition

    public init(
        key: Key, delta: Int64 = 1, initial: Int64 = 0, timeToLive: TimeToLive? = nil,
        condition: EntityCondition = .none
    ) {
        self.key = key
        self.delta = delta
        self.initial = initial
        self.timeToLive = timeToLive
        self.condition = condition
    }

    /// The sum that becomes the entry's value.
    /// - Parameter value: the live entry's bytes; nil when there is no live entry.
    /// - Throws: `not_an_integer` unless the bytes are a 64-bit JSON integer, optionally with white space around it;
    ///   `integer_overflow` when the sum is not one.
    public func apply(to value: [UInt8]?) throws(Failure) -> Int64 {
        let current = try value.map(Self.integer) ?? initial
        let (sum, overflow) = current.addingReportingOverflow(delta)
        guard !overflow else {
            throw Failure(.integerOverflow, "The sum does not fit in 64 bits. The value was not changed.")
        }
        return sum
    }

    /// A sum as the bytes that are stored.
    public static func bytes(of sum: Int64) -> [UInt8] { Array(String(sum).utf8) }

    /// The lifetime after an increment: the entry keeps its expiry unless the increment sets one.
    public func lifetime(
        keeping current: (timeToLive: TimeToLive, expiresAt: Instant?), now: Instant
    ) -> (timeToLive: TimeToLive, expiresAt: Instant?) {
        timeToLive.map { ($0, $0.expiry(from: now)) } ?? current
    }

    private static func integer(_ bytes: [UInt8]) throws(Failure) -> Int64 {
        guard let json = try? JSON(parsing: bytes), case .number(let digits) = json, let value = Int64(digits) else {
            throw Failure(
                .notAnInteger, "The entry's value is not a 64-bit JSON integer, so it cannot be incremented.")
        }
        return value
    }
}
