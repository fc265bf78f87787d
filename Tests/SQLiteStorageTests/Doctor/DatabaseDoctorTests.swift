// The doctor on healthy files, broken ones, and ones that other programs have changed.

import Domain
import FoundationEssentials
import Glibc
import Migrations
import TestSupport
import Testing

@testable import SQLiteStorage

struct DatabaseDoctorTests {
    private let folder = TemporaryFolder()
    private let clock = ManualClock()

    private var path: String { folder.file("reprise.db") }

    /// A database with something of everything.
    private func fill() async throws {
        let storage = try makeStorage(in: folder, clock: clock)
        for number in 0..<40 { try await storage.put("small\(number)", "value \(number)", tags: ["t"]) }
        for number in 0..<3 { try await storage.upload("large\(number)", noise(300_000)) }
        try await storage.put("empty", [])
        try await storage.put("short-lived", lifetime: .milliseconds(1000))
        try await storage.create(state: ["a": 1, "temp_b": "x"])
        try await storage.flushCounters()
        await storage.close()
        chmod(path, 0o600)
    }

    private func change(_ script: String) throws {
        let connection = try Connection(path: path, mode: .writer)
        // Written back when it is closed.
        try connection.execute(script)
    }

    private func examine(_ path: String? = nil, isDeep: Bool = true) -> DiagnosticFigures {
        let path = path ?? self.path
        let doctor = DatabaseDoctor(
            path: path, backupDirectory: "backups", claim: FileClaim(path: path), now: clock.now)
        return doctor.examine(isDeep: isDeep) { _ in }
    }

    /// Without what depends on the machine.
    private func codes(_ figures: DiagnosticFigures) -> [String] {
        let others: Set<Finding.Code> = [.sqliteDefect, .diskNearlyFull]
        return figures.findings.map(\.code).filter { !others.contains($0) }.map(\.rawValue)
    }

    // MARK: Healthy

    @Test func aHealthyDatabaseHasNoFindings() async throws {
        try await fill()
        let figures = examine()
        #expect(codes(figures) == [])
        #expect(figures.stored?.namespaces.map(\.name) == [.n])
        #expect(figures.stored?.largestSession?.id == .s)
    }

    @Test func nothingIsChanged() async throws {
        try await fill()
        let before = FileManager.default.contents(atPath: path)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
        _ = examine()
        #expect(FileManager.default.contents(atPath: path) == before)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() == names)
    }

    @Test func whatExpiredMeanwhileIsANote() async throws {
        try await fill()
        clock.advance(seconds: 3000)
        let figures = examine()
        #expect(codes(figures) == ["expired_leftovers"])
        #expect(figures.findings.first { $0.code == .expiredLeftovers }?.severity == .info)
        // Nobody sweeps it, so it is not late.
        #expect(figures.stored?.lagSeconds == [:])
    }

    @Test func itReadsBesideAServer() async throws {
        let storage = try makeStorage(in: folder, clock: clock)
        try await storage.put("k")
        chmod(path, 0o600)
        chmod(path + "-wal", 0o600)
        chmod(path + "-shm", 0o600)
        let claim = FileClaim(path: path)
        #expect(claim.isServed)
        #expect(claim.server == getpid())
        let figures = examine()
        #expect(codes(figures) == [])
        #expect(figures.stored?.namespaces.count == 1)
        try await storage.put("l")
        await storage.close()
    }

    /// A server locks the database too, whose lock file can have another name on another mount.
    @Test func aServerUnderAnotherNameIsSeen() async throws {
        let storage = try makeStorage(in: folder, clock: clock)
        unlink(path + ".lock")
        #expect(FileClaim(path: path).isServed)
        await storage.close()
    }

    @Test func theBackupsAreLookedAt() async throws {
        let storage = try makeStorage(in: folder, clock: clock)
        clock.advance(seconds: 60)
        try await storage.createBackup()
        await storage.close()
        clock.advance(seconds: 40)
        #expect(examine().backups == .init(latestAge: 40, databaseAge: 100))
    }

