// Migrations: forward, once, complete, or refused with the reason.

import Domain
import Migrations
import TestSupport
import Testing

@testable import SQLiteStorage

struct MigratorTests {
    private let folder = TemporaryFolder()
    private let now = Instant(milliseconds: 42)

    private func open() throws -> Connection {
        let connection = try Connection(path: folder.file("test.db"), mode: .writer)
        try connection.configureWriter()
        return connection
    }

    private func migration(_ version: Int, _ script: String) -> Migration {
        Migration(version: version, name: "step\(version)", script: Array(script.utf8))
    }

    private func refusal(_ migrator: Migrator, _ connection: Connection) -> String? {
        do {
            _ = try migrator.migrate(connection, now: now)
            return nil
        } catch {
            return (error as? OpeningError)?.description
        }
    }

    private func tables(_ connection: Connection) throws -> [String] {
        try connection.all(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        ) { $0.text(0) }
    }

    @Test func aNewFileGetsEveryMigration() throws {
        let connection = try open()
        #expect(try Migrator().migrate(connection, now: now) == Migration.all.map(\.version))
        let recorded = try connection.all(
            "SELECT version, name, sha256, applied_at_ms FROM schema_migrations ORDER BY version"
        ) { ($0.int(0), $0.text(1), $0.text(2), $0.instant(3)) }
        #expect(recorded.map(\.0) == Migration.all.map(\.version))
        #expect(recorded.map(\.1) == Migration.all.map(\.name))
        #expect(recorded.map(\.2) == Migration.all.map { EntityTag(of: $0.script).hex })
        #expect(recorded.allSatisfy { $0.3 == now })
        #expect(try connection.first("PRAGMA application_id") { $0.integer(0) } == Migrator.applicationID)
    }

    @Test func versionsCountFromOneWithoutGaps() {
        #expect(Migration.all.map(\.version) == Array(1...Migration.all.count))
    }

    @Test func aSecondTimeNothingIsDone() throws {
        let connection = try open()
        _ = try Migrator().migrate(connection, now: now)
        #expect(try Migrator().migrate(connection, now: now) == [])
        #expect(try Migrator().migrate(try open(), now: now) == [])
    }

    @Test func onlyWhatIsNewIsApplied() throws {
        let connection = try open()
        let first = migration(1, "CREATE TABLE a (x)")
        let second = migration(2, "CREATE TABLE b (x)")
        #expect(try Migrator(migrations: [first]).migrate(connection, now: now) == [1])
        #expect(try Migrator(migrations: [first, second]).migrate(connection, now: now) == [2])
        #expect(try tables(connection) == ["a", "b", "schema_migrations"])
    }

    @Test func aFailingMigrationLeavesNothing() throws {
        let connection = try open()
        let first = migration(1, "CREATE TABLE a (x); INSERT INTO a VALUES (1)")
        let broken = migration(2, "INSERT INTO a VALUES (2); CREATE TABLE b (x); CREATE TABLE a (x)")
        let message = refusal(Migrator(migrations: [first, broken]), connection)
        #expect(message?.contains("migration 2 (step2) failed and was rolled back") == true)
        #expect(try tables(connection) == ["a", "schema_migrations"])
        #expect(try connection.all("SELECT x FROM a") { $0.int(0) } == [1])
        #expect(!connection.isInTransaction)
        // Once corrected, it continues from there.
        let mended = migration(2, "CREATE TABLE b (x)")
        #expect(try Migrator(migrations: [first, mended]).migrate(connection, now: now) == [2])
    }

    @Test func aFailingFirstMigrationCanBeTriedAgain() throws {
        let connection = try open()
        #expect(refusal(Migrator(migrations: [migration(1, "CREATE TABLE a (x); nonsense")]), connection) != nil)
        #expect(try tables(connection).contains("a") == false)
        #expect(try Migrator(migrations: [migration(1, "CREATE TABLE a (x)")]).migrate(connection, now: now) == [1])
    }

    @Test func aChangedMigrationIsRefused() throws {
        let connection = try open()
        _ = try Migrator(migrations: [migration(1, "CREATE TABLE a (x)")]).migrate(connection, now: now)
        let changed = Migrator(migrations: [
            migration(1, "CREATE TABLE a (x) -- changed"), migration(2, "CREATE TABLE b (x)"),
        ])
        #expect(refusal(changed, connection)?.contains("migration 1 (step1) was applied with a different text") == true)
        #expect(try tables(connection) == ["a", "schema_migrations"])
    }

    @Test func aNewerDatabaseIsRefused() throws {
        let connection = try open()
        let first = migration(1, "CREATE TABLE a (x)")
        _ = try Migrator(migrations: [first, migration(2, "CREATE TABLE b (x)")]).migrate(connection, now: now)
        let message = refusal(Migrator(migrations: [first]), connection)
        #expect(message?.contains("migration 2 (step2), which this version of reprise does") == true)
    }

    @Test func anotherProgramsFileIsRefused() throws {
        let connection = try open()
        try connection.execute("CREATE TABLE theirs (x)")
        #expect(refusal(Migrator(), connection)?.contains("another program") == true)
        #expect(try tables(connection) == ["theirs"])
    }

    @Test func aFileMarkedByAnotherProgramIsRefused() throws {
        let connection = try open()
        try connection.execute("PRAGMA application_id = 7")
        #expect(refusal(Migrator(), connection)?.contains("another program") == true)
        #expect(try connection.first("PRAGMA application_id") { $0.int(0) } == 7)
    }
}
