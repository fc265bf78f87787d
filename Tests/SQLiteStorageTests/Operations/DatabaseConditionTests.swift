// What the engine finds about its file: rules at their thresholds, and figures of a real file.

import Domain
import Migrations
import TestSupport
import Testing

@testable import SQLiteStorage

private typealias Thresholds = DiagnosticThresholds

struct DatabaseConditionTests {
    private func findings(_ change: (inout DatabaseCondition) -> Void) -> [Finding] {
        var condition = DatabaseCondition(path: "/data/reprise.db")
        condition.libraryVersion = 3_051_003
        change(&condition)
        return condition.findings
    }

    private func codes(_ change: (inout DatabaseCondition) -> Void) -> [String] {
        findings(change).map(\.code.rawValue)
    }

    @Test func theLogMayBeLarge() {
        #expect(codes { $0.logBytes = Thresholds.logBytes } == [])
        #expect(codes { $0.logBytes = Thresholds.logBytes + 1 } == ["log_large"])
    }

    @Test func freeSpaceMayBeHigh() {
        #expect(codes { ($0.fileBytes, $0.freeBytes) = (1 << 30, 1 << 28) } == [])
        #expect(codes { ($0.fileBytes, $0.freeBytes) = (1 << 30, (1 << 28) + 1) } == ["free_space_high"])
        #expect(codes { ($0.fileBytes, $0.freeBytes) = (65 << 20, 64 << 20) } == [])
        let stuck = findings { ($0.fileBytes, $0.freeBytes, $0.returnsSpace) = (1 << 30, 1 << 29, false) }
        #expect(stuck.map(\.code) == [.spaceNotReturned])
        #expect(stuck[0].remedy.contains("sqlite3 /data/reprise.db \"PRAGMA auto_vacuum=2; VACUUM\""))
    }

    @Test func theDiskMayBeNearlyFull() {
        func severity(_ free: Int?) -> [Finding.Severity] { findings { $0.space.freeBytes = free }.map(\.severity) }
        #expect(severity(nil) == [])
        #expect(severity(Thresholds.diskFreeBytes) == [])
        #expect(severity(Thresholds.diskFreeBytes - 1) == [.warning])
        #expect(severity(Thresholds.criticalDiskFreeBytes - 1) == [.critical])
    }

    @Test func theDiskMayBeFull() {
        let found = findings { condition in
            condition.space = .init(isShort: true, freeBytes: 1 << 20, reserveBytes: 8 << 20, refusedWrites: 3)
        }
        #expect(found.map(\.code) == [.diskFull] && found[0].severity == .critical)
        #expect(found[0].evidence["refused_writes"] == 3 && found[0].evidence["reserve_bytes"] == 8_388_608)
    }

    @Test func damageIsNotForgotten() {
        let found = findings { $0.damagedReads = 2 }
        #expect(found.map(\.code) == [.damageSeen] && found[0].evidence["damaged_reads"] == 2)
    }

    @Test(arguments: [(3_600_000, "forward by 3600 s"), (-90_000, "back by 90 s")])
    func theClockMayBeSet(milliseconds: Int64, title: String) {
        let found = findings {
            ($0.clockJumps, $0.latestClockJump) = (1, .init(to: Instant(milliseconds: 0), milliseconds: milliseconds))
        }
        #expect(found.map(\.code) == [.clockSet])
        #expect(found.first?.title == "The machine's clock was set \(title)")
    }

    /// As a running service tells it.
    @Test func theStorageTellsOfTheClockAndOfBackups() async throws {
        let folder = TemporaryFolder()
        let (clock, steady) = (ManualClock(), ManualClock())
        let storage = try SQLiteStorage(
            path: folder.file("reprise.db"), settings: LiveSettings(.quick),
            clock: clock.wallClock(steady: steady), logger: quietLogger)
        func codes() async -> [Finding.Code] { await storage.diagnosticFigures().findings.map(\.code) }
        #expect(await !codes().contains(.clockSet))
        clock.advance(seconds: 3600)
        storage.clockWatch.check()
        #expect(await codes().contains(.clockSet))
        for each in [clock, steady] { each.advance(seconds: 86_500) }
        #expect(await !codes().contains(.clockSet))
        #expect(await storage.diagnosticFigures().backups == .init(latestAge: nil, databaseAge: 90_100))
        try await storage.createBackup()
        clock.advance(seconds: 5)
        #expect(await storage.diagnosticFigures().backups == .init(latestAge: 5, databaseAge: 90_105))
        await storage.close()
    }

