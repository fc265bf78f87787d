// Every operation of the writer is bounded, in rows and in time: it ends its step soon, however much there is to do.

import Domain
import Synchronization
import TestSupport
import Testing

@testable import SQLiteStorage

struct StepTests {
    /// Each reading of this clock takes as long as a whole step, so at its first check an operation finds that its step
    /// is over. What it has changed by then is the minimum that it does.
    private final class SlowClock: Sendable {
        private let microseconds = Atomic<Int64>(0)
        let cost: Int64

        init(cost: Int64) { self.cost = cost }

        var now: Int64 { microseconds.wrappingAdd(cost, ordering: .relaxed).newValue }
    }

    /// Rows that belong to one entry: its own, its value, its removal, and the statistics of its generation.
    private static let rowsPerEntry = 5
    /// What an operation changes in addition to its main rows: counters of namespaces and minutes.
    private static let overhead = 8
    private static let bound = StorageLimits.sweepReadRows * rowsPerEntry + overhead
    /// More than any one step handles.
    private static let many = 400

    /// Runs `prepare` on a storage with a clock that stands still, and `body` on the same file with one on which every
    /// step is over immediately.
    private func run(
        prepare: (SQLiteStorage) async throws -> Void, _ body: (SQLiteStorage, ManualClock) async throws -> Void
    ) async throws {
        let folder = TemporaryFolder()
        let clock = ManualClock()
        let first = try storage(in: folder, clock, SlowClock(cost: 0))
        do {
            try await prepare(first)
        } catch {
            await first.close()
            throw error
        }
        await first.close()
        let second = try storage(in: folder, clock, SlowClock(cost: StorageLimits.foregroundStepMicroseconds))
        do {
            try await body(second, clock)
        } catch {
            await second.close()
            throw error
        }
        await second.close()
    }

    private func storage(in folder: TemporaryFolder, _ clock: ManualClock, _ slow: SlowClock) throws -> SQLiteStorage {
        try SQLiteStorage(
            path: folder.file("reprise.db"), settings: LiveSettings(.quick), clock: clock.wallClock,
            logger: quietLogger, microseconds: { slow.now })
    }

    private func fill(_ storage: SQLiteStorage, lifetime: TimeToLive? = .never, in namespace: Name = .n) async throws {
        let operations: [CacheOperation] = (0..<Self.many).map {
            .set(CacheWrite("key\(1000 + $0)", [1], lifetime: lifetime))
        }
        _ = try await storage.batch(operations, namespace: namespace, atomic: true)
    }

    private func count(_ storage: SQLiteStorage, _ sql: StaticString) async throws -> Int {
        try await storage.readers.pooled { try $0.first(sql) { $0.int(0) } ?? 0 }
    }

    // MARK: The cache

    @Test func theSweepGoesInSteps() async throws {
        try await run {
            try await fill($0, lifetime: .milliseconds(1000))
            try await fill($0, in: Name(stored: "cleared"))
            _ = try await $0.clear(Name(stored: "cleared"), filter: EntryFilter())
        } _: { storage, clock async throws in
            clock.advance(milliseconds: 1000)
            #expect(try await storage.perform(.cacheExpiry, isDryRun: false).removed == Self.many * 2)
            #expect(storage.writer.statistics.mostBackgroundChanges <= Self.bound)
        }
    }

    @Test func rankingAndEvictingGoInSteps() async throws {
        try await run {
            try await fill($0)
        } _: { storage, _ in
            // Interrupted work is looked for once after a start.
            #expect(storage.backlog().waiting.contains(.cacheCaps))
            _ = try await storage.perform(.cacheCaps, isDryRun: false)
            _ = try await storage.setPolicy(CachePolicy(maxEntries: 100), of: .n)
            #expect(try await storage.namespace(.n).entryCount == 100)
            #expect(!storage.backlog().waiting.contains(.cacheCaps), "nothing is left to do")
            #expect(storage.writer.statistics.mostBackgroundChanges <= Self.bound)
        }
    }

    @Test func evictionThatFailsIsLeftToTheBackgroundTask() async throws {
        let folder = TemporaryFolder()
        let storage = try makeStorage(in: folder, clock: ManualClock())
        _ = try await storage.perform(.cacheCaps, isDryRun: false)
        #expect(!storage.backlog().waiting.contains(.cacheCaps))
        await storage.close()
        #expect(await code { try await storage.holdCaps(of: .n, mustRank: false) } == .shuttingDown)
        #expect(storage.backlog().waiting.contains(.cacheCaps))
    }

    /// Uses of the whole namespace wait in memory, and those of all entries except one are later than that one's.
    @Test func aWriteIntoAFullNamespaceLeavesMostUsesForLater() async throws {
        try await run {
            _ = try await $0.setPolicy(CachePolicy(maxEntries: Self.many), of: .n)
            try await fill($0)
        } _: { storage, _ in
            for number in 0..<Self.many where number != 250 {
                _ = try await storage.read(EntryAddress("key\(1000 + number)"))
            }
            try await storage.put("new")
            #expect(await storage.missReason("key1250") == .evicted)
            #expect(try await storage.namespace(.n).entryCount == Self.many)
            #expect(storage.writer.statistics.mostForegroundChanges <= Self.bound)
        }
    }

