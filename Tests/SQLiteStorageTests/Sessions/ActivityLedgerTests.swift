// Activity recorded in memory: none is lost on its way to the row.

import Domain
import Synchronization
import TestSupport
import Testing

@testable import SQLiteStorage

struct ActivityLedgerTests {
    private let start = Instant(milliseconds: 1_800_000_000_000)

    @Test func theLatestActivityCounts() {
        let ledger = ActivityLedger()
        #expect(ledger.isEmpty && ledger.lastActivity(of: 1) == nil)
        for later in [0, -5] as [Int64] {
            #expect(ledger.note(1, at: start.advanced(milliseconds: later), asOf: 0) == .kept)
            #expect(ledger.lastActivity(of: 1) == start)
        }
        #expect(ledger.note(1, at: start.advanced(milliseconds: 5), asOf: 0) == .kept)
        #expect(ledger.lastActivity(of: 1) == start.advanced(milliseconds: 5))
    }

    @Test func whatCameAfterTheWriteIsKept() {
        let ledger = ActivityLedger()
        for ref in 1...3 { _ = ledger.note(Int64(ref), at: start, asOf: 0) }
        let written = ledger.all()
        _ = ledger.note(2, at: start.advanced(milliseconds: 1), asOf: 0)
        let settlements = ledger.settlements
        ledger.settle(written)
        #expect(ledger.settlements == settlements + 1)
        #expect(ledger.all().map(\.ref) == [2])
    }

    @Test func whenItIsFullTheCallerMustWrite() {
        let ledger = ActivityLedger()
        for ref in 0..<StorageLimits.maxTrackedSessions { _ = ledger.note(Int64(ref), at: start, asOf: 0) }
        #expect(ledger.note(-1, at: start, asOf: 0) == .full)
        let later = start.advanced(milliseconds: 1)
        #expect(ledger.note(5, at: later, asOf: 0) == .kept, "those known already still count")
    }

    @Test func aReadThatFindsNoRoomWrites() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(ttl: 10)
            for ref in 0..<StorageLimits.maxTrackedSessions {
                _ = storage.activity.note(Int64(-1 - ref), at: fixture.now, asOf: 0)
            }
            fixture.advance(seconds: 9)
            _ = try await storage.session(.s)
            #expect(try await storage.number("SELECT last_active_at_ms FROM sessions") == fixture.now.milliseconds)
        }
    }

    // MARK: Removing inactive sessions

    @Test func noActivityIsNotedWhileASessionIsRemoved() {
        let ledger = ActivityLedger()
        let later = start.advanced(milliseconds: 1)
        #expect(ledger.note(1, at: later, asOf: 0) == .kept)
        let (first, second) = (ActivityLedger.Condemnation(in: ledger), ActivityLedger.Condemnation(in: ledger))
        #expect(!first.condemn(1, ifInactiveSince: start), "it was active since")
        #expect(first.condemn(2, ifInactiveSince: start) && first.condemn(2, ifInactiveSince: start))
        #expect(second.condemn(2, ifInactiveSince: start))
        #expect(ledger.note(1, at: later, asOf: 0) == .kept)
        #expect(ledger.note(2, at: later, asOf: 0) == .uncertain)
        first.release()
        #expect(ledger.note(2, at: later, asOf: ledger.removals) == .uncertain, "another write removes it too")
        second.release()
        #expect(ledger.note(2, at: later, asOf: ledger.removals) == .kept, "the writes may have failed")
    }

    /// A reader that found the session before the write ended comes too late to save it.
    @Test func anActivityFromBeforeTheRemovalIsRefusedAfterIt() {
        let ledger = ActivityLedger()
        let before = ledger.removals
        let condemnation = ActivityLedger.Condemnation(in: ledger)
        #expect(condemnation.condemn(1, ifInactiveSince: start))
        condemnation.release()
        #expect(ledger.note(1, at: start.advanced(milliseconds: 1), asOf: before) == .uncertain)
        #expect(ledger.lastActivity(of: 1) == nil)
    }

    @Test func aReadWaitsForTheWriteThatMayRemoveItsSession() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create()
            try await storage.create(Name(stored: "other"))
            fixture.advance(seconds: 60)
            let ref = try await storage.number("SELECT session_ref FROM sessions WHERE id = 's'")
            let condemnation = ActivityLedger.Condemnation(in: storage.activity)
            #expect(condemnation.condemn(ref, ifInactiveSince: fixture.now))
            let hasAnswer = Flag()
            async let read = {
                defer { hasAnswer.set() }
                return try await storage.session(.s)
            }()
            _ = try await storage.session(Name(stored: "other"))
            #expect(!hasAnswer.isSet)
            // As if the write failed: the session is still there.
            condemnation.release()
            let session = try await read
            #expect(session.lastActiveAt == fixture.now)
        }
    }

    /// The activity is noted after the page that lists the session as inactive, and before the write.
    @Test func activityAfterTheListingKeepsASession() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create()
            let ref = try await storage.number("SELECT session_ref FROM sessions")
            let cutoff = fixture.now
            fixture.advance(seconds: 60)
            let condemnation = ActivityLedger.Condemnation(in: storage.activity)
            defer { condemnation.release() }
            func remove() async throws -> Bool {
                try await storage.sessionTransaction { try $0.removeInactive(ref, since: cutoff, condemnation) }
            }
            _ = try await storage.session(.s)
            #expect(try await remove() == false, "in memory")
            try await storage.flushCounters()
            #expect(try await remove() == false, "in the row")
            #expect(try await storage.session(.s).lastActiveAt == fixture.now)
        }
    }

    /// A session with a lifetime of 10 seconds that is read every 9 never expires, whenever flushes and sweeps run.
    @Test func flushesAndSweepsLoseNoActivity() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(ttl: 10)
            let isOver = Flag()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for task in 0..<2 {
                    group.addTask {
                        while !isOver.isSet {
                            try await storage.flushCounters()
                            if task == 1 { _ = try await storage.perform(.sessionExpiry, isDryRun: false) }
                        }
                    }
                }
                group.addTask {
                    defer { isOver.set() }
                    for _ in 0..<500 {
                        fixture.advance(seconds: 9)
                        _ = try await storage.session(.s)
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    private final class Flag: Sendable {
        private let value = Atomic(false)
        var isSet: Bool { value.load(ordering: .relaxed) }
        func set() { value.store(true, ordering: .relaxed) }
    }
}