    @Test func theWriterMayBeSaturated() {
        #expect(codes { $0.queuedWrites = Thresholds.queuedWrites } == [])
        #expect(codes { $0.queuedWrites = Thresholds.queuedWrites + 1 } == ["writer_saturated"])
    }

    /// https://sqlite.org/wal.html#walresetbug
    @Test(arguments: [
        (3_006_023, false), (3_007_000, true), (3_040_001, true), (3_044_005, true), (3_044_006, false),
        (3_045_000, true), (3_050_006, true), (3_050_007, false), (3_051_000, true), (3_051_002, true),
        (3_051_003, false), (3_053_000, false),
    ])
    func librariesWithTheCheckpointRaceAreKnown(version: Int, hasRace: Bool) {
        #expect(codes { $0.libraryVersion = version } == (hasRace ? ["sqlite_wal_reset_defect"] : []))
    }

    // MARK: The schema

    private func changed(_ script: String) async throws -> [Finding] {
        let folder = TemporaryFolder()
        let storage = try makeStorage(in: folder, clock: ManualClock())
        await storage.close()
        let path = folder.file("reprise.db")
        let connection = try Connection(path: path, mode: .writer)
        try connection.execute(script)
        var condition = try DatabaseCondition(connection, path: path, version: Migration.all.count)
        condition.libraryVersion = 3_051_003
        condition.space.freeBytes = nil
        return condition.findings
    }

    @Test func aNewDatabaseHasTheSchemaOfTheMigrations() async throws {
        #expect(try await changed("ANALYZE") == [])
        // An index of somebody's own changes no result.
        #expect(try await changed("CREATE INDEX mine ON samples (value)") == [])
    }

    @Test func aMissingIndexIsMadeByTheRemedy() async throws {
        let found = try await changed("DROP INDEX samples_recorded")
        #expect(found.map(\.code) == [.indexMissing])
        #expect(found.map(\.severity) == [.warning])
        #expect(found[0].remedy.contains("\"CREATE INDEX samples_recorded ON samples (recorded_at_ms)\""))
        #expect(try await changed("DROP INDEX cache_entries_key").map(\.severity) == [.critical])
    }

    @Test(arguments: [
        ("DROP TRIGGER session_state_inserted", Finding.Severity.critical, "trigger session_state_inserted"),
        ("DROP VIEW memory_usage", .critical, "view memory_usage"),
        ("ALTER TABLE samples ADD COLUMN mine INTEGER", .warning, "table samples"),
        ("CREATE TRIGGER mine AFTER INSERT ON samples BEGIN SELECT 1; END", .warning, "trigger mine"),
    ])
    func otherChangesAreNamed(script: String, severity: Finding.Severity, named: String) async throws {
        let found = try await changed(script)
        #expect(found.map(\.code) == [.schemaDiffers])
        #expect(found.map(\.severity) == [severity])
        #expect(found.first?.detail.contains(named) == true)
    }
}

/// Figures for the rules, from a storage that was used.
struct DiagnosticFiguresTests {
    private func stored(_ storage: SQLiteStorage) async throws -> DiagnosticFigures.Stored {
        try #require(await storage.diagnosticFigures().stored)
    }

    @Test func openingIsMeasuredInParts() async throws {
        try await withStorage { storage, _ in
            let parts = await storage.diagnosticFigures().opening
            #expect(parts.map(\.name) == ["recovery", "migration", "preparation"])
            #expect(parts.allSatisfy { $0.seconds >= 0 && $0.remedy.hasSuffix(".") })
            #expect(parts.reduce(0) { $0 + $1.seconds } > 0)
        }
    }

