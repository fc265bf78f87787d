// Templates: what sessions of one kind have in common.

/// What a template's owner decided.
public struct SessionTemplateDraft: Sendable, Equatable {
    /// Values that sessions have until they set their own. They take no space in a session until then.
    public var defaults: [StateEntry]
    /// Lifetime of new sessions; nil: the setting `session_ttl_seconds`.
    public var timeToLive: TimeToLive?
    /// Cap of the history of sessions without their own; nil: the setting `max_history_items`.
    public var maxHistoryItems: Int?

    public init(defaults: [StateEntry] = [], timeToLive: TimeToLive? = nil, maxHistoryItems: Int? = nil) {
        self.defaults = defaults
        self.timeToLive = timeToLive
        self.maxHistoryItems = maxHistoryItems
    }

    /// About how many bytes it holds in memory.
    public var sizeBytes: Int { defaults.reduce(0) { $0 + $1.value.sizeBytes } }
}

/// A template as it is now.
public struct SessionTemplate: Sendable, Equatable {
    public var name: Name
    /// Its defaults in the byte order of their keys.
    public var content: SessionTemplateDraft
    public var createdAt: Instant
    public var updatedAt: Instant
    /// Changes whenever anything in it does.
    public var tag: String

    public init(name: Name, content: SessionTemplateDraft, createdAt: Instant, updatedAt: Instant, tag: String) {
        self.name = name
        self.content = content
        self.createdAt = createdAt
        self.updatedAt = updatedAt
        self.tag = tag
    }
}
