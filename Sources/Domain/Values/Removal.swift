// What a clear, a sweep or an eviction took away.

/// What a removal removed: live entries and the bytes of their values.
public struct Removal: Sendable, Equatable {
    public var removed: Int
    public var freedBytes: Int

    public init(removed: Int = 0, freedBytes: Int = 0) {
        self.removed = removed
        self.freedBytes = freedBytes
    }

    public static func += (total: inout Self, part: Self) {
        total.removed += part.removed
        total.freedBytes += part.freedBytes
    }
}
