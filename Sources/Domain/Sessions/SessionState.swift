// A session's state: keys and JSON values, read sparsely and changed as one.

/// A key and its value.
public struct StateEntry: Sendable, Equatable {
    public var key: Key
    /// Any JSON value; null is one.
    public var value: JSONText

    public init(key: Key, value: JSONText) {
        self.key = key
        self.value = value
    }
}

/// The state, or the part of it that was asked for, at one version.
public struct SessionState: Sendable, Equatable {
    public var version: Int64
    /// In the byte order of the keys; nil when the caller has this version already.
    public var entries: [StateEntry]?

    public init(version: Int64, entries: [StateEntry]?) {
        self.version = version
        self.entries = entries
    }
}

/// One value at one version of the state.
public struct StateValue: Sendable, Equatable {
    public var version: Int64
    /// nil when the caller has this version already.
    public var value: JSONText?

    public init(version: Int64, value: JSONText?) {
        self.version = version
        self.value = value
    }
}

/// Changes of a state, made as one in this order: keys are deleted, keys with a prefix are deleted, values are set, and
/// what is absent then is set to its default.
public struct StatePatch: Sendable, Equatable {
    public var set: [StateEntry]
    public var setDefault: [StateEntry]
    public var delete: [Key]
    public var deletePrefixes: [String]
    /// Spared by the prefixes, not by `delete`.
    public var keep: [Key]

    public init(
        set: [StateEntry] = [], setDefault: [StateEntry] = [], delete: [Key] = [], deletePrefixes: [String] = [],
        keep: [Key] = []
    ) {
        self.set = set
        self.setDefault = setDefault
        self.delete = delete
        self.deletePrefixes = deletePrefixes
        self.keep = keep
    }

    /// Whether it changes nothing if all its keys are present: the usual call of a front end that reruns.
    public var onlySetsDefaults: Bool { self.set.isEmpty && delete.isEmpty && deletePrefixes.isEmpty }

    /// About how many bytes it holds in memory.
    public var sizeBytes: Int { (self.set + setDefault).reduce(0) { $0 + $1.value.sizeBytes } }
}

/// What a patch did.
public struct StateChange: Sendable, Equatable {
    public var version: Int64
    /// The defaults that were set because their keys were absent.
    public var initializedKeys: [Key]
    /// Keys that were stored before and are no longer stored.
    public var removedKeys: [Key]
    /// Of the resolved state, afterwards.
    public var stateKeyCount: Int
    public var stateSizeBytes: Int

    public init(
        version: Int64, initializedKeys: [Key], removedKeys: [Key], stateKeyCount: Int, stateSizeBytes: Int
    ) {
        self.version = version
        self.initializedKeys = initializedKeys
        self.removedKeys = removedKeys
        self.stateKeyCount = stateKeyCount
        self.stateSizeBytes = stateSizeBytes
    }
}

/// Bounds of a state, as pure decisions.
public enum StateBounds {
    /// - Throws: `payload_too_large`.
    public static func check(_ entry: StateEntry) throws(Failure) {
        guard entry.value.sizeBytes <= Limits.maxStateValueBytes else {
            throw Failure(
                .payloadTooLarge,
                "The value of '\(entry.key)' has \(entry.value.sizeBytes) bytes; the maximum for one value is "
                    + "\(Limits.maxStateValueBytes). Nothing was stored.")
        }
    }

    /// Keeps a state within its bounds. One that already exceeds them, because its template grew, may still change or
    /// shrink.
    /// - Parameters: what the resolved state holds before and after a change.
    /// - Throws: `too_many_keys`, `payload_too_large`.
    public static func check(
        keys: Int, keysBefore: Int = 0, bytes: Int, bytesBefore: Int = 0
    ) throws(Failure) {
        guard keys <= Limits.maxKeysPerSession || keys <= keysBefore else {
            throw Failure(
                .tooManyKeys,
                "There would be \(keys) keys; the maximum is \(Limits.maxKeysPerSession). Nothing was stored.")
        }
        guard bytes <= Limits.maxStateBytes || bytes <= bytesBefore else {
            throw Failure(
                .payloadTooLarge,
                "The values would have \(bytes) bytes in all; the maximum is \(Limits.maxStateBytes). "
                    + "Nothing was stored.")
        }
    }
}
