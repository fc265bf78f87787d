// Whether a database has the tables, indexes, views and triggers that the migrations make.

import Domain
import Migrations

/// The difference between a database's schema and that of this program at the same version.
struct SchemaComparison: Sendable, Equatable {
    struct Object: Sendable, Hashable {
        enum Kind: String, Sendable {
            case table, index, view, trigger
        }

        var kind: Kind
        var name: String
        /// Its definition, with single blanks between words.
        var definition: String

        var isUnique: Bool { definition.hasPrefix("CREATE UNIQUE ") }
    }

    /// Not in the database.
    var missing: [Object] = []
    /// In the database, but defined differently: as this program defines them.
    var changed: [Object] = []
    /// Triggers that this program does not know. Other additions do not change what its statements do.
    var foreignTriggers: [Object] = []

    /// - Parameter version: of the database's schema.
    init(_ connection: Connection, version: Int) throws {
        let found = try connection.schemaObjects()
        let expected = try Self.expected(version: version)
        for object in expected {
            guard let same = found.first(where: { $0.kind == object.kind && $0.name == object.name }) else {
                missing.append(object)
                continue
            }
            if same.definition != object.definition { changed.append(object) }
        }
        foreignTriggers = found.filter { object in
            object.kind == .trigger && !expected.contains { $0.kind == .trigger && $0.name == object.name }
        }
    }

    init() {}

    /// What the migrations make, in memory: a few milliseconds.
    private static func expected(version: Int) throws -> [Object] {
        if version == Migration.all.count { return try current.get() }
        return try made(by: Array(Migration.all.prefix(version)))
    }

    private static let current = Result { try made(by: Migration.all) }

    private static func made(by migrations: [Migration]) throws -> [Object] {
        let connection = try Connection(path: ":memory:", mode: .writer)
        _ = try Migrator(migrations: migrations).migrate(connection, now: Instant(milliseconds: 0))
        return try connection.schemaObjects()
    }
}

extension Connection {
    /// Everything that statements have defined, by name.
    fileprivate func schemaObjects() throws(SQLiteError) -> [SchemaComparison.Object] {
        try all(
            "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' ORDER BY name"
        ) { row in
            SchemaComparison.Object(
                kind: SchemaComparison.Object.Kind(rawValue: row.text(0)) ?? .table, name: row.text(1),
                definition: row.text(2).split { $0.isWhitespace }.joined(separator: " "))
        }
    }
}
