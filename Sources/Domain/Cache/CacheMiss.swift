// Why there is nothing to read under a key.

/// Why a look-up found no live entry.
/// The raw values are stored in databases: changing one needs a migration.
public enum MissReason: String, Sendable, CaseIterable {
    /// Nothing is known about the key: it was never stored, or its removal has been forgotten.
    case absent
    /// What was stored outlived its lifetime.
    case expired
    /// What was stored made room for other entries of its namespace.
    case evicted
    /// What was stored was removed by its key.
    case deleted
    /// What was stored was removed by a clear: of its namespace, of a prefix, an age or a tag.
    case cleared
}

/// Why an entry was removed. Every removal records one of these, so that a later miss can be explained. The raw values
/// are stored in databases: changing one needs a migration.
public enum RemovalReason: String, Sendable, CaseIterable {
    case expired, evicted, deleted, cleared

    /// The reason a miss gives for it.
    public var missReason: MissReason {
        switch self {
        case .expired: .expired
        case .evicted: .evicted
        case .deleted: .deleted
        case .cleared: .cleared
        }
    }
}

/// That an entry was removed, and when.
public struct EntryRemoval: Hashable, Sendable {
    public var reason: RemovalReason
    /// For an expired entry: its expiry, whenever its row goes.
    public var instant: Instant

    public init(_ reason: RemovalReason, at instant: Instant) {
        self.reason = reason
        self.instant = instant
    }

    /// The removal of an entry of a cleared namespace, which was removed by whichever came first: its expiry or the
    /// clear.
    public init(clearedAt: Instant, expiry: Instant?) {
        if let expiry, expiry <= clearedAt {
            self.init(.expired, at: expiry)
        } else {
            self.init(.cleared, at: clearedAt)
        }
    }
}

/// The answer to a look-up that found no live entry.
public struct CacheMiss: Hashable, Sendable {
    public let reason: MissReason
    /// When the entry was removed; nil for `absent`.
    public let removedAt: Instant?

    private init(reason: MissReason, removedAt: Instant?) {
        self.reason = reason
        self.removedAt = removedAt
    }

    public static let absent = CacheMiss(reason: .absent, removedAt: nil)

    /// A miss explained by the latest of the removals known for a key. Removals older than
    /// ``Limits/removalMemoryMilliseconds`` are forgotten, whether their records are still there or not. One in the
    /// future was recorded before the clock was set back, and counts as one of now.
    public init(after removals: [EntryRemoval], now: Instant) {
        let horizon = now.advanced(milliseconds: -Limits.removalMemoryMilliseconds)
        guard let latest = removals.max(by: { $0.instant < $1.instant }), latest.instant >= horizon else {
            self = .absent
            return
        }
        self.init(reason: latest.reason.missReason, removedAt: min(latest.instant, now))
    }

    /// For a person.
    var detail: String {
        let when = removedAt?.rfc3339 ?? ""
        return switch reason {
        case .absent: "There is no live entry under this key, and no record of one."
        case .expired: "The entry under this key expired at \(when)."
        case .evicted: "The entry under this key was evicted at \(when) because its namespace was full."
        case .deleted: "The entry under this key was deleted at \(when)."
        case .cleared: "The entry under this key was cleared at \(when), together with others."
        }
    }
}
