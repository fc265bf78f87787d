// What the cache keeps, and what is asked of it.

/// The address of an entry: a key in a namespace.
public struct EntryAddress: Hashable, Sendable {
    public var namespace: Name
    public var key: Key

    public init(namespace: Name, key: Key) {
        self.namespace = namespace
        self.key = key
    }
}

/// A strong entity tag: the SHA-256 of a value's bytes.
public struct EntityTag: Hashable, Sendable {
    /// The 32 bytes of the digest.
    public let digest: [UInt8]

    public init(digest: [UInt8]) {
        self.digest = digest
    }

    /// From 64 hexadecimal digits; nil for anything else.
    public init?(hex: String) {
        let digits = hex.utf8.map { Character(Unicode.Scalar($0)).hexDigitValue }
        guard digits.count == 64, digits.allSatisfy({ $0 != nil }) else { return nil }
        digest = stride(from: 0, to: 64, by: 2).map { UInt8(digits[$0]! << 4 | digits[$0 + 1]!) }
    }

    /// Lower-case hexadecimal, as `sha256sum` prints it. Header fields put it in quotes.
    public var hex: String {
        String(unsafeUninitializedCapacity: digest.count * 2) { out in
            let digits: StaticString = "0123456789abcdef"
            for (index, byte) in digest.enumerated() {
                out[index * 2] = digits.utf8Start[Int(byte >> 4)]
                out[index * 2 + 1] = digits.utf8Start[Int(byte & 15)]
            }
            return digest.count * 2
        }
    }
}

/// The representation data a value is served with.
public struct ContentDescription: Sendable, Equatable {
    /// `Content-Type` as it was sent; nil when none was.
    public var type: String?
    /// `Content-Encoding` as it was sent; nil when none was.
    public var encoding: String?

    public init(type: String?, encoding: String? = nil) {
        self.type = type
        self.encoding = encoding
    }
}

/// A live entry as a reader gets it.
public struct CacheHit: Sendable {
    public var content: StoredContent
    public var description: ContentDescription
    public var sizeBytes: Int
    public var entityTag: EntityTag
    public var updatedAt: Instant
    public var expiresAt: Instant?
    /// The instant for which this answer was true.
    public var asOf: Instant

    public init(
        content: StoredContent, description: ContentDescription, sizeBytes: Int, entityTag: EntityTag,
        updatedAt: Instant, expiresAt: Instant?, asOf: Instant
    ) {
        self.content = content
        self.description = description
        self.sizeBytes = sizeBytes
        self.entityTag = entityTag
        self.updatedAt = updatedAt
        self.expiresAt = expiresAt
        self.asOf = asOf
    }
}

/// The bytes of a stored value: in memory, or to be read piece by piece.
public enum StoredContent: Sendable {
    case bytes([UInt8])
    case large(any LargeValue)
}

/// A large value being read. It stays readable while anyone holds it, even if its entry is replaced or removed.
public protocol LargeValue: Sendable {
    /// Up to `count` bytes from `offset` on, at least one while `offset` lies inside the value.
    /// - Parameter count: at most ``Limits/chunkBytes``.
    /// - Throws: `deadline_exceeded`, `overloaded` and the storage failures.
    func read(from offset: Int, atMost count: Int) async throws -> [UInt8]
}

extension LargeValue {
    /// As much as can be read at once.
    public func read(from offset: Int) async throws -> [UInt8] {
        try await read(from: offset, atMost: Limits.chunkBytes)
    }
}

/// A large value being written. Invisible, and swept away if abandoned, until it becomes the content of a
/// ``CacheWrite``.
public protocol ValueUpload: Sendable {
    /// Appends ``Limits/chunkBytes`` bytes, or what is left at the end of the value; returns when the storage has
    /// accepted them, which slows a fast sender down.
    /// - Throws: `overloaded` and the storage failures.
    func append(_ bytes: [UInt8]) async throws
}

/// The new value of an entry.
public enum NewContent: Sendable {
    /// All of it. Any size the limits allow.
    case bytes([UInt8])
    /// Already written by ``CacheStore/beginUpload()``.
    case uploaded(any ValueUpload)
}

/// A value to store.
public struct CacheWrite: Sendable {
    public var key: Key
    public var content: NewContent
    public var sizeBytes: Int
    public var entityTag: EntityTag
    public var description: ContentDescription
    /// nil: the namespace's, else the setting `cache_ttl_seconds`.
    public var timeToLive: TimeToLive?
    public var tags: [Tag]
    /// What the caller says the value took to compute.
    public var computeSeconds: Double?
    public var condition: EntityCondition

    public init(
        key: Key, content: NewContent, sizeBytes: Int, entityTag: EntityTag, description: ContentDescription,
        timeToLive: TimeToLive? = nil, tags: [Tag] = [], computeSeconds: Double? = nil,
        condition: EntityCondition = .none
    ) {
        self.key = key
        self.content = content
        self.sizeBytes = sizeBytes
        self.entityTag = entityTag
        self.description = description
        self.timeToLive = timeToLive
        self.tags = tags
        self.computeSeconds = computeSeconds
        self.condition = condition
    }
}

/// What a store did.
public struct CacheWriteOutcome: Sendable, Equatable {
    /// True if there was no live entry before.
    public var created: Bool
    public var entityTag: EntityTag
    public var expiresAt: Instant?

    public init(created: Bool, entityTag: EntityTag, expiresAt: Instant?) {
        self.created = created
        self.entityTag = entityTag
        self.expiresAt = expiresAt
    }
}

/// Everything known about an entry except its value.
public struct CacheMetadata: Sendable, Equatable {
    public var address: EntryAddress
    public var sizeBytes: Int
    public var description: ContentDescription
    public var entityTag: EntityTag
    public var createdAt: Instant
    public var updatedAt: Instant
    public var expiresAt: Instant?
    public var timeToLive: TimeToLive
    public var hitCount: Int
    public var lastAccessedAt: Instant?
    public var tags: [Tag]
    public var computeSeconds: Double?
    /// The instant for which this answer was true.
    public var asOf: Instant

    public init(
        address: EntryAddress, sizeBytes: Int, description: ContentDescription, entityTag: EntityTag,
        createdAt: Instant, updatedAt: Instant, expiresAt: Instant?, timeToLive: TimeToLive, hitCount: Int,
        lastAccessedAt: Instant?, tags: [Tag], computeSeconds: Double?, asOf: Instant
    ) {
        self.address = address
        self.sizeBytes = sizeBytes
        self.description = description
        self.entityTag = entityTag
        self.createdAt = createdAt
        self.updatedAt = updatedAt
        self.expiresAt = expiresAt
        self.timeToLive = timeToLive
        self.hitCount = hitCount
        self.lastAccessedAt = lastAccessedAt
        self.tags = tags
        self.computeSeconds = computeSeconds
        self.asOf = asOf
    }
}

/// Which entries of a namespace a list or a clear is about.
public struct EntryFilter: Sendable, Equatable {
    public var prefix: String?
    public var tag: Tag?
    /// Only entries whose value is older than this.
    public var olderThanMilliseconds: Int64?

    public init(prefix: String? = nil, tag: Tag? = nil, olderThanMilliseconds: Int64? = nil) {
        self.prefix = prefix
        self.tag = tag
        self.olderThanMilliseconds = olderThanMilliseconds
    }

    public var isEmpty: Bool { self == EntryFilter() }
}
