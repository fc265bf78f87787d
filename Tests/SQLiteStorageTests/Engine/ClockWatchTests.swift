// The machine's clock is set while the storage is open, and between two times.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct ClockWatchTests {
    private static let hour: Int64 = 3_600_000
    private static let year: Int64 = 365 * 24 * hour
    private static let s = Name(stored: "s")

    private let clock = ManualClock()
    private let steady = ManualClock(Instant(milliseconds: 5000))
    private let folder = TemporaryFolder()

    private func run(_ body: (SQLiteStorage) async throws -> Void) async throws {
        let storage = try SQLiteStorage(
            path: folder.file("reprise.db"), settings: LiveSettings(.quick),
            clock: clock.wallClock(steady: steady), logger: quietLogger)
        do {
            try await body(storage)
        } catch {
            await storage.close()
            throw error
        }
        await storage.close()
    }

    /// Time passes, for both clocks.
    private func pass(_ milliseconds: Int64) {
        clock.advance(milliseconds: milliseconds)
        steady.advance(milliseconds: milliseconds)
    }

    /// What the background service does in a second.
    private func maintain(_ storage: SQLiteStorage) async throws {
        pass(1000)
        let backlog = storage.backlog()
        for task in storage.tasks {
            let isDue = backlog.deadlines[task.task].map { $0 <= clock.now } ?? false
            if isDue || backlog.waiting.contains(task.task) {
                _ = await MaintenanceRunner(store: storage, clock: clock.wallClock).run(task.task, trigger: .startup)
            }
        }
    }

    private func rows(_ storage: SQLiteStorage, _ sql: StaticString) throws -> Int {
        try storage.readers.point { try $0.first(sql) { $0.int(0) } } ?? 0
    }

    @Test func passingTimeIsNoJump() async throws {
        try await run { storage in
            for _ in 0..<100 {
                pass(1004)
                storage.clockWatch.check()
            }
            pass(10 * Self.year)
            storage.clockWatch.check()
            clock.advance(milliseconds: StorageLimits.clockToleranceMilliseconds)
            storage.clockWatch.check()
            #expect(storage.clockWatch.jumps.count == 0)
            #expect(!storage.clockWatch.holdsSweeps && !storage.clockWatch.needsRepair)
        }
    }

    /// An entry of 5 s that was written while the clock was a year ahead.
    @Test func nothingIsImmortalOnceTheClockIsBack() async throws {
        try await run { storage in
            clock.advance(milliseconds: Self.year)
            try await maintain(storage)
            try await storage.put("short", lifetime: .milliseconds(5000))
            try await storage.put("renewed", lifetime: .milliseconds(5000))
            try await storage.touch(EntryAddress("renewed"), timeToLive: .milliseconds(8000))
            try await storage.put("never", lifetime: .never)
            _ = try await storage.createSession(Self.s, SessionDraft(timeToLive: .milliseconds(5000)))
            clock.advance(milliseconds: -Self.year)
            try await maintain(storage)
            #expect(storage.clockWatch.jumps.count == 2)
            #expect(storage.clockWatch.jumps.latest?.milliseconds == -Self.year)
            // Nothing is lost by the repair.
            #expect(try await storage.keys() == ["never", "renewed", "short"])
            #expect(try await storage.metadata(EntryAddress("short")).updatedAt <= clock.now)
            _ = try await storage.session(Self.s)
            pass(5000)
            #expect(await storage.missReason("short") == .expired)
            #expect(try await storage.keys() == ["never", "renewed"])
            #expect(await code { try await storage.session(Self.s) } == .sessionNotFound)
            pass(5000)
            #expect(try await storage.keys() == ["never"])
            #expect(await code { try await storage.session(Self.s) } == .sessionNotFound)
            try await maintain(storage)
            #expect(try rows(storage, "SELECT count(*) FROM cache_entries") == 1)
            #expect(try rows(storage, "SELECT count(*) FROM sessions") == 0)
        }
    }

    @Test func nothingIsLostWhileTheClockIsAhead() async throws {
        try await run { storage in
            try await storage.put("k", lifetime: .milliseconds(Self.hour))
            _ = try await storage.createSession(Self.s, SessionDraft())
            let sample = Sample(name: "t", measurement: .gauge(value: 1, unit: nil), recordedAt: clock.now)
            _ = try await storage.record([sample])
            clock.advance(milliseconds: Self.year)
            for _ in 0..<5 { try await maintain(storage) }
            for task in storage.tasks { _ = try await storage.perform(task.task, isDryRun: false) }
            #expect(await storage.missReason("k") != nil)
            #expect(await code { try await storage.session(Self.s) } == .sessionNotFound)
            clock.advance(milliseconds: -Self.year)
            try await maintain(storage)
            #expect(try await storage.text("k") == "value")
            _ = try await storage.session(Self.s)
            #expect(try rows(storage, "SELECT count(*) FROM samples") == 1)
            #expect(!storage.clockWatch.holdsSweeps)
        }
    }

    @Test func aClockThatStaysAheadIsBelieved() async throws {
        try await run { storage in
            try await storage.put("k", lifetime: .milliseconds(1000))
            clock.advance(milliseconds: Self.year)
            try await maintain(storage)
            #expect(storage.clockWatch.holdsSweeps)
            #expect(try rows(storage, "SELECT count(*) FROM cache_entries") == 1)
            pass(StorageLimits.sweepHoldMilliseconds)
            try await maintain(storage)
            #expect(try rows(storage, "SELECT count(*) FROM cache_entries") == 0)
        }
    }

    @Test func anHourBackLosesNothing() async throws {
        try await run { storage in
            try await storage.put("k", lifetime: .milliseconds(2 * Self.hour))
            _ = try await storage.createSession(Self.s, SessionDraft())
            pass(Self.hour / 2)
            try await maintain(storage)
            clock.advance(milliseconds: -Self.hour)
            try await maintain(storage)
            #expect(try await storage.text("k") == "value")
            _ = try await storage.session(Self.s)
            // At most its lifetime from now on.
            pass(2 * Self.hour)
            #expect(await storage.missReason("k") == .expired)
        }
    }

    /// The clock was ahead during the whole life of a server, and is right at the next start.
    @Test func aStartFindsOutByWhatIsStored() async throws {
        clock.advance(milliseconds: Self.year)
        try await run { storage in
            try await storage.put("k", lifetime: .milliseconds(5000))
            _ = await MaintenanceRunner(store: storage, clock: clock.wallClock).run(.historyCaps, trigger: .startup)
        }
        clock.advance(milliseconds: -Self.year)
        try await run { storage in
            #expect(storage.clockWatch.needsRepair)
            try await maintain(storage)
            #expect(try await storage.text("k") == "value")
            pass(5000)
            #expect(await storage.missReason("k") == .expired)
        }
    }

    /// The clock is ahead at a start: that may also be a machine that was off for long.
    @Test func aStartLongAfterTheLastDeletesNothingAtOnce() async throws {
        try await run { storage in
            _ = try await storage.createSession(Self.s, SessionDraft())
        }
        clock.advance(milliseconds: Self.year)
        try await run { storage in
            try await maintain(storage)
            #expect(try rows(storage, "SELECT count(*) FROM sessions") == 1)
            #expect(storage.clockWatch.jumps.count == 0)
            pass(StorageLimits.sweepHoldMilliseconds)
            try await maintain(storage)
            #expect(try rows(storage, "SELECT count(*) FROM sessions") == 0)
        }
    }

    /// More rows than one step or one page handles.
    @Test func allDeadlinesAreRepaired() async throws {
        let count = StorageLimits.clockRepairRows + 50
        try await run { storage in
            clock.advance(milliseconds: Self.year)
            try await maintain(storage)
            let writes = (0..<count).map {
                CacheOperation.set(CacheWrite("k\($0)", [1], lifetime: .milliseconds(5000)))
            }
            for start in stride(from: 0, to: count, by: 500) {
                let part = Array(writes[start..<min(start + 500, count)])
                _ = try await storage.batch(part, namespace: .n, atomic: true)
            }
            clock.advance(milliseconds: -Self.year)
            try await maintain(storage)
            pass(5000)
            try await maintain(storage)
            #expect(try rows(storage, "SELECT count(*) FROM cache_entries") == 0)
        }
    }
}
