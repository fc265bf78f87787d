// A full disk, as the engine sees it. The real thing is in Tests/EndToEnd/test_disk.py.

import Domain
import Logging
import Synchronization
import TestSupport
import Testing

@testable import SQLiteStorage

/// A file system of which the test says what is left. What the reserve takes is not available to others.
private final class Disk: Sendable {
    private let state: Mutex<(free: Int, reserve: Int)>

    init(free: Int) { state = Mutex((free, 0)) }

    var free: Int {
        get { state.withLock { $0.free } }
        set { state.withLock { $0.free = newValue } }
    }
    var reserve: Int { state.withLock { $0.reserve } }

    var volume: DiskSpace.Volume {
        DiskSpace.Volume(
            freeBytes: { _ in self.free },
            allocate: { _, bytes in
                self.state.withLock { state in
                    guard state.free + state.reserve >= bytes else { return false }
                    state.free -= bytes - state.reserve
                    state.reserve = bytes
                    return true
                }
            },
            shorten: { _, bytes in
                self.state.withLock { state in
                    state.free += state.reserve - bytes
                    state.reserve = bytes
                }
            }, trustMilliseconds: 0)
    }
}

/// Keeps the messages that are logged.
private struct RecordingHandler: LogHandler {
    let messages: Shared<[String]>
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level = .debug

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { messages.change { $0.append("\(event.message)") } }
}

struct DiskSpaceTests {
    private static let ample = 100 * StorageLimits.reserveBytes

    private func run(
        on disk: Disk, logger: Logger = quietLogger, _ body: (SQLiteStorage, ManualClock) async throws -> Void
    ) async throws {
        let folder = TemporaryFolder()
        let clock = ManualClock()
        let storage = try SQLiteStorage(
            path: folder.file("reprise.db"), settings: LiveSettings(.quick), clock: clock.wallClock, logger: logger,
            volume: disk.volume)
        do {
            try await body(storage, clock)
        } catch {
            await storage.close()
            throw error
        }
        await storage.close()
    }

    @Test func spaceIsReservedFromTheStart() async throws {
        let disk = Disk(free: Self.ample)
        try await run(on: disk) { storage, _ in
            #expect(disk.reserve == StorageLimits.reserveBytes)
            #expect(!storage.space.isShort)
        }
        // For the next start.
        #expect(disk.reserve == StorageLimits.reserveBytes)
    }

    @Test func onlyWhatTakesSpaceIsRefused() async throws {
        let disk = Disk(free: Self.ample)
        try await run(on: disk) { storage, _ in
            for key in ["a", "b", "c", "d"] { try await storage.put(key, in: .n) }
            try await storage.put("x", in: Name(stored: "other"))
            _ = try await storage.createSession(Name(stored: "s"), SessionDraft())
            disk.free = 0
            #expect(await code { try await storage.put("e") } == .storageFull)
            #expect(await code { try await storage.checkReadiness() } == .storageFull)
            #expect(await code { try await storage.touch(EntryAddress("a"), timeToLive: nil) } == .storageFull)
            #expect(await code { try await storage.createSession(Name(stored: "t"), SessionDraft()) } == .storageFull)
            #expect(await code { _ = try await storage.beginUpload().append([1]) } == .storageFull)
            // Reading, and removing in every way.
            #expect(try await storage.text("a") == "value")
            _ = try await storage.session(Name(stored: "s"))
            try await storage.delete("a")
            let deletion = CacheOperation.delete(Key(stored: "b"), condition: .none)
            _ = try await storage.batch([deletion], namespace: .n, atomic: true)
            _ = try await storage.clear(.n, filter: EntryFilter(prefix: "c"))
            _ = try await storage.clearAll(tag: nil)
            try await storage.removeNamespace(Name(stored: "other"))
            try await storage.removeSession(Name(stored: "s"))
            _ = try await storage.changeSettingOverrides(["cache_ttl_seconds": "5"], of: nil)
            #expect(try await storage.keys() == [])
            for task in storage.tasks { _ = try await storage.perform(task.task, isDryRun: false) }
            // Explanations take space.
            #expect(await storage.missReason("a") == .absent)
        }
    }