    @Test func namespacesHaveTheirPoliciesAndTheLastHour() async throws {
        try await withStorage { storage, clock in
            let policy = CachePolicy(timeToLive: .milliseconds(60_000), maxEntries: 7)
            _ = try await storage.setPolicy(policy, of: .n)
            try await storage.put("k", "12345")
            _ = try await storage.text("k")
            for isFlushed in [false, true] {
                if isFlushed { try await storage.flushCounters() }
                let found = try await stored(storage).namespaces
                #expect(found.map(\.name) == [.n])
                #expect(found[0].policy == policy)
                #expect((found[0].entryCount, found[0].sizeBytes) == (1, 5))
                #expect(found[0].activity.hits == 1)
            }
            clock.advance(milliseconds: DiagnosticThresholds.windowMilliseconds + 60_000)
            #expect(try await stored(storage).namespaces[0].activity == CacheActivity())
        }
    }

    @Test func missesTellHowLateTheyCame() async throws {
        try await withStorage { storage, clock in
            _ = try await storage.setPolicy(CachePolicy(maxEntries: 1), of: .n)
            try await storage.put("a", lifetime: .milliseconds(1000))
            clock.advance(seconds: 16)
            #expect(await storage.missReason("a") == .expired)
            try await storage.put("b")
            try await storage.put("c")
            clock.advance(seconds: 100)
            #expect(await storage.missReason("b") == .evicted)
            // In a batch too.
            _ = try await storage.batch([.get(Key(stored: "b"))], namespace: .n, atomic: false)
            #expect(await storage.missReason("never") == .absent)
            let delays = try await stored(storage).namespaces[0].delays
            #expect(delays[.expired]?.seconds(covering: 1) == 20)
            #expect(delays[.evicted]?.count == 2)
            #expect(delays[.evicted]?.seconds(covering: 1) == 120)
            #expect(delays.count == 2)
        }
    }

    @Test func aRemovedNamespaceKeepsNoDelays() async throws {
        try await withStorage { storage, clock in
            try await storage.put("a", lifetime: .milliseconds(1000))
            clock.advance(seconds: 16)
            #expect(await storage.missReason("a") == .expired)
            #expect(storage.ledger.delays().count == 1)
            try await storage.put("k", in: Name(stored: "later"))
            try await storage.removeNamespace(.n)
            _ = await storage.operationalFigures()
            #expect(storage.ledger.delays().count == 0)
        }
    }

    @Test func overflowingNamesAreSeenForAnHour() async throws {
        try await withStorage { storage, clock in
            func gauges(_ names: [String]) -> [Sample] {
                names.map {
                    Sample(name: $0, measurement: .gauge(value: 1, unit: nil), recordedAt: clock.now)
                }
            }
            _ = try await storage.record(gauges((0..<Limits.maxSampleNames).map { "g\($0)" }))
            #expect(try await stored(storage).overflowingKinds == [])
            _ = try await storage.record(gauges(["one more"]))
            #expect(try await stored(storage).overflowingKinds == [.gauge])
            clock.advance(milliseconds: DiagnosticThresholds.windowMilliseconds + 60_000)
            #expect(try await stored(storage).overflowingKinds == [])
        }
    }

    @Test func theLargestSessionIsFound() async throws {
        try await withStorage { storage, _ in
            let none = try await stored(storage).largestSession
            #expect(none == nil)
            try await storage.create(Name(stored: "small"), state: ["a": 1])
            try await storage.create(Name(stored: "large"), state: ["a": "much more than a number"])
            let largest = try await stored(storage).largestSession
            #expect(largest?.id.rawValue == "large")
            #expect(largest?.historyCount == 0)
        }
    }

    @Test func aClosedDatabaseIsAProblem() async throws {
        let folder = TemporaryFolder()
        let storage = try makeStorage(in: folder, clock: ManualClock())
        await storage.close()
        let figures = await storage.diagnosticFigures()
        #expect(figures.stored == nil && figures.problem?.isEmpty == false)
    }

    @Test func lookingWritesNothing() async throws {
        try await withStorage { storage, _ in
            try await storage.put("k")
            let writes = await storage.operationalFigures().writes
            for _ in 0..<3 { _ = await storage.diagnosticFigures() }
            #expect(await storage.operationalFigures().writes == writes)
        }
    }
}
