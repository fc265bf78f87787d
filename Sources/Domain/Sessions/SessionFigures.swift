// What sessions and their history hold, all together.

public struct SessionFigures: Sendable, Equatable {
    public struct Largest: Sendable, Equatable {
        public var id: Name
        public var stateKeyCount: Int
        public var stateSizeBytes: Int
        public var historyCount: Int
        public var lastActiveAt: Instant

        public init(id: Name, stateKeyCount: Int, stateSizeBytes: Int, historyCount: Int, lastActiveAt: Instant) {
            self.id = id
            self.stateKeyCount = stateKeyCount
            self.stateSizeBytes = stateSizeBytes
            self.historyCount = historyCount
            self.lastActiveAt = lastActiveAt
        }
    }

    public var sessionCount: Int
    public var stateKeyCount: Int
    public var stateSizeBytes: Int
    /// By the bytes of their state, a bounded number of them.
    public var largest: [Largest]

    public init(sessionCount: Int, stateKeyCount: Int, stateSizeBytes: Int, largest: [Largest]) {
        self.sessionCount = sessionCount
        self.stateKeyCount = stateKeyCount
        self.stateSizeBytes = stateSizeBytes
        self.largest = largest
    }
}

public struct HistoryFigures: Sendable, Equatable {
    public var itemCount: Int
    public var sizeBytes: Int
    /// The most frequent kinds, a bounded number of them.
    public var byKind: [(kind: Name?, itemCount: Int)]

    public init(itemCount: Int, sizeBytes: Int, byKind: [(kind: Name?, itemCount: Int)]) {
        self.itemCount = itemCount
        self.sizeBytes = sizeBytes
        self.byKind = byKind
    }

    public static func == (a: Self, b: Self) -> Bool {
        a.itemCount == b.itemCount && a.sizeBytes == b.sizeBytes && a.byKind.elementsEqual(b.byKind, by: ==)
    }
}