    @Test func aWriteIntoANamespaceFullOfExpiredEntriesRemovesFew() async throws {
        try await run {
            _ = try await $0.setPolicy(CachePolicy(maxEntries: Self.many), of: .n)
            try await fill($0, lifetime: .milliseconds(1000))
        } _: { storage, clock in
            clock.advance(milliseconds: 1000)
            try await storage.put("new")
            #expect(try await count(storage, "SELECT entry_count FROM cache_generations") == Self.many)
            #expect(try await storage.namespace(.n).evictions == 0)
            #expect(storage.writer.statistics.mostForegroundChanges <= Self.bound)
        }
    }

    /// One large value in place of many small ones: the caps hold once the background task has continued.
    @Test func aWriteThatMustEvictMuchEndsWithItsStep() async throws {
        try await run {
            _ = try await $0.setPolicy(CachePolicy(maxBytes: Self.many), of: .n)
            try await fill($0)
        } _: { storage, _ in
            try await storage.put("large", [UInt8](repeating: 1, count: Self.many))
            #expect(storage.writer.statistics.mostForegroundChanges <= Self.bound)
            #expect(storage.backlog().waiting.contains(.cacheCaps))
            _ = try await storage.perform(.cacheCaps, isDryRun: false)
            #expect(try await storage.keys() == ["large"])
            #expect(!storage.backlog().waiting.contains(.cacheCaps), "nothing is left to do")
            #expect(storage.writer.statistics.mostBackgroundChanges <= Self.bound)
        }
    }

    @Test func countersAreWrittenInSteps() async throws {
        try await run {
            try await fill($0)
        } _: { storage, _ in
            for number in 0..<Self.many { _ = try await storage.read(EntryAddress("key\(1000 + number)")) }
            try await storage.flushCounters()
            #expect(try await count(storage, "SELECT sum(hit_count) FROM cache_entries") == Self.many)
            #expect(storage.writer.statistics.mostBackgroundChanges <= Self.bound)
        }
    }

    // MARK: Clearing

    /// Rows that have expired but have not been swept are part of no answer, and are counted once as expirations,
    /// whether they are so few that the clear counts them or so many that it leaves this to a reader.
    @Test(arguments: [StorageLimits.maxExpiredCountedPerWrite, StorageLimits.maxExpiredCountedPerWrite + 1])
    func aClearCountsAnyNumberOfExpiredRows(expired: Int) async throws {
        try await withStorage { storage, clock in
            for first in stride(from: 0, to: expired, by: 1000) {
                let operations: [CacheOperation] = (first..<min(first + 1000, expired)).map {
                    .set(CacheWrite("short\($0)", [1], lifetime: .milliseconds(1000)))
                }
                _ = try await storage.batch(operations, namespace: .n, atomic: true)
            }
            for key in ["a", "b"] { try await storage.put(key, "12") }
            clock.advance(milliseconds: 1000)
            #expect(try await storage.clear(.n, filter: EntryFilter()) == Removal(removed: 2, freedBytes: 4))
            #expect(try await storage.namespace(.n).expirations == expired)
            #expect(storage.heldGenerations.withLock { $0.isEmpty })
            #expect(try await storage.perform(.cacheExpiry, isDryRun: false).removed == expired + 2)
            #expect(try await storage.namespace(.n).expirations == expired)
        }
    }

    @Test func theSweepLeavesAHeldGenerationAlone() async throws {
        try await withStorage { storage, _ in
            try await storage.put("a")
            _ = try await storage.clear(.n, filter: EntryFilter())
            let id = Int64(try await count(storage, "SELECT min(generation_id) FROM cache_generations"))
            let hold = SweepHold(on: storage)
            hold.add(id)
            #expect(try await storage.perform(.cacheExpiry, isDryRun: false) == Removal())
            hold.release()
            #expect(storage.backlog().waiting.contains(.cacheExpiry))
            #expect(try await storage.perform(.cacheExpiry, isDryRun: false).removed == 1)
        }
    }

    // MARK: Sessions

    /// A session with more of everything than one step handles.
    private func session(_ storage: SQLiteStorage, lifetime: TimeToLive) async throws {
        let keys = (0..<200).map { StateEntry(key: Key(stored: "temp_\($0)"), value: JSONText(.integer($0))) }
        let draft = SessionDraft(timeToLive: lifetime, maxHistoryItems: 100, state: keys)
        _ = try await storage.createSession(.s, draft)
        for number in 0..<100 {
            let item = HistoryDraft(id: Name(stored: "i\(number)"), kind: nil, data: JSONText(.integer(number)))
            _ = try await storage.appendHistory(item, to: .s)
            _ = try await storage.debounce(Name(stored: "d\(number)"), of: .s, delayMilliseconds: 1)
        }
    }

