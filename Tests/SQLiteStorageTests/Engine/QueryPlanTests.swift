// No statement scans a table: the plan of every statement in the engine's source text is checked.

import Domain
import FoundationEssentials
import TestSupport
import Testing

@testable import SQLiteStorage

struct QueryPlanTests {
    /// Tables with a small bounded number of rows, where a scan is fine.
    private static let tinyTables: Set<String> = [
        // The catalogue, queried once at startup.
        "sqlite_schema", "sqlite_master",
        // One row per migration.
        "schema_migrations",
        // Changes at run time: at most one row per setting.
        "runtime_settings",
        // Bounded by the limits on names and variants; only scanned when old series are removed.
        "sample_series",
        // One row.
        "session_versions", "idempotency_totals",
        // At most 1000 rows, read at startup and counted when a token is made.
        "access_tokens",
        "cache_openings",
    ]

    /// The statements in `Sources/SQLiteStorage`, so that new ones are checked without being listed anywhere.
    private static let statements: [String] = {
        let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(4).joined(separator: "/")
        let folder = root + "/Sources/SQLiteStorage"
        let names = (try? FileManager.default.subpathsOfDirectory(atPath: folder)) ?? []
        let texts = names.sorted().flatMap { name in
            stringLiterals(of: FileManager.default.contents(atPath: "\(folder)/\(name)").map { Array($0) } ?? [])
        }
        let verbs = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"]
        return texts.filter { text in verbs.contains { text.drop { $0.isWhitespace }.hasPrefix($0 + " ") } }
    }()

    /// The contents of the string literals in a Swift source, without comments.
    private static func stringLiterals(of source: [UInt8]) -> [String] {
        let quote = UInt8(ascii: "\"")
        var literals: [String] = []
        var rest = source[...]
        while let byte = rest.first {
            if rest.starts(with: "//".utf8) {
                rest = rest.drop { $0 != UInt8(ascii: "\n") }
                continue
            }
            guard byte == quote else {
                rest.removeFirst()
                continue
            }
            let delimiter = rest.starts(with: [quote, quote, quote]) ? [quote, quote, quote] : [quote]
            rest.removeFirst(delimiter.count)
            var literal: [UInt8] = []
            while !rest.isEmpty, !rest.starts(with: delimiter) {
                if rest.first == UInt8(ascii: "\\") { literal.append(rest.removeFirst()) }
                literal.append(rest.removeFirst())
            }
            rest.removeFirst(delimiter.count)
            literals.append(String(decoding: literal, as: UTF8.self))
        }
        return literals
    }

    /// A migrated database. If filled, it also has the statistics that an operator's `ANALYZE` would leave.
    private func connection(_ folder: TemporaryFolder, isFilled: Bool) async throws -> Connection {
        let clock = ManualClock()
        let storage = try makeStorage(in: folder, clock: clock)
        if isFilled {
            for namespace in 0..<20 {
                let name = Name(stored: "namespace\(namespace)")
                _ = try await storage.setPolicy(CachePolicy(maxEntries: namespace % 2 == 0 ? 1000 : nil), of: name)
                _ = try await storage.batch(
                    (0..<100).map {
                        .set(CacheWrite("key\($0)", [1], lifetime: .milliseconds(1000), tags: ["t\($0 % 5)"]))
                    },
                    namespace: name, atomic: true)
            }
            for number in 0..<20 {
                try await storage.upload("large\(number)", noise(100_000), in: Name(stored: "namespace1"))
            }
            try await storage.put("large0", in: Name(stored: "namespace1"))
            _ = try await storage.clear(Name(stored: "namespace2"), filter: EntryFilter())
        }
        await storage.close()
        let connection = try Connection(path: folder.file("reprise.db"), mode: .writer)
        if isFilled { try connection.execute("ANALYZE") }
        return connection
    }

    @Test func theStatementsAreFound() {
        #expect(Self.statements.count > 60)
        #expect(Self.statements.contains { $0.contains("FROM cache_namespaces n\n") })
        #expect(!Self.statements.contains { $0.contains("\\(") }, "SQL is never put together")
    }

    @Test(arguments: [false, true])
    func noStatementWalksATable(isFilled: Bool) async throws {
        let folder = TemporaryFolder()
        let connection = try await connection(folder, isFilled: isFilled)
        for statement in Self.statements {
            for line in try connection.plan(of: statement) where line.hasPrefix("SCAN ") {
                let words = line.split(separator: " ")
                let isOnIndex = words.contains("USING") && words.contains("INDEX")
                // A table-valued function only has the rows that it generates.
                let isAllowed =
                    Self.tinyTables.contains(String(words[1])) || line.contains("CONSTANT ROW")
                    || line.contains("VIRTUAL TABLE") || words[1] == "(subquery-1)"
                #expect(isOnIndex || isAllowed, "\(line)\n\(statement)")
            }
        }
    }

    /// Otherwise a write into a full namespace would scan the expired entries of all others.
    @Test func dueEntriesAreFoundByTheirNamespace() async throws {
        let folder = TemporaryFolder()
        let connection = try await connection(folder, isFilled: true)
        let statements = Self.statements.filter { $0.contains("cache_entries_due") }
        #expect(statements.count >= 5)
        for statement in statements {
            let plan = try connection.plan(of: statement).filter { $0.contains("cache_entries_due") }
            #expect(!plan.isEmpty && plan.allSatisfy { $0.contains("(generation_id=? AND expires_at_ms") }, "\(plan)")
        }
        #expect(!Self.statements.contains { $0.contains("expires_at_ms <=") && $0.contains("+generation_id") })
    }

    @Test func theHotPathIsThreeLookUpsByKey() async throws {
        let folder = TemporaryFolder()
        let connection = try await connection(folder, isFilled: true)
        let statement = try #require(Self.statements.first { $0.contains("LEFT JOIN cache_values v") })
        let plan = try connection.plan(of: statement)
        #expect(plan.count == 3)
        #expect(plan.allSatisfy { $0.hasPrefix("SEARCH ") }, "\(plan)")
    }

    /// For `(a, b) IN (SELECT …)` the plan names an index, but SQLite looks up the first column alone when another one
    /// is text: `Connection.removeEach`.
    @Test func noRowIsLookedUpByARowValue() {
        #expect(!Self.statements.isEmpty)
        for statement in Self.statements {
            #expect(!statement.contains(") IN ("), "\(statement)")
        }
    }
}
