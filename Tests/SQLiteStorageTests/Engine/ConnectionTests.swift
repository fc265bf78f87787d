// The wrapper over SQLite: every kind of value at its extremes, and every way a statement ends.

import CSQLite
import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct ConnectionTests {
    private let folder = TemporaryFolder()

    private func open(_ mode: Connection.Mode = .writer) throws -> Connection {
        try Connection(path: folder.file("test.db"), mode: mode)
    }

    /// A connection with a table of one untyped column.
    private func openWithTable() throws -> Connection {
        let connection = try open()
        try connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x ANY) STRICT")
        return connection
    }

    private func resultCode(_ body: () throws -> Void) -> Int32? {
        do {
            try body()
            return nil
        } catch {
            return (error as? SQLiteError)?.code
        }
    }

    // MARK: Columns

    @Test func columnsAreFoundByNameWhereverAStatementHasThem() throws {
        let connection = try openWithTable()
        try connection.run("INSERT INTO t (x) VALUES ('first'), (NULL)")
        func read(_ row: borrowing Row) -> String { "\(row.int("id")) \(row.optionalText("x") ?? "-")" }
        #expect(try connection.all("SELECT * FROM t ORDER BY id") { read($0) } == ["1 first", "2 -"])
        #expect(try connection.all("SELECT x, 7 AS y, id FROM t ORDER BY id") { read($0) } == ["1 first", "2 -"])
        #expect(try connection.all("SELECT x AS id, id AS x FROM t WHERE x IS NULL") { read($0) } == ["0 2"])
    }

    // MARK: Values

    @Test(arguments: [0, 1, -1, .max, .min, Int64(Int32.max) + 1, Int64(Int32.min) - 1])
    func integersComeBack(value: Int64) throws {
        let connection = try openWithTable()
        try connection.run("INSERT INTO t (x) VALUES (?1)", .integer(value))
        #expect(try connection.first("SELECT x FROM t") { $0.integer(0) } == value)
        #expect(try connection.first("SELECT typeof(x) FROM t") { $0.text(0) } == "integer")
    }

    @Test(arguments: [0, -1.5, .greatestFiniteMagnitude, .leastNonzeroMagnitude, .infinity])
    func decimalsComeBack(value: Double) throws {
        let connection = try openWithTable()
        try connection.run("INSERT INTO t (x) VALUES (?1)", .real(value))
        #expect(try connection.first("SELECT x FROM t") { $0.real(0) } == value)
    }

    @Test(arguments: [
        "", "a", "a\u{0}b", "\u{0}", "日本語 👩‍👩‍👧", "e\u{301}", "\u{10FFFF}", String(repeating: "ä", count: 100_000),
    ])
    func textsComeBack(value: String) throws {
        let connection = try openWithTable()
        try connection.run("INSERT INTO t (x) VALUES (?1)", .text(value))
        let (back, type, bytes) = try #require(
            try connection.first("SELECT x, typeof(x), length(CAST(x AS BLOB)) FROM t") {
                ($0.text(0), $0.text(1), $0.int(2))
            })
        #expect(Array(back.utf8) == Array(value.utf8))
        #expect(type == "text")
        #expect(bytes == value.utf8.count)
    }

    @Test(arguments: [0, 1, 3, 5_000_000])
    func blobsComeBack(size: Int) throws {
        let value = size < 10 ? [UInt8](repeating: 0, count: size) : noise(size)
        let connection = try openWithTable()
        try connection.run("INSERT INTO t (x) VALUES (?1)", .blob(value))
        #expect(try connection.first("SELECT x FROM t") { $0.blob(0) } == value)
        #expect(try connection.first("SELECT typeof(x) FROM t") { $0.text(0) } == "blob")
    }

    @Test func nullIsNothingElse() throws {
        let connection = try openWithTable()
        try connection.run("INSERT INTO t (x) VALUES (?1)", .null)
        try connection.run("INSERT INTO t (x) VALUES (?1)", .optional(nil as Int64?, Value.integer))
        let rows = try connection.all("SELECT x FROM t") { row in
            row.isNull(0) && row.optionalInteger(0) == nil && row.optionalText(0) == nil && row.optionalReal(0) == nil
                && row.optionalInt(0) == nil && row.optionalInstant(0) == nil
        }
        #expect(rows == [true, true])
        #expect(try connection.first("SELECT count(x) FROM t") { $0.int(0) } == 0)
    }

    @Test func emptyIsNotNull() throws {
        let connection = try openWithTable()
        try connection.run("INSERT INTO t (x) VALUES (?1)", .text(""))
        try connection.run("INSERT INTO t (x) VALUES (?1)", .blob([]))
        try connection.run("INSERT INTO t (x) VALUES (?1)", .textBytes([]))
        #expect(try connection.first("SELECT count(x) FROM t") { $0.int(0) } == 3)
        #expect(try connection.all("SELECT x FROM t") { $0.isNull(0) } == [false, false, false])
    }

    @Test func textsCompareByTheirBytes() throws {
        let connection = try openWithTable()
        let texts = ["", "A", "Z", "a", "e\u{301}", "z", "\u{E9}", "日", "\u{FFFD}", "\u{10000}", "\u{10FFFF}"]
        for text in texts.shuffled() { try connection.run("INSERT INTO t (x) VALUES (?1)", .text(text)) }
        let ordered = try connection.all("SELECT x FROM t ORDER BY x") { Array($0.text(0).utf8) }
        #expect(ordered == texts.map { Array($0.utf8) })
        // 0xFF is above any UTF-8.
        let below = try connection.first("SELECT count(*) FROM t WHERE x < ?1", .textBytes([0xFF])) { $0.int(0) }
        #expect(below == texts.count)
    }

    // MARK: Statements

    @Test func aQueryWithoutRowsIsNil() throws {
        let connection = try openWithTable()
        #expect(try connection.first("SELECT x FROM t") { $0.integer(0) } == nil)
        #expect(try connection.all("SELECT x FROM t") { $0.integer(0) } == [])
    }

    @Test func aWalkStopsWhenToldTo() throws {
        let connection = try openWithTable()
        for number in 1...5 { try connection.run("INSERT INTO t (x) VALUES (?1)", .integer(number)) }
        var seen: [Int] = []
        try connection.each("SELECT x FROM t WHERE x > ?1 ORDER BY x", .integer(1)) { row in
            seen.append(row.int(0))
            return seen.count < 2
        }
        #expect(seen == [2, 3])
    }

    @Test func changesCountsRowsWithoutTriggers() throws {
        let connection = try openWithTable()
        try connection.execute(
            """
            CREATE TABLE log (x ANY) STRICT;
            CREATE TRIGGER t_deleted AFTER DELETE ON t BEGIN INSERT INTO log VALUES (1), (2); END;
            INSERT INTO t (x) VALUES (1), (2), (3);
            """)
        try connection.run("DELETE FROM t WHERE x > ?1", .integer(1))
        #expect(connection.changes == 2)
    }

    /// `sqlite_stmt` lists a connection's prepared statements: https://sqlite.org/stmt.html
    @Test func aStatementIsPreparedOnce() throws {
        let connection = try openWithTable()
        for number in 0..<50 { try connection.run("INSERT INTO t (x) VALUES (?1)", .integer(number)) }
        let prepared = try connection.first(
            "SELECT count(*), max(run) FROM sqlite_stmt WHERE sql = 'INSERT INTO t (x) VALUES (?1)'"
        ) { ($0.int(0), $0.int(1)) }
        #expect(prepared?.0 == 1)
        #expect(prepared?.1 == 50)
    }

    @Test func aStatementMayRunInsideItself() throws {
        let connection = try openWithTable()
        for number in 1...3 { try connection.run("INSERT INTO t (x) VALUES (?1)", .integer(number)) }
        func greater(than limit: Int, depth: Int) throws(SQLiteError) -> [Int] {
            try connection.all("SELECT x FROM t WHERE x > ?1 ORDER BY x", .integer(limit)) { row throws(SQLiteError) in
                let value = row.int(0)
                guard depth > 0 else { return value }
                return try value * 100 + greater(than: value, depth: depth - 1).reduce(0, +)
            }
        }
        #expect(try greater(than: 0, depth: 1) == [105, 203, 300])
    }

    @Test func whatWasBoundIsLetGo() throws {
        let connection = try openWithTable()
        let weigh: (Value) throws -> Int? = { value in
            try connection.first("SELECT length(?1)", value) { $0.optionalInt(0) } ?? nil
        }
        #expect(try weigh(.blob(noise(100))) == 100)
        #expect(try weigh(.null) == nil)
        #expect(try weigh(.text("ab")) == 2)
    }

    @Test func aPreparedStatementSurvivesAChangeOfSchema() throws {
        let connection = try openWithTable()
        let count = { try connection.first("SELECT count(*) FROM t") { $0.int(0) } }
        #expect(try count() == 0)
        try connection.execute("ALTER TABLE t ADD COLUMN y ANY; INSERT INTO t (x) VALUES (1)")
        #expect(try count() == 1)
    }

    // MARK: Failing

    @Test func wrongSQLIsAnError() throws {
        let connection = try open()
        #expect(resultCode { try connection.run("SELEC 1") } == SQLITE_ERROR)
        #expect(resultCode { try connection.execute("SELECT * FROM nowhere") } == SQLITE_ERROR)
    }

    @Test func aBrokenConstraintTellsItsExtendedCode() throws {
        let connection = try openWithTable()
        try connection.run("INSERT INTO t (id) VALUES (?1)", .integer(1))
        // SQLITE_CONSTRAINT_PRIMARYKEY
        #expect(resultCode { try connection.run("INSERT INTO t (id) VALUES (?1)", .integer(1)) } == 1555)
        // The statement can be used again.
        try connection.run("INSERT INTO t (id) VALUES (?1)", .integer(2))
        #expect(try connection.first("SELECT count(*) FROM t") { $0.int(0) } == 2)
    }

    @Test func aLockedDatabaseIsBusy() throws {
        let first = try openWithTable()
        let second = try open()
        try second.execute("PRAGMA busy_timeout = 0")
        try first.execute("BEGIN IMMEDIATE")
        #expect(resultCode { try second.execute("BEGIN IMMEDIATE") } == SQLITE_BUSY)
        try first.execute("COMMIT")
        try second.execute("BEGIN IMMEDIATE; COMMIT")
    }

    @Test func aReaderCannotWrite() throws {
        _ = try openWithTable()
        let reader = try open(.reader)
        #expect(resultCode { try reader.run("INSERT INTO t (x) VALUES (?1)", .integer(1)) } == SQLITE_READONLY)
        try reader.configureReader(cacheKibibytes: StorageLimits.listReads.pageCacheKibibytes)
        #expect(resultCode { try reader.run("DELETE FROM t") } == SQLITE_READONLY)
    }

    @Test func aReaderCreatesNoFile() {
        #expect(resultCode { _ = try open(.reader) } == SQLITE_CANTOPEN)
        #expect(folder.contents("test.db") == nil)
    }

    @Test func aStatementIsInterruptedAtItsDeadline() throws {
        let connection = try openWithTable()
        let endless: StaticString =
            "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
        let code = resultCode {
            try connection.withDeadline(milliseconds: 1) { _ = try $0.first(endless) { $0.int(0) } }
        }
        #expect(code == SQLITE_INTERRUPT)
        // The deadline ends with its block.
        #expect(
            try connection.first(
                "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 100000) SELECT count(*) FROM c"
            ) { $0.int(0) } == 100_000)
    }

    @Test func aFullDiskIsTold() throws {
        let connection = try openWithTable()
        try connection.execute("PRAGMA max_page_count = 10")
        #expect(
            resultCode { try connection.run("INSERT INTO t (x) VALUES (?1)", .blob(noise(100_000))) } == SQLITE_FULL)
        #expect(try connection.first("SELECT count(*) FROM t") { $0.int(0) } == 0)
        try connection.run("INSERT INTO t (x) VALUES (?1)", .integer(1))
    }

    @Test func aFileThatIsNoDatabaseIsTold() throws {
        let other = try Connection(path: "/dev/null", mode: .reader)
        #expect(resultCode { try other.execute("SELECT * FROM sqlite_schema") } == nil)
        let text = try Connection(path: #filePath, mode: .reader)
        #expect(resultCode { try text.execute("SELECT * FROM sqlite_schema") } == SQLITE_NOTADB)
    }

    // MARK: State

    @Test func itKnowsWhetherATransactionIsOpen() throws {
        let connection = try openWithTable()
        #expect(!connection.isInTransaction)
        try connection.execute("BEGIN")
        #expect(connection.isInTransaction)
        try connection.execute("ROLLBACK")
        #expect(!connection.isInTransaction)
    }

    @Test func theWriterIsConfiguredExplicitly() throws {
        let connection = try open()
        try connection.configureWriter()
        func pragma(_ sql: StaticString) throws -> String? { try connection.first(sql) { $0.text(0) } }
        #expect(try pragma("PRAGMA journal_mode") == "wal")
        #expect(try pragma("PRAGMA synchronous") == "2")
        #expect(try pragma("PRAGMA auto_vacuum") == "2")
        #expect(try pragma("PRAGMA foreign_keys") == "1")
        #expect(try pragma("PRAGMA secure_delete") == "0")
        #expect(try pragma("PRAGMA recursive_triggers") == "0")
        #expect(try pragma("PRAGMA journal_size_limit") == "67108864")
        #expect(try pragma("PRAGMA busy_timeout") == "5000")
    }

    @Test func theLogIsCountedAndWrittenBack() throws {
        let writer = try openWithTable()
        try writer.configureWriter()
        try writer.run("INSERT INTO t (x) VALUES (?1)", .blob(noise(100_000)))
        #expect(writer.pagesInLog >= 24)
        #expect(try writer.checkpoint(.truncate))
        #expect(folder.size("test.db-wal") == 0)
    }

    @Test func aReaderInTheWayOfACheckpointIsNoFailure() throws {
        let writer = try openWithTable()
        try writer.configureWriter()
        try writer.execute("PRAGMA busy_timeout = 0")
        let reader = try open(.reader)
        try reader.execute("BEGIN")
        #expect(try reader.first("SELECT count(*) FROM t") { $0.int(0) } == 0)
        try writer.run("INSERT INTO t (x) VALUES (?1)", .integer(1))
        #expect(try !writer.checkpoint(.truncate))
        try reader.execute("COMMIT")
        #expect(try writer.checkpoint(.truncate))
    }
}