    @Test func noServerStartsMeanwhile() async throws {
        try await fill()
        do {
            let claim = FileClaim(path: path)
            #expect(!claim.isServed)
            #expect(!FileClaim(path: path).isServed)
            #expect(throws: OpeningError.self) { try makeStorage(in: folder, clock: clock) }
            withExtendedLifetime(claim) {}
        }
        await (try makeStorage(in: folder, clock: clock)).close()
    }

    @Test func aLogThatAKilledServerLeftIsRead() async throws {
        let storage = try makeStorage(in: folder, clock: clock)
        try await storage.put("k")
        // A copy of what a killed server leaves.
        let copy = TemporaryFolder()
        for suffix in ["", "-wal"] {
            try FileManager.default.copyItem(atPath: path + suffix, toPath: copy.file("reprise.db" + suffix))
            chmod(copy.file("reprise.db" + suffix), 0o600)
        }
        await storage.close()
        let figures = examine(copy.file("reprise.db"))
        #expect(figures.stored?.namespaces.map(\.entryCount) == [1])
    }

    // MARK: No database

    @Test func aMissingFileIsAWarning() {
        let figures = examine(folder.file("nothing.db"))
        #expect(codes(figures) == ["database_missing"])
        #expect(figures.findings.map(\.severity) == [.warning])
        #expect(!FileManager.default.fileExists(atPath: folder.file("nothing.db")))
    }

    @Test func otherThingsAreNoDatabase() async throws {
        #expect(codes(examine(folder.path)) == ["not_a_database"])
        let text = folder.file("text.db")
        try Data("This is no database. ".utf8).write(to: URL(filePath: text))
        chmod(text, 0o600)
        #expect(codes(examine(text)) == ["not_a_database"])
        let empty = folder.file("empty.db")
        try Data().write(to: URL(filePath: empty))
        chmod(empty, 0o600)
        #expect(codes(examine(empty)) == ["database_missing"])
        let foreign = folder.file("foreign.db")
        try Connection(path: foreign, mode: .writer).execute("CREATE TABLE t (a)")
        chmod(foreign, 0o600)
        #expect(codes(examine(foreign)) == ["database_foreign"])
    }

    @Test func filesThatOthersMayReadAreNamed() async throws {
        try await fill()
        chmod(path, 0o644)
        let figures = examine(isDeep: false)
        #expect(codes(figures) == ["files_readable_by_others"])
        #expect(figures.findings.contains { $0.remedy == "chmod 600 \(path)" })
    }

    @Test func aSecondNameIsDangerous() async throws {
        try await fill()
        try FileManager.default.linkItem(atPath: path, toPath: folder.file("link.db"))
        #expect(codes(examine(isDeep: false)) == ["hard_links"])
    }

    // MARK: Other versions

    @Test func anOlderSchemaIsANote() throws {
        let connection = try Connection(path: path, mode: .writer)
        _ = try Migrator(migrations: Array(Migration.all.prefix(3))).migrate(connection, now: clock.now)
        chmod(path, 0o600)
        let figures = examine()
        #expect(codes(figures).sorted() == ["schema_old"])
        #expect(figures.findings.contains { $0.code == .schemaOld && $0.severity == .info })
        #expect(figures.stored == nil)
    }

    @Test func aNewerSchemaIsRefused() async throws {
        try await fill()
        try change("INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 1)")
        let figures = examine()
        #expect(codes(figures) == ["schema_newer"])
        #expect(figures.findings.map(\.severity).max() == .critical)
    }

    @Test func anotherTextOfAMigrationIsRefused() async throws {
        try await fill()
        try change("UPDATE schema_migrations SET sha256 = 'x' WHERE version = 2")
        #expect(codes(examine()) == ["schema_differs"])
    }

    // MARK: Damage