    @Test func aLargeExpiredSessionGoesInSteps() async throws {
        try await run {
            try await session($0, lifetime: .milliseconds(1000))
        } _: { storage, clock in
            clock.advance(milliseconds: 1000)
            let announced = try await storage.perform(.sessionExpiry, isDryRun: true)
            #expect(announced.removed == 1)
            #expect(try await storage.perform(.sessionExpiry, isDryRun: false) == announced)
            for table: StaticString in [
                "SELECT count(*) FROM sessions", "SELECT count(*) FROM session_state",
                "SELECT count(*) FROM history_items", "SELECT count(*) FROM debounce_marks",
            ] {
                #expect(try await count(storage, table) == 0, "\(table)")
            }
            #expect(storage.writer.statistics.mostBackgroundChanges <= Self.bound)
        }
    }

    @Test func whatIdleSessionsKeepGoesInSteps() async throws {
        try await run {
            try await session($0, lifetime: .never)
        } _: { storage, clock async throws in
            clock.advance(milliseconds: 86_400_000)
            #expect(try await storage.perform(.stateTemporaries, isDryRun: false).removed == 200)
            #expect(try await storage.perform(.debounceMarks, isDryRun: false).removed == 100)
            #expect(storage.writer.statistics.mostBackgroundChanges <= Self.bound)
        }
    }

    /// Marks of an expired session stay until the session is swept. They are read in steps too, and only once.
    @Test func marksOfExpiredSessionsAreReadInSteps() async throws {
        try await run { storage in
            try await storage.create(Name(stored: "live"))
            try await storage.create(ttl: 1)
            for number in 0..<Self.many {
                _ = try await storage.debounce(Name(stored: "d\(number)"), of: .s, delayMilliseconds: 1)
            }
            _ = try await storage.debounce(.s, of: Name(stored: "live"), delayMilliseconds: 1)
        } _: { storage, clock async throws in
            clock.advance(milliseconds: Limits.debounceMemoryMilliseconds)
            let before = storage.writer.statistics.operations
            let announced = try await storage.perform(.debounceMarks, isDryRun: true)
            #expect(announced == Removal(removed: 1))
            #expect(storage.writer.statistics.operations == before)
            #expect(try await storage.perform(.debounceMarks, isDryRun: false) == announced)
            let steps = Self.many / StorageLimits.sweepReadRows + 1
            #expect(storage.writer.statistics.operations == before + steps)
            #expect(try await count(storage, "SELECT count(*) FROM debounce_marks") == Self.many)
        }
    }

    @Test func aLargeSessionIsDeletedInSteps() async throws {
        try await run {
            try await session($0, lifetime: .never)
        } _: { storage, _ in
            try await storage.removeSession(.s)
            #expect(storage.writer.statistics.mostForegroundChanges <= Self.overhead)
            #expect(try await storage.perform(.sessionExpiry, isDryRun: false).removed == 1)
            #expect(storage.writer.statistics.mostBackgroundChanges <= Self.bound)
        }
    }

    @Test func manyInactiveSessionsAreRemovedInSteps() async throws {
        try await run { storage in
            for number in 0..<100 { try await storage.create(Name(stored: "s\(number)"), state: ["a": 1]) }
            try await session(storage, lifetime: .never)
        } _: { storage, clock async throws in
            clock.advance(milliseconds: 1000)
            #expect(try await storage.removeSessions(inactiveForMilliseconds: 1000, isDryRun: true) == 101)
            #expect(try await storage.removeSessions(inactiveForMilliseconds: 1000, isDryRun: false) == 101)
            #expect(storage.writer.statistics.mostForegroundChanges <= Self.overhead)
            #expect(storage.backlog().waiting.contains(.space))
            // The large one is removed from the file by the sweep.
            #expect(try await count(storage, "SELECT count(*) FROM sessions") == 1)
            #expect(try await storage.perform(.sessionExpiry, isDryRun: false).removed == 1)
        }
    }

    @Test func aHistoryIsClearedInSteps() async throws {
        try await run {
            try await session($0, lifetime: .never)
        } _: { storage, _ async throws in
            #expect(try await storage.clearHistory(of: .s) == 100)
            #expect(storage.writer.statistics.mostForegroundChanges <= Self.bound)
        }
    }

    @Test func activityIsWrittenInSteps() async throws {
        try await run { storage in
            for number in 0..<100 { _ = try await storage.createSession(Name(stored: "s\(number)"), SessionDraft()) }
        } _: { storage, clock in
            clock.advance(milliseconds: 1000)
            for number in 0..<100 { _ = try await storage.readSession(Name(stored: "s\(number)")) }
            try await storage.flushCounters()
            #expect(storage.activity.isEmpty)
            let written = try await count(storage, "SELECT count(DISTINCT last_active_at_ms) FROM sessions")
            #expect(written == 1)
            #expect(storage.writer.statistics.mostBackgroundChanges <= Self.overhead)
        }
    }
}
