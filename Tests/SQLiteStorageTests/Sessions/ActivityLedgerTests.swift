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
        #expect(ledger.note(1, at: start) && ledger.note(1, at: start.advanced(milliseconds: -5)))
        #expect(ledger.lastActivity(of: 1) == start)
        #expect(ledger.note(1, at: start.advanced(milliseconds: 5)))
        #expect(ledger.lastActivity(of: 1) == start.advanced(milliseconds: 5))
    }

    @Test func whatCameAfterTheWriteIsKept() {
        let ledger = ActivityLedger()
        for ref in 1...3 { _ = ledger.note(Int64(ref), at: start) }
        let written = ledger.all()
        _ = ledger.note(2, at: start.advanced(milliseconds: 1))
        let settlements = ledger.settlements
        ledger.settle(written)
        #expect(ledger.settlements == settlements + 1)
        #expect(ledger.all().map(\.ref) == [2])
    }

    @Test func whenItIsFullTheCallerMustWrite() {
        let ledger = ActivityLedger()
        for ref in 0..<Limits.maxTrackedSessions { _ = ledger.note(Int64(ref), at: start) }
        #expect(!ledger.note(-1, at: start))
        #expect(ledger.note(5, at: start.advanced(milliseconds: 1)), "those known already still count")
    }

    @Test func aReadThatFindsNoRoomWrites() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(ttl: 10)
            for ref in 0..<Limits.maxTrackedSessions { _ = storage.activity.note(Int64(-1 - ref), at: fixture.now) }
            fixture.advance(seconds: 9)
            _ = try await storage.session(.s)
            #expect(try await storage.number("SELECT last_active_at_ms FROM sessions") == fixture.now.milliseconds)
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