    /// Even an operation that has nothing to remember must find out by itself that there is space again.
    @Test func itEndsBySpaceTask() async throws {
        let disk = Disk(free: Self.ample)
        try await run(on: disk) { storage, _ in
            disk.free = 0
            #expect(await code { try await storage.put("a") } == .storageFull)
            #expect(storage.backlog().deadlines[.space] != nil)
            // Enough to go on, but not enough not to be full again at once.
            disk.free = StorageLimits.reserveMarginBytes - 1
            _ = try await storage.perform(.space, isDryRun: false)
            #expect(await code { try await storage.put("a") } == .storageFull)
            disk.free = StorageLimits.reserveMarginBytes
            _ = try await storage.perform(.space, isDryRun: false)
            try await storage.put("a")
            #expect(storage.backlog().deadlines[.space] == nil)
        }
    }

    @Test func theReserveIsMadeAgain() {
        let disk = Disk(free: Self.ample)
        let space = DiskSpace(database: "/none/x.db", logger: quietLogger, volume: disk.volume)
        space.start()
        disk.free = 0
        space.begin()
        #expect(space.giveUpReserve())
        #expect(disk.free == StorageLimits.reservePartBytes)
        while space.giveUpReserve() {}
        #expect(disk.free == StorageLimits.reserveBytes)
        disk.free = StorageLimits.reserveBytes + StorageLimits.reserveMarginBytes - 1
        #expect(!space.restore(besides: 0))
        disk.free += 1
        #expect(!space.restore(besides: 1))
        #expect(space.isShort && disk.reserve == 0)
        #expect(space.restore(besides: 0))
        #expect(!space.isShort && disk.reserve == StorageLimits.reserveBytes)
    }

    @Test func withoutRoomForTheReserveItStartsFull() async throws {
        let disk = Disk(free: StorageLimits.reserveBytes)
        try await run(on: disk) { storage, _ in
            #expect(await code { try await storage.put("a") } == .storageFull)
            #expect(storage.space.figures.isShort)
            #expect(storage.space.figures.refusedWrites == 1)
            disk.free = Self.ample
            _ = try await storage.perform(.space, isDryRun: false)
            try await storage.put("a")
        }
    }

    /// A write is refused before it would leave too little for the log to be written back.
    @Test func aWriteLeavesSpaceForItsOwnCheckpoint() async throws {
        let disk = Disk(free: Self.ample)
        try await run(on: disk) { storage, _ in
            try await storage.put("a")
            disk.free = StorageLimits.minFreeBytes + 3 * 1024 * 1024
            let large = [UInt8](repeating: 1, count: 2 * 1024 * 1024)
            #expect(await code { try await storage.put("large", large) } == .storageFull)
        }
    }

    @Test func theLogIsLimited() {
        let disk = Disk(free: Self.ample)
        let messages = Shared<[String]>([])
        let now = Shared<Int64>(0)
        let logger = Logger(label: "test") { _ in RecordingHandler(messages: messages) }
        let space = DiskSpace(
            database: "/none/x.db", logger: logger, volume: disk.volume, milliseconds: { now.value })
        space.start()
        disk.free = 0
        for _ in 0..<100 {
            space.begin()
            _ = space.refusal()
            space.restore(besides: 0)
        }
        #expect(messages.value.count == 1)
        for _ in 0..<3 {
            now.set(now.value + StorageLimits.shortageReminderMilliseconds)
            for _ in 0..<3 { space.restore(besides: 0) }
        }
        #expect(messages.value.count == 4)
        disk.free = Self.ample
        space.restore(besides: 0)
        #expect(messages.value.count == 5)
        #expect(messages.value.first?.contains("full") == true)
        #expect(messages.value.last?.contains("again") == true)
        // Full again and again within a minute.
        for _ in 0..<5 {
            disk.free = 0
            space.begin()
            disk.free = Self.ample
            space.restore(besides: 0)
        }
        #expect(messages.value.count == 5)
    }
}
