// What a session's history keeps, and what is asked of it.

/// An item of a session's history.
public struct HistoryItem: Sendable, Equatable {
    public var id: Name
    public var sessionID: Name
    /// What sort of item it is, in its owner's words.
    public var kind: Name?
    public var data: JSONText
    public var createdAt: Instant
    public var updatedAt: Instant
    /// Changes whenever the data does; never equals that of another item.
    public var tag: String

    public init(
        id: Name, sessionID: Name, kind: Name?, data: JSONText, createdAt: Instant, updatedAt: Instant, tag: String
    ) {
        self.id = id
        self.sessionID = sessionID
        self.kind = kind
        self.data = data
        self.createdAt = createdAt
        self.updatedAt = updatedAt
        self.tag = tag
    }

    /// Bytes of its data.
    public var sizeBytes: Int { data.sizeBytes }

    /// - Throws: `payload_too_large` when data of this size cannot be stored.
    public static func check(sizeBytes: Int) throws(Failure) {
        guard sizeBytes <= Limits.maxHistoryItemBytes else {
            throw Failure(
                .payloadTooLarge,
                "The data has \(sizeBytes) bytes; the maximum for one item is \(Limits.maxHistoryItemBytes). "
                    + "Nothing was stored.")
        }
    }
}

/// What is to become an item.
public struct HistoryDraft: Sendable, Equatable {
    /// Chosen by the caller, so that a retry after a broken connection does not append twice; or random.
    public var id: Name
    public var kind: Name?
    public var data: JSONText

    public init(id: Name, kind: Name? = nil, data: JSONText) {
        self.id = id
        self.kind = kind
        self.data = data
    }
}

/// What an append did.
public struct HistoryAppend: Sendable, Equatable {
    public var item: HistoryItem
    /// False when an item of that id already existed: it is `item`, and nothing was appended.
    public var isNew: Bool
    /// Items beyond the cap that were removed.
    public var removed: Int

    public init(item: HistoryItem, isNew: Bool, removed: Int) {
        self.item = item
        self.isNew = isNew
        self.removed = removed
    }
}

/// In which order history is read.
public enum HistoryOrder: String, Sendable, CaseIterable {
    case newest, oldest
}

/// Which items of all sessions are read.
public struct HistoryFilter: Sendable, Equatable {
    public var kind: Name?
    /// Created then or later.
    public var since: Instant?
    /// Created before that.
    public var until: Instant?

    public init(kind: Name? = nil, since: Instant? = nil, until: Instant? = nil) {
        self.kind = kind
        self.since = since
        self.until = until
    }
}
