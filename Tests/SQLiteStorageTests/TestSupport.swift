// What the tests of the storage share: a folder that goes away, a clock moved by hand, a storage on a real file.

import Crypto
import Dispatch
import Domain
import FoundationEssentials
import Glibc
import Logging
import Synchronization

@testable import SQLiteStorage

/// A folder of its own under the system's temporary folder, removed with the last reference.
final class TemporaryFolder: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/reprise-tests-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }
    func contents(_ name: String) -> [UInt8]? { FileManager.default.contents(atPath: file(name)).map { Array($0) } }
    func size(_ name: String) -> Int { contents(name)?.count ?? 0 }
}

/// A clock that stands until it is moved.
final class ManualClock: Sendable {
    private let milliseconds: Atomic<Int64>

    init(_ start: Instant = Instant(milliseconds: 1_800_000_000_000)) {
        milliseconds = Atomic(start.milliseconds)
    }

    var now: Instant { Instant(milliseconds: milliseconds.load(ordering: .sequentiallyConsistent)) }
    var wallClock: WallClock { WallClock { self.now } }

    func advance(milliseconds step: Int64) {
        milliseconds.wrappingAdd(step, ordering: .sequentiallyConsistent)
    }
}

/// Closed at first; who waits goes on once it is opened.
final class Gate: Sendable {
    private let semaphore = DispatchSemaphore(value: 0)

    func wait() { semaphore.wait() }
    func open() { semaphore.signal() }
}

/// A value several tasks share.
final class Shared<Value: Sendable>: Sendable {
    private let mutex: Mutex<Value>

    init(_ value: Value) { mutex = Mutex(value) }

    var value: Value { mutex.withLock { $0 } }
    func set(_ value: Value) { mutex.withLock { $0 = value } }
    func change(_ body: @Sendable (inout Value) -> Void) { mutex.withLock { body(&$0) } }
}

let quietLogger = Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() }

extension Settings {
    /// Without waiting for the disk: no test pulls the plug.
    static var quick: Settings {
        var settings = Settings()
        settings.set(.durability, to: .text("normal"), source: .flag)
        return settings
    }
}

func makeStorage(
    in folder: TemporaryFolder, clock: ManualClock, settings: LiveSettings = LiveSettings(.quick)
) throws -> SQLiteStorage {
    try SQLiteStorage(
        path: folder.file("reprise.db"), settings: settings, clock: clock.wallClock, logger: quietLogger)
}

/// Runs `body` on a new storage and closes it, however `body` ends.
func withStorage(
    settings: LiveSettings = LiveSettings(.quick), _ body: (SQLiteStorage, ManualClock) async throws -> Void
) async throws {
    let folder = TemporaryFolder()
    let clock = ManualClock()
    let storage = try makeStorage(in: folder, clock: clock, settings: settings)
    do {
        try await body(storage, clock)
    } catch {
        await storage.close()
        throw error
    }
    await storage.close()
}

/// What `body` fails with; nil if it succeeds.
func failure<T>(of body: () async throws -> T) async -> Failure? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error as? Failure
    }
}

/// The code `body` fails with; nil if it succeeds.
func code<T>(of body: () async throws -> T) async -> Failure.Code? {
    await failure(of: body)?.code
}

extension EntityTag {
    init(of bytes: [UInt8]) { self.init(digest: Array(SHA256.hash(data: bytes))) }
}

extension Name {
    static let n = Name(stored: "n")
}

extension EntryAddress {
    init(_ key: String, in namespace: Name = .n) { self.init(namespace: namespace, key: Key(stored: key)) }
}

extension TimeToLive {
    static func milliseconds(_ milliseconds: Int64) -> TimeToLive { .finite(milliseconds: milliseconds) }
}

extension CacheWrite {
    init(
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
    func put(
        _ key: String, _ text: String = "value", in namespace: Name = .n, lifetime: TimeToLive? = nil,
        tags: [String] = [], condition: EntityCondition = .none
    ) async throws -> CacheWriteOutcome {
        try await put(
            key, Array(text.utf8), in: namespace, lifetime: lifetime, tags: tags, condition: condition)
    }

    @discardableResult
    func put(
        _ key: String, _ bytes: [UInt8], in namespace: Name = .n, lifetime: TimeToLive? = nil, tags: [String] = [],
        condition: EntityCondition = .none
    ) async throws -> CacheWriteOutcome {
        try await write(
            CacheWrite(key, bytes, lifetime: lifetime, tags: tags, condition: condition), namespace: namespace)
    }

    /// Stores a value through an upload, chunk by chunk.
    @discardableResult
    func upload(_ key: String, _ bytes: [UInt8], in namespace: Name = .n) async throws -> CacheWriteOutcome {
        let upload = try await beginUpload()
        for start in stride(from: 0, to: bytes.count, by: Limits.chunkBytes) {
            try await upload.append(Array(bytes[start..<min(start + Limits.chunkBytes, bytes.count)]))
        }
        var write = CacheWrite(key, bytes)
        write.content = .uploaded(upload)
        return try await self.write(write, namespace: namespace)
    }

    /// The value in full.
    func bytes(_ key: String, in namespace: Name = .n) async throws -> [UInt8] {
        try await read(EntryAddress(key, in: namespace)).bytes()
    }

    func text(_ key: String, in namespace: Name = .n) async throws -> String {
        String(decoding: try await bytes(key, in: namespace), as: UTF8.self)
    }

    /// The keys of all live entries, as the list tells them.
    func keys(
        in namespace: Name = .n, prefix: String? = nil, tag: String? = nil, after key: String? = nil, limit: Int = 500
    ) async throws -> [String] {
        let filter = EntryFilter(prefix: prefix, tag: tag.map { Tag(stored: $0) })
        return try await list(namespace, filter: filter, after: key, limit: limit).map(\.address.key.rawValue)
    }

    /// Why reading the key misses; nil if it does not.
    func missReason(_ key: String, in namespace: Name = .n) async -> MissReason? {
        await miss(key, in: namespace)?.reason
    }

    /// What reading the key answers when it misses; nil if it does not.
    func miss(_ key: String, in namespace: Name = .n) async -> CacheMiss? {
        await failure { try await self.read(EntryAddress(key, in: namespace)) }?.miss
    }

    private func failure<T>(_ body: () async throws -> T) async -> Failure? {
        await SQLiteStorageTests.failure(of: body)
    }

    @discardableResult
    func touch(_ address: EntryAddress, timeToLive: TimeToLive?) async throws -> CacheMetadata {
        try await touch(address, timeToLive: timeToLive, condition: .none)
    }

    func delete(_ key: String) async throws { try await delete(EntryAddress(key), condition: .none) }
}

extension CacheHit {
    func bytes() async throws -> [UInt8] {
        switch content {
        case .bytes(let bytes): return bytes
        case .large(let value):
            var bytes: [UInt8] = []
            while bytes.count < sizeBytes { bytes += try await value.read(from: bytes.count) }
            return bytes
        }
    }
}

/// Bytes without a pattern a mixture could hide in; other for each seed.
func noise(_ count: Int, seed: Int = 0) -> [UInt8] {
    var state = UInt64(truncatingIfNeeded: seed) &* 0x9E37_79B9_7F4A_7C15 | 1
    return (0..<count).map { _ in
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return UInt8(truncatingIfNeeded: state >> 32)
    }
}
