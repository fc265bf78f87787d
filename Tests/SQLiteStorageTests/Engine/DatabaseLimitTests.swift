// max_database_bytes: what is kept, what is refused, and that the files never exceed it.

import Domain
import Synchronization
import TestSupport
import Testing

@testable import SQLiteStorage

struct DatabaseLimitTests {
    private static let limit = Limits.leastDatabaseBytes
    private static let megabyte = 1024 * 1024
    private static let s = Name(stored: "s")

    private let folder = TemporaryFolder()
    private let live: LiveSettings

    init() { live = Self.settings(limit: Self.limit) }

    private static func settings(limit: Int) -> LiveSettings {
        var settings = Settings.quick
        settings.set(.maxDatabaseBytes, to: .integer(limit), source: .flag)
        return LiveSettings(settings)
    }

    private func run(
        _ settings: LiveSettings? = nil, _ body: (SQLiteStorage, ManualClock) async throws -> Void
    ) async throws {
        let clock = ManualClock()
        let storage = try makeStorage(in: folder, clock: clock, settings: settings ?? live)
        do {
            try await body(storage, clock)
        } catch {
            await storage.close()
            throw error
        }
        await storage.close()
    }

    private var size: Int {
        ["reprise.db", "reprise.db-wal"].reduce(0) { $0 + (FileSystem.size(of: folder.file($1)) ?? 0) }
    }

    private func bytes(_ seed: UInt8, _ count: Int) -> [UInt8] { [UInt8](repeating: seed, count: count) }

    @Test func theLeastRecentlyUsedOfAllNamespacesGiveWay() async throws {
        try await run { storage, clock in
            for number in 0..<60 {
                let namespace = Name(stored: "n\(number % 3)")
                try await storage.put("k\(number)", bytes(1, Self.megabyte), in: namespace, lifetime: .never)
                clock.advance(milliseconds: 10)
                // Used again and again, it stays.
                _ = try await storage.read(EntryAddress("k0", in: Name(stored: "n0")))
                #expect(size <= Self.limit)
            }
            let kept = try await (0..<3).asyncMap { try await storage.keys(in: Name(stored: "n\($0)")) }.flatMap { $0 }
            #expect(kept.count > 20 && kept.count < 40)
            let newest = Set((60 - kept.count + 1..<60).map { "k\($0)" })
            #expect(Set(kept) == newest.union(["k0"]))
            #expect(await storage.missReason("k1", in: Name(stored: "n1")) == .evicted)
            #expect(try await storage.namespace(Name(stored: "n1")).evictions > 0)
        }
    }

    @Test func smallValuesGiveWayToo() async throws {
        try await run { storage, clock in
            for page in 0..<130 {
                let writes = (0..<500).map { CacheOperation.set(CacheWrite("k\(page)-\($0)", bytes(2, 1000))) }
                _ = try await storage.batch(writes, namespace: .n, atomic: true)
                clock.advance(milliseconds: 10)
                #expect(size <= Self.limit)
            }
            #expect(try await storage.bytes("k129-499") == bytes(2, 1000))
            #expect(await storage.missReason("k0-0") != nil)
            #expect(try await storage.namespace(.n).entryCount > 15_000)
        }
    }

    @Test func racingWritersStayBelowIt() async throws {
        try await run { storage, _ in
            await withTaskGroup(of: Void.self) { group in
                for writer in 0..<8 {
                    group.addTask {
                        for number in 0..<40 {
                            let count = [100, 60_000, 300_000, 900_000][(writer + number) % 4]
                            do {
                                if count > Limits.maxInlineValueBytes, number % 2 == 0 {
                                    try await storage.upload("k\(writer)-\(number)", bytes(3, count))
                                } else {
                                    try await storage.put("k\(writer)-\(number)", bytes(3, count))
                                }
                            } catch {
                                Issue.record("\(error)")
                            }
                            #expect(size <= Self.limit)
                        }
                    }
                }
            }
        }
    }

    @Test func theRestIsRefusedOnceTheCacheIsEmpty() async throws {
        try await run { storage, _ in
            for number in 0..<20 { try await storage.put("k\(number)", bytes(4, Self.megabyte)) }
            let value = JSONText(.string(String(repeating: "x", count: Limits.maxStateValueBytes - 10)))
            var refusal: Failure?
            var sessions = 0
            while refusal == nil, sessions < 100 {
                let state = (0..<8).map { StateEntry(key: Key(stored: "k\($0)"), value: value) }
                refusal = await failure {
                    _ = try await storage.createSession(
                        Name(stored: "s\(sessions)"), SessionDraft(state: state))
                }
                sessions += 1
                #expect(size <= Self.limit)
            }
            #expect(refusal?.code == .storageFull)
            #expect(refusal?.detail.contains("has reached max_database_bytes") == true)
            // The disk is not full.
            #expect(storage.writer.limitRefusals.load(ordering: .relaxed) == 1)
            #expect(storage.space.figures.refusedWrites == 0)
            #expect(sessions > 10)
            #expect(try await storage.keys() == [])
            // Reads and removals go on, so it is ready.
            #expect(await code { try await storage.checkReadiness() } == nil)
            // The remedy: remove something …
            try await storage.removeSession(Name(stored: "s0"))
            try await storage.removeSession(Name(stored: "s1"))
            try await storage.put("again")
            // … or raise it, which needs no restart.
            live.apply(
                SettingOverrides(values: ["max_database_bytes": "\(2 * Self.limit)"], version: 1))
            for number in 0..<10 { try await storage.put("k\(number)", bytes(5, Self.megabyte)) }
            #expect(try await storage.keys().count == 11)
        }
    }