    /// Overwrites bytes of the file where a text is stored, or at a place.
    private func overwrite(_ text: [UInt8]? = nil, at place: Int? = nil, with bytes: [UInt8]) throws {
        var data = try #require(FileManager.default.contents(atPath: path))
        let start = try #require(place ?? text.flatMap { data.firstRange(of: $0)?.lowerBound })
        data.replaceSubrange(start..<start + bytes.count, with: bytes)
        try data.write(to: URL(filePath: path))
        chmod(path, 0o600)
    }

    @Test func anAlteredValueIsFoundByItsHash() async throws {
        try await fill()
        try overwrite(Array("value 17".utf8), with: Array("VALUE".utf8))
        // Not without reading the values.
        #expect(codes(examine(isDeep: false)) == [])
        let found = try #require(examine().findings.first { $0.code == .valuesDamaged })
        #expect(found.severity == .critical)
        #expect(found.detail.contains("n/small17"))
        #expect(found.evidence["damaged_values"] == 1)
        #expect(found.evidence["checked_values"] == 45)
    }

    @Test func aLostChunkIsFound() async throws {
        try await fill()
        try change("DELETE FROM cache_chunks WHERE blob_id = 2 AND number = 1")
        #expect(codes(examine()) == ["values_damaged"])
    }

    @Test func damagedPagesAreFound() async throws {
        try await fill()
        // The whole fourth page.
        try overwrite(at: 3 * 4096, with: [UInt8](repeating: 0xEE, count: 4096))
        let found = examine()
        #expect(codes(found).contains("database_damaged"))
        #expect(found.findings.filter { $0.code == .databaseDamaged }.count <= 2)
    }

    @Test func aDamagedFirstPageIsFound() async throws {
        try await fill()
        try overwrite(at: 100, with: [UInt8](repeating: 0xEE, count: 100))
        #expect(codes(examine(isDeep: false)) == ["database_damaged"])
    }

    @Test(arguments: [
        "UPDATE cache_generations SET entry_count = entry_count + 1 WHERE generation_id = 1",
        "UPDATE cache_generations SET size_bytes = 3 WHERE generation_id = 1",
        "UPDATE sessions SET state_size_bytes = 0", "UPDATE sessions SET temporary_key_count = 0",
        "UPDATE sessions SET history_count = 5", "UPDATE idempotency_totals SET answer_bytes = 5",
    ])
    func wrongCountersAreRepairedByTheRemedy(script: String) async throws {
        try await fill()
        try change(script)
        let figures = examine()
        #expect(codes(figures) == ["counters_wrong"])
        let remedy = try #require(figures.findings.first { $0.code == .countersWrong }?.remedy)
        let prefix = "Stop the server and run: sqlite3 \(path) \""
        #expect(remedy.hasPrefix(prefix))
        try change(String(remedy.dropFirst(prefix.count).dropLast()))
        #expect(codes(examine()) == [])
    }

    @Test(arguments: [
        "DELETE FROM cache_blobs WHERE blob_id = 2",
        "INSERT INTO cache_blobs (blob_id, is_attached, created_at_ms) VALUES (99, 1, 0)",
        "PRAGMA foreign_keys = OFF; DELETE FROM cache_entries WHERE key = 'small3'",
    ])
    func orphansAreFound(script: String) async throws {
        try await fill()
        try change(script)
        #expect(codes(examine()) == ["rows_orphaned"])
    }

    @Test func progressIsReported() async throws {
        try await fill()
        var seen: [String] = []
        var last: ExaminationProgress?
        let doctor = DatabaseDoctor(
            path: path, backupDirectory: "backups", claim: FileClaim(path: path), now: clock.now)
        _ = doctor.examine(isDeep: true) {
            if seen.last != $0.what { seen.append($0.what) }
            if $0.what == "values" { last = $0 }
        }
        #expect(seen.first == "structure" && seen.contains("counters of sessions"))
        #expect(last?.done == 45 && last?.total == 45)
    }
}
