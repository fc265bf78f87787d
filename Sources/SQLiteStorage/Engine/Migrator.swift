// Updates a database's schema to this program's, or refuses with the reason.

import Crypto
import Domain
import Migrations

/// What stops a database from being opened, in words for its operator.
public struct OpeningError: Error, Sendable, CustomStringConvertible {
    public let description: String
    /// Whether the reason is a server that has the file open.
    public let isHeldByServer: Bool

    init(_ description: String, isHeldByServer: Bool = false) {
        self.description = description
        self.isHeldByServer = isHeldByServer
    }
}

/// Applies migrations: numbered, forward only, each in a transaction of its own and recorded with its checksum.
struct Migrator {
    /// `RPRS` as SQLite's application id, so that a file of another program is not mistaken for ours.
    static let applicationID: Int64 = 0x5250_5253

    var migrations = Migration.all

    /// Updates the schema. A migration is applied as a whole or not at all.
    /// - Returns: the versions that were applied now.
    /// - Throws: ``OpeningError`` when the database is not Reprise's, is from a newer Reprise, or has a migration
    ///   whose text differs from this program's; ``SQLiteError``.
    func migrate(_ connection: Connection, now: Instant) throws -> [Int] {
        try checkOwnership(connection)
        if try connection.first("PRAGMA application_id", row: { $0.integer(0) }) != Self.applicationID {
            try connection.execute("PRAGMA application_id = \(Self.applicationID)")
        }
        try connection.execute(
            """
            CREATE TABLE IF NOT EXISTS schema_migrations (
                version        INTEGER PRIMARY KEY,
                name           TEXT    NOT NULL,
                sha256         TEXT    NOT NULL,
                applied_at_ms  INTEGER NOT NULL
            ) STRICT
            """)
        let pending = migrations.dropFirst(try applied(connection))
        for migration in pending { try apply(migration, to: connection, now: now) }
        return pending.map(\.version)
    }

    /// How many migrations a database has.
    /// - Throws: ``OpeningError`` when one of them is not among this program's; ``SQLiteError``.
    func applied(_ connection: Connection) throws -> Int {
        let applied = try connection.all("SELECT version, name, sha256 FROM schema_migrations ORDER BY version") {
            (version: $0.int(0), name: $0.text(1), checksum: $0.text(2))
        }
        for (index, row) in applied.enumerated() {
            guard index < migrations.count, row.version == migrations[index].version else {
                throw OpeningError(
                    "the database has migration \(row.version) (\(row.name)), which this version of reprise does "
                        + "not know. "
                        + "Run the version that created it, or restore an older backup.")
            }
            guard row.checksum == Self.checksum(of: migrations[index]) else {
                throw OpeningError(
                    "migration \(row.version) (\(row.name)) was applied with a different text from this program's. "
                        + "Released migrations never change: run an official build, or restore a backup.")
            }
        }
        return applied.count
    }

    /// Changes nothing, so that another program's file is left alone.
    /// - Throws: ``OpeningError`` when the file is neither empty nor Reprise's; ``SQLiteError``.
    func checkOwnership(_ connection: Connection) throws {
        if try isOwn(connection) { return }
        let id = try connection.first("PRAGMA application_id") { $0.integer(0) } ?? 0
        let tables = try connection.first("SELECT count(*) FROM sqlite_schema") { $0.int(0) } ?? 0
        guard id == 0, tables == 0 else {
            throw OpeningError("the file is an SQLite database that belongs to another program. Choose another path.")
        }
    }

    /// Whether the file is Reprise's and not empty.
    func isOwn(_ connection: Connection) throws(SQLiteError) -> Bool {
        try connection.first("PRAGMA application_id") { $0.integer(0) } == Self.applicationID
    }

    private func apply(_ migration: Migration, to connection: Connection, now: Instant) throws {
        try connection.execute("BEGIN IMMEDIATE")
        do {
            try connection.execute(String(decoding: migration.script, as: UTF8.self))
            try connection.run(
                "INSERT INTO schema_migrations (version, name, sha256, applied_at_ms) VALUES (?1, ?2, ?3, ?4)",
                .integer(migration.version), .text(migration.name), .text(Self.checksum(of: migration)), .instant(now))
            try connection.execute("COMMIT")
        } catch {
            if connection.isInTransaction { try? connection.execute("ROLLBACK") }
            if error.isOfFullDisk { throw error }
            throw OpeningError(
                "migration \(migration.version) (\(migration.name)) failed and was rolled back: \(error)")
        }
    }

    static func checksum(of migration: Migration) -> String {
        EntityTag(digest: Array(SHA256.hash(data: migration.script))).hex
    }
}