    /// Only as many go as make room for what is written, however large they are.
    @Test func noMoreGiveWayThanNecessary() async throws {
        try await run { storage, _ in
            for number in 0..<30 {
                try await storage.put("k\(number)", bytes(4, 2 * Self.megabyte), lifetime: .never)
                let evicted = try await storage.namespace(.n).evictions
                guard evicted > 0 else { continue }
                #expect(evicted <= 2)
                return
            }
            Issue.record("nothing gave way")
        }
    }

    /// When there is more than a lowered limit allows, and none of it is in the cache.
    @Test func whatExpiresIsRemovedAboveALoweredLimit() async throws {
        let settings = Self.settings(limit: 0)
        try await run(settings) { storage, clock in
            let value = JSONText(.string(String(repeating: "x", count: Limits.maxStateValueBytes - 10)))
            for number in 0..<24 {
                let state = (0..<8).map { StateEntry(key: Key(stored: "k\($0)"), value: value) }
                _ = try await storage.createSession(
                    Name(stored: "s\(number)"), SessionDraft(timeToLive: .never, state: state))
            }
            let samples = (0..<2000).map { number in
                Sample(
                    name: "t", measurement: .timing(seconds: Double(number), outcome: .ok, cache: nil, variant: nil),
                    recordedAt: clock.now)
            }
            _ = try await storage.record(samples)
            settings.apply(SettingOverrides(values: ["max_database_bytes": "\(Self.limit)"], version: 1))
            clock.advance(seconds: 365 * 86_400)
            #expect(await code { try await storage.put("k") } == .storageFull)
            for task in storage.tasks where task.task != .space {
                #expect(await code { try await storage.perform(task.task, isDryRun: false) } == nil, "\(task.task)")
            }
            let left = try await storage.readers.pooled { try $0.first("SELECT count(*) FROM samples") { $0.int(0) } }
            #expect(left == 0)
            // The run is recorded as well.
            try await storage.record(
                MaintenanceRun(
                    task: .sampleRetention, trigger: .interval, startedAt: clock.now, durationSeconds: 1,
                    rowsRemoved: 2000, bytesFreed: 1, error: nil))
        }
    }

    /// While a transaction of another program reads, the log cannot be written back.
    @Test func aLogThatIsHeldIsNamed() async throws {
        try await run { storage, _ in
            try await storage.put("k")
            let other = try Connection(path: folder.file("reprise.db"), mode: .reader)
            try other.execute("BEGIN")
            _ = try other.pages()
            var refusal: Failure?
            for number in 0..<60 where refusal == nil {
                refusal = await failure { try await storage.put("k\(number)", bytes(4, Self.megabyte)) }
                #expect(size <= Self.limit)
            }
            #expect(refusal?.code == .storageFull)
            #expect(refusal?.detail.contains("keeps it from being written back") == true)
            #expect(storage.writer.limitRefusals.load(ordering: .relaxed) == 1)
            try other.execute("COMMIT")
            // Not only once something was removed.
            try await storage.put("again", bytes(4, Self.megabyte))
        }
    }

    @Test func whatCanNeverFitIsRefusedAtOnce() async throws {
        try await run { storage, _ in
            try await storage.put("k")
            #expect(await code { _ = try await storage.beginUpload(sizeBytes: Self.limit) } == .payloadTooLarge)
            #expect(try await storage.text("k") == "value")
            _ = try await storage.beginUpload(sizeBytes: 10 * Self.megabyte)
        }
    }

    @Test func unfinishedUploadsCount() async throws {
        try await run { storage, _ in
            var uploads: [any ValueUpload] = []
            var refusal: Failure?
            while refusal == nil, uploads.count < 100 {
                refusal = await failure {
                    let upload = try await storage.beginUpload()
                    for _ in 0..<16 { try await upload.append(bytes(6, Limits.chunkBytes)) }
                    uploads.append(upload)
                }
                #expect(size <= Self.limit)
            }
            #expect(refusal?.code == .storageFull)
            #expect(uploads.count > 20)
            #expect(storage.unfinishedUploadBytes.load(ordering: .relaxed) >= uploads.count * Self.megabyte)
            uploads = []
            #expect(storage.unfinishedUploadBytes.load(ordering: .relaxed) == 0)
            _ = try await storage.perform(.blobOrphans, isDryRun: false)
            try await storage.put("again", bytes(7, Self.megabyte))
        }
    }

    @Test func withoutALimitTheDatabaseGrowsAgain() async throws {
        try await run { storage, _ in
            try await storage.put("k", bytes(1, Self.megabyte))
            live.apply(SettingOverrides(values: ["max_database_bytes": "0"], version: 1))
            for number in 0..<(Self.limit / Self.megabyte + 6) {
                try await storage.put("k\(number)", bytes(2, Self.megabyte), lifetime: .never)
            }
            #expect(size > Self.limit)
            #expect(try await storage.bytes("k0").count == Self.megabyte)
        }
    }

    /// Entries from before there was a limit have no ranks.
    @Test func aLimitCanBeSetAndLowered() async throws {
        try await run(Self.settings(limit: 0)) { storage, _ in
            for number in 0..<60 { try await storage.put("k\(number)", bytes(8, Self.megabyte), lifetime: .never) }
        }
        try await run { storage, _ in
            try await storage.put("new", bytes(9, Self.megabyte), lifetime: .never)
            #expect(await storage.missReason("k0") != nil)
            #expect(try await storage.bytes("k59").count == Self.megabyte)
            for task in storage.tasks { _ = try await storage.perform(task.task, isDryRun: false) }
            try await storage.writer.checkpoint(truncating: true)
            #expect(size <= Self.limit)
        }
    }
}

extension Sequence {
    fileprivate func asyncMap<T>(_ body: (Element) async throws -> T) async rethrows -> [T] {
        var result: [T] = []
        for element in self { result.append(try await body(element)) }
        return result
    }
}
