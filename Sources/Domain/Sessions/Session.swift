// A session: what it is, and what is asked of it.

/// A session and its figures, without its state and history.
public struct Session: Sendable, Equatable {
    public var id: Name
    public var createdAt: Instant
    /// The latest read or write, including the one this answers.
    public var lastActiveAt: Instant
    public var timeToLive: TimeToLive
    /// Goes up with each transaction that changed the state, including changes of its template. Never repeats for an
    /// id, even if the session is removed: a new session begins above the versions of all that were removed.
    public var version: Int64
    /// The template's name, even if the template no longer exists.
    public var template: Name?
    public var metadata: JSONText
    /// Keys of the resolved state: what is stored, and defaults of the template it does not override.
    public var stateKeyCount: Int
    /// Bytes of their values.
    public var stateSizeBytes: Int
    public var historyCount: Int
    public var historySizeBytes: Int

    public init(
        id: Name, createdAt: Instant, lastActiveAt: Instant, timeToLive: TimeToLive, version: Int64, template: Name?,
        metadata: JSONText, stateKeyCount: Int, stateSizeBytes: Int, historyCount: Int, historySizeBytes: Int
    ) {
        self.id = id
        self.createdAt = createdAt
        self.lastActiveAt = lastActiveAt
        self.timeToLive = timeToLive
        self.version = version
        self.template = template
        self.metadata = metadata
        self.stateKeyCount = stateKeyCount
        self.stateSizeBytes = stateSizeBytes
        self.historyCount = historyCount
        self.historySizeBytes = historySizeBytes
    }

    /// When it expires if there is no more activity; nil for never.
    public var expiresAt: Instant? { timeToLive.expiry(from: lastActiveAt) }
}

/// What a new session is created from.
public struct SessionDraft: Sendable, Equatable {
    /// nil: the template's, else the setting `session_ttl_seconds`. Decided once, when the session is created.
    public var timeToLive: TimeToLive?
    public var template: Name?
    /// nil: the template's as it is at each append, else the setting `max_history_items`.
    public var maxHistoryItems: Int?
    /// An object.
    public var metadata: JSONText
    public var state: [StateEntry]

    public init(
        timeToLive: TimeToLive? = nil, template: Name? = nil, maxHistoryItems: Int? = nil,
        metadata: JSONText = JSONText([:]), state: [StateEntry] = []
    ) {
        self.timeToLive = timeToLive
        self.template = template
        self.maxHistoryItems = maxHistoryItems
        self.metadata = metadata
        self.state = state
    }
}

/// What opening a session did.
public struct SessionOpening: Sendable, Equatable {
    public var session: Session
    public var isNew: Bool
    /// The defaults that were set because their keys were absent.
    public var initializedKeys: [Key]

    public init(session: Session, isNew: Bool, initializedKeys: [Key]) {
        self.session = session
        self.isNew = isNew
        self.initializedKeys = initializedKeys
    }
}

/// What a session can be read with.
public enum SessionPart: String, Sendable, CaseIterable {
    case state, history
}

/// A session and parts of it, all as they were at one instant.
public struct SessionContents: Sendable {
    public var session: Session
    /// The resolved state, in the byte order of its keys; nil if it was not asked for.
    public var state: [StateEntry]?
    /// The newest items, the newest first: one page, of ``Limits/maxPageItems``; nil if they were not asked for.
    public var history: Page<HistoryItem>?

    public init(session: Session, state: [StateEntry]? = nil, history: Page<HistoryItem>? = nil) {
        self.session = session
        self.state = state
        self.history = history
    }
}

/// What optimizing a session removed.
public struct SessionOptimization: Sendable, Equatable {
    public var historyRemoved: Int
    public var keysRemoved: [Key]
    /// Bytes of the values and the data that went.
    public var freedBytes: Int

    public init(historyRemoved: Int, keysRemoved: [Key], freedBytes: Int) {
        self.historyRemoved = historyRemoved
        self.keysRemoved = keysRemoved
        self.freedBytes = freedBytes
    }
}

/// Keys that hold what can be computed again. Databases have these texts in a generated column, `is_temporary` of
/// `session_state`: changing one needs a migration.
public enum TemporaryKeys {
    public static let prefixes = ["temp_", "cache_"]
    /// What is kept unless a caller says otherwise, and always by the background task: the generation under way.
    public static let keptByDefault = Key(stored: "temp_current_generation")
}
