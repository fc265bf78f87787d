// The storage as a whole: opening, closing, and what is kept.

import Domain
import FoundationEssentials
import Glibc
import Migrations
import Synchronization
import TestSupport
import Testing

@testable import SQLiteStorage

struct StorageTests {
    private let folder = TemporaryFolder()
    private let clock = ManualClock()

    private func open(settings: LiveSettings = LiveSettings(.quick)) throws -> SQLiteStorage {
        try makeStorage(in: folder, clock: clock, settings: settings)
    }

    /// Opens, does `body`, closes.
    private func session(_ body: (SQLiteStorage) async throws -> Void) async throws {
        let storage = try open()
        try await body(storage)
        await storage.close()
    }

    private func openingError(_ path: String) -> String? {
        do {
            _ = try SQLiteStorage(
                path: path, settings: LiveSettings(.quick), clock: clock.wallClock, logger: quietLogger)
            return nil
        } catch {
            return error.description
        }
    }

    // MARK: Opening

    @Test func foldersAreCreated() async throws {
        let path = folder.file("a/b/c/reprise.db")
        let storage = try SQLiteStorage(
            path: path, settings: LiveSettings(.quick), clock: clock.wallClock, logger: quietLogger)
        try await storage.put("key")
        await storage.close()
        #expect(folder.size("a/b/c/reprise.db") > 0)
    }

    @Test func aFolderThatCannotBeMadeIsTold() {
        #expect(openingError("/proc/nowhere/reprise.db")?.contains("cannot create the folder /proc/nowhere/") == true)
    }

    @Test func aFileThatIsNoDatabaseIsRefusedAndStaysAsItIs() throws {
        let text = Array(String(repeating: "not a database\n", count: 1000).utf8)
        try Data(text).write(to: URL(filePath: folder.file("notes.txt")))
        #expect(openingError(folder.file("notes.txt"))?.contains("notes.txt") == true)
        #expect(folder.contents("notes.txt") == text)
    }

