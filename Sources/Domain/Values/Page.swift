// Parts of a collection, and where the next one begins.

/// A place in a collection ordered by an instant and, among equals, by a number.
public struct CollectionPosition: Sendable, Equatable {
    public var instant: Instant
    public var number: Int64

    public init(instant: Instant, number: Int64) {
        self.instant = instant
        self.number = number
    }
}

/// A part of a collection.
public struct Page<Item: Sendable>: Sendable {
    public var items: [Item]
    /// Where the next page begins; nil after the last item.
    public var next: CollectionPosition?

    public init(items: [Item], next: CollectionPosition?) {
        self.items = items
        self.next = next
    }
}
