// Shorthands for tests of the cache.

import Crypto
import Domain

extension EntityTag {
    package init(of bytes: [UInt8]) { self.init(digest: Array(SHA256.hash(data: bytes))) }
}

extension Name {
    package static let n = Name(stored: "n")
}

extension EntryAddress {
    package init(_ key: String, in namespace: Name = .n) { self.init(namespace: namespace, key: Key(stored: key)) }
}

extension TimeToLive {
    package static func milliseconds(_ milliseconds: Int64) -> TimeToLive { .finite(milliseconds: milliseconds) }
}

extension CacheWrite {
    package init(
        _ key: String, _ bytes: [UInt8], lifetime: TimeToLive? = nil, tags: [String] = [],
        condition: EntityCondition = .none
    ) {
        self.init(
            key: Key(stored: key), content: .bytes(bytes), sizeBytes: bytes.count, entityTag: EntityTag(of: bytes),
            description: ContentDescription(type: "text/plain"), timeToLive: lifetime,
            tags: tags.map { Tag(stored: $0) }, condition: condition)
    }
}

extension CacheStore {
    @discardableResult
    package func put(
        _ key: String, _ text: String = "value", in namespace: Name = .n, lifetime: TimeToLive? = nil,
        tags: [String] = [], condition: EntityCondition = .none
    ) async throws -> CacheWriteOutcome {
        try await put(
            key, Array(text.utf8), in: namespace, lifetime: lifetime, tags: tags, condition: condition)
    }

    @discardableResult
    package func put(
        _ key: String, _ bytes: [UInt8], in namespace: Name = .n, lifetime: TimeToLive? = nil, tags: [String] = [],
        condition: EntityCondition = .none
    ) async throws -> CacheWriteOutcome {
        try await write(
            CacheWrite(key, bytes, lifetime: lifetime, tags: tags, condition: condition), namespace: namespace)
    }

    /// Stores a value through an upload, chunk by chunk.
    @discardableResult
    package func upload(_ key: String, _ bytes: [UInt8], in namespace: Name = .n) async throws -> CacheWriteOutcome {
        let upload = try await beginUpload()
        for start in stride(from: 0, to: bytes.count, by: Limits.chunkBytes) {
            try await upload.append(Array(bytes[start..<min(start + Limits.chunkBytes, bytes.count)]))
        }
        var write = CacheWrite(key, bytes)
        write.content = .uploaded(upload)
        return try await self.write(write, namespace: namespace)
    }

    /// The value in full.
    package func bytes(_ key: String, in namespace: Name = .n) async throws -> [UInt8] {
        try await read(EntryAddress(key, in: namespace)).bytes()
    }

    package func text(_ key: String, in namespace: Name = .n) async throws -> String {
        String(decoding: try await bytes(key, in: namespace), as: UTF8.self)
    }

    /// The keys of all live entries, as listed.
    package func keys(
        in namespace: Name = .n, prefix: String? = nil, tag: String? = nil, after key: String? = nil, limit: Int = 500
    ) async throws -> [String] {
        let filter = EntryFilter(prefix: prefix, tag: tag.map { Tag(stored: $0) })
        return try await list(namespace, filter: filter, after: key, limit: limit).map(\.address.key.rawValue)
    }

    /// Why reading the key misses; nil if it does not.
    package func missReason(_ key: String, in namespace: Name = .n) async -> MissReason? {
        await miss(key, in: namespace)?.reason
    }

    /// The failure when reading the key misses; nil if it does not.
    package func miss(_ key: String, in namespace: Name = .n) async -> CacheMiss? {
        await TestSupport.failure { try await self.read(EntryAddress(key, in: namespace)) }?.miss
    }

    @discardableResult
    package func touch(_ address: EntryAddress, timeToLive: TimeToLive?) async throws -> CacheMetadata {
        try await touch(address, timeToLive: timeToLive, condition: .none)
    }

    package func delete(_ key: String) async throws { try await delete(EntryAddress(key), condition: .none) }
}

extension CacheHit {
    package func bytes() async throws -> [UInt8] {
        switch content {
        case .bytes(let bytes): return bytes
        case .large(let value):
            var bytes: [UInt8] = []
            while bytes.count < sizeBytes { bytes += try await value.read(from: bytes.count) }
            return bytes
        }
    }
}