    @Test func anotherProgramsDatabaseIsRefusedAndStaysAsItIs() throws {
        do {
            let theirs = try Connection(path: folder.file("theirs.db"), mode: .writer)
            try theirs.execute("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
        }
        let before = folder.contents("theirs.db")
        #expect(openingError(folder.file("theirs.db"))?.contains("another program") == true)
        #expect(folder.contents("theirs.db") == before)
    }

    @Test func aRefusedFileIsNotLocked() throws {
        do {
            let theirs = try Connection(path: folder.file("theirs.db"), mode: .writer)
            try theirs.execute("CREATE TABLE theirs (x)")
        }
        #expect(openingError(folder.file("theirs.db")) != nil)
        _ = try DatabaseLock(database: folder.file("theirs.db"))
    }

    @Test func itIsReady() async throws {
        try await session { storage async throws in #expect(try await storage.checkReadiness() == Migration.all.count) }
    }

    @Test func itIsNotReadyWhenTheFileCannotBeWritten() async throws {
        try await session { storage in
            try await storage.writer.betweenGroups { try $0.execute("PRAGMA query_only = ON") }
            #expect(await code { try await storage.checkReadiness() } == .databaseReadOnly)
            try await storage.writer.betweenGroups { try $0.execute("PRAGMA query_only = OFF") }
        }
    }

    // MARK: What is kept

    @Test func entriesStay() async throws {
        let large = noise(300_000)
        try await session { storage in
            try await storage.put("small", "value", lifetime: .never, tags: ["a", "b"])
            try await storage.put("empty", "", lifetime: .never)
            try await storage.upload("large", large)
            try await storage.put("short", lifetime: .milliseconds(1000))
        }
        clock.advance(milliseconds: 2000)
        try await session { storage async throws in
            #expect(try await storage.text("small") == "value")
            #expect(try await storage.text("empty") == "")
            #expect(try await storage.bytes("large") == large)
            #expect(await storage.missReason("short") == .expired)
            #expect(try await storage.metadata(EntryAddress("small")).tags.map(\.rawValue) == ["a", "b"])
        }
    }

    @Test func policiesStay() async throws {
        let policy = CachePolicy(
            timeToLive: .never, maxEntries: 10, maxBytes: 1000, maxEntryBytes: 100, eviction: .firstInFirstOut)
        try await session { _ = try await $0.setPolicy(policy, of: .n) }
        try await session { storage async throws in #expect(try await storage.namespace(.n).policy == policy) }
    }

    @Test func countersAreWrittenOnClosing() async throws {
        try await session { storage in
            try await storage.put("key")
            for _ in 0..<3 { _ = try await storage.read(EntryAddress("key")) }
            #expect(await storage.missReason("other") == .absent)
        }
        try await session { storage in
            let namespace = try await storage.namespace(.n)
            #expect(namespace.hits == 3)
            #expect(namespace.misses == [.absent: 1])
            #expect(try await storage.metadata(EntryAddress("key")).hitCount == 3)
        }
    }

    @Test func usesOrderEvictionsAcrossARestart() async throws {
        try await session { storage in
            _ = try await storage.setPolicy(CachePolicy(maxEntries: 2), of: .n)
            try await storage.put("a")
            try await storage.put("b")
            _ = try await storage.read(EntryAddress("a"))
        }
        clock.advance(milliseconds: 1)
        try await session { storage in
            try await storage.put("c")
            #expect(try await storage.keys() == ["a", "c"])
        }
    }

    @Test func settingsChangedAtRunTimeStay() async throws {
        try await session { storage in
            #expect(try await storage.settingOverrides() == SettingOverrides(values: [:], version: 0))
            let changed = try #require(
                await storage.changeSettingOverrides(["log_level": "debug", "cache_ttl_seconds": "5"], of: 0))
            #expect(changed.values == ["log_level": "debug", "cache_ttl_seconds": "5"])
            #expect(changed.version == 1)
            #expect(try await storage.changeSettingOverrides(["log_level": "error"], of: 0) == nil)
            _ = try await storage.changeSettingOverrides(["log_level": nil, "cache_ttl_seconds": "6"], of: nil)
        }
        try await session { storage async throws in
            let kept = SettingOverrides(values: ["cache_ttl_seconds": "6"], version: 2)
            #expect(try await storage.settingOverrides() == kept)
        }
    }

    @Test func anUploadCutOffByTheEndIsSweptAfterTheStart() async throws {
        let storage = try open()
        let upload = try await storage.beginUpload()
        try await upload.append(noise(Limits.chunkBytes))
        await storage.close()
        try await session { storage in
            #expect(storage.backlog().waiting.contains(.blobOrphans))
            let removal = try await storage.perform(.blobOrphans, isDryRun: false)
            #expect(removal == Removal(removed: 1, freedBytes: Limits.chunkBytes))
        }
        withExtendedLifetime(upload) {}
    }

    @Test func whatWaitsIsKnownAfterTheStart() async throws {
        try await session { storage in
            try await storage.put("key", lifetime: .milliseconds(1000))
            try await storage.put("key", in: Name(stored: "cleared"), lifetime: .milliseconds(5000))
            _ = try await storage.clear(Name(stored: "cleared"), filter: EntryFilter())
        }
        try await session { storage in
            #expect(storage.backlog().deadlines[.cacheExpiry] == clock.now.advanced(milliseconds: 1000))
            #expect(storage.backlog().waiting.contains(.cacheExpiry))
        }
    }

    // MARK: Closing

    @Test func afterClosingEverythingIsRefused() async throws {
        let storage = try open()
        try await storage.put("key")
        try await storage.upload("large", noise(200_000))
        guard case .large(let large) = try await storage.read(EntryAddress("large")).content else {
            Issue.record("a large value was expected")
            return
        }
        await storage.close()
        #expect(await code { try await storage.put("key") } == .shuttingDown)
        #expect(await code { try await storage.read(EntryAddress("key")) } == .shuttingDown)
        #expect(await code { try await storage.metadata(EntryAddress("key")) } == .shuttingDown)
        #expect(await code { try await storage.keys() } == .shuttingDown)
        #expect(await code { try await storage.namespace(.n) } == .shuttingDown)
        #expect(await code { try await storage.delete("key") } == .shuttingDown)
        #expect(await code { try await storage.checkReadiness() } == .shuttingDown)
        #expect(await code { try await large.read(from: 0) } == .shuttingDown)
        #expect(await code { try await storage.beginUpload().append([1]) } == .shuttingDown)
    }

    @Test func closingLeavesOneFile() async throws {
        try await session { try await $0.put("key") }
        #expect(folder.size("reprise.db-wal") == 0)
    }

    // MARK: Bounds

    @Test func namespacesAreBounded() async throws {
        try await session { storage in
            try await storage.writer.perform { connection in
                try connection.run(
                    """
                    INSERT INTO cache_generations (generation_id)
                    WITH RECURSIVE c (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c LIMIT ?1)
                    SELECT value FROM c
                    """, .integer(Limits.maxNamespaces))
                try connection.run(
                    """
                    INSERT INTO cache_namespaces (name, generation_id, created_at_ms)
                    SELECT 'bulk' || generation_id, generation_id, 0 FROM cache_generations
                    """)
            }
            #expect(await code { try await storage.put("key") } == .tooManyNamespaces)
            #expect(await code { try await storage.setPolicy(CachePolicy(), of: .n) } == .tooManyNamespaces)
            let increment = CacheIncrement(key: Key(stored: "key"))
            #expect(await code { try await storage.increment(increment, namespace: .n) } == .tooManyNamespaces)
            try await storage.removeNamespace(Name(stored: "bulk7"))
            try await storage.put("key")
        }
    }

    @Test func monitoringOffCountsNothingButKeepsTheOrderOfUse() async throws {
        var settings = Settings.quick
        settings.set(.enableMonitoring, to: .boolean(false), source: .flag)
        let storage = try open(settings: LiveSettings(settings))
        _ = try await storage.setPolicy(CachePolicy(maxEntries: 2), of: .n)
        try await storage.put("a")
        try await storage.put("b")
        _ = try await storage.read(EntryAddress("a"))
        #expect(await storage.missReason("c") == .absent)
        try await storage.put("c")
        #expect(try await storage.keys() == ["a", "c"])
        let namespace = try await storage.namespace(.n)
        #expect(namespace.hits == 0)
        #expect(namespace.misses.isEmpty)
        await storage.close()
    }

    @Test func countersThatCannotBeWrittenAreKept() async throws {
        try await session { storage in
            let namespaces = (0..<5).map { Name(stored: "n\($0)") }
            for namespace in namespaces {
                try await storage.put("key", in: namespace)
                _ = try await storage.read(EntryAddress("key", in: namespace))
            }
            try await storage.writer.betweenGroups { try $0.execute("PRAGMA query_only = ON") }
            #expect(await code { try await storage.flushCounters() } == .databaseReadOnly)
            try await storage.writer.betweenGroups { try $0.execute("PRAGMA query_only = OFF") }
            try await storage.flushCounters()
            for namespace in namespaces { #expect(try await storage.namespace(namespace).hits == 1) }
            #expect(storage.backlog().hasCounters == false)
        }
    }

    /// The order of uses in memory must not be lost with a write that is undone.
    @Test func usesOutliveAWriteThatIsUndone() async throws {
        try await session { storage in
            _ = try await storage.setPolicy(CachePolicy(maxEntries: 2), of: .n)
            try await storage.put("a")
            try await storage.put("b")
            _ = try await storage.read(EntryAddress("a"))
            let condition = EntityCondition(match: .any)
            let results = try await storage.batch(
                [.set(CacheWrite("c", [1])), .set(CacheWrite("d", [1], condition: condition))], namespace: .n,
                atomic: true)
            guard case .failed(let failure) = results[1] else {
                Issue.record("the batch was to fail")
                return
            }
            #expect(failure.code == .preconditionFailed)
            try await storage.put("c")
            #expect(try await storage.keys() == ["a", "c"])
            try await storage.flushCounters()
            #expect(try await storage.metadata(EntryAddress("a")).hitCount == 1)
        }
    }

    // MARK: A clock set back while the storage is closed

    @Test func aClearTakesWhatWasWrittenBeforeTheRestart() async throws {
        try await session { storage in
            for number in 0..<10 { try await storage.put("a\(number)") }
        }
        clock.advance(milliseconds: -3_600_000)
        try await session { storage in
            try await storage.put("a0", "again")
            #expect(try await storage.clear(.n, filter: EntryFilter(prefix: "a")).removed == 10)
        }
    }

    @Test(arguments: [false, true])
    func whatIsUsedAfterTheRestartIsNotEvictedFirst(isRankedBefore: Bool) async throws {
        func cap(_ storage: SQLiteStorage) async throws {
            _ = try await storage.setPolicy(CachePolicy(maxEntries: 2), of: .n)
        }
        try await session { storage in
            if isRankedBefore { try await cap(storage) }
            for key in ["a", "b"] { try await storage.put(key) }
        }
        clock.advance(milliseconds: -3_600_000)
        try await session { storage in
            if !isRankedBefore { try await cap(storage) }
            for key in ["c", "d"] { try await storage.put(key) }
            #expect(try await storage.keys() == ["c", "d"])
        }
    }
}
