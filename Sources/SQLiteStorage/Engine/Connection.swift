// One connection to SQLite. With Statement.swift, the only code that touches C pointers.

import CSQLite
import CSQLiteSupport
import Domain
import Glibc

/// An open database connection with a bounded cache of prepared statements.
///
/// Not thread-safe and not `Sendable`: if one is shared, a lock must guard it. Opened with `SQLITE_OPEN_NOMUTEX`, so
/// that there is only one lock.
final class Connection {
    enum Mode {
        /// The one connection that writes. Creates the file if it is missing.
        case writer
        case reader
        /// A file that nobody is writing, in a folder that is not writable: read without locks and log.
        /// https://sqlite.org/uri.html#uriimmutable
        case immutable
    }

    /// SQLite's default, and what every database has.
    static let pageBytes = 4096

    private let handle: OpaquePointer
    private var statements: [UnsafePointer<UInt8>: Statement] = [:]
    /// Ends what runs.
    private let watch: Watch
    /// Pages in the write-ahead log after the latest commit of this connection.
    private let logPages: UnsafeMutablePointer<Int32>
    /// The copy of the database that is being made, if any.
    private(set) var copy: DatabaseCopy?
    /// What statements may do, once ``confine(to:)`` was called. Kept here because SQLite only holds a pointer to it.
    private var policy: InspectionPolicy?

    /// Once for the process, before the first connection.
    private static let configureLibrary: Void = {
        _ = reprise_sqlite3_disable_memory_statistics()
        let code = reprise_install_memory_budget()
        precondition(code == SQLITE_OK, "SQLite was used before it was configured")
        let registered = reprise_register_sandbox_vfs()
        precondition(registered == SQLITE_OK, "this SQLite has no files in memory (memdb, since 3.36)")
    }()

    /// - Parameter isSandboxed: whether its temporary files are kept in memory and reads of its file look at the watch
    ///   of ``withSandbox(memoryBytes:watch:mostBytes:_:)``.
    /// - Throws: ``SQLiteError``.
    init(path: String, mode: Mode, watch: Watch = Watch(), isSandboxed: Bool = false) throws(SQLiteError) {
        Self.configureLibrary
        let flags =
            switch mode {
            case .writer: SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
            case .reader: SQLITE_OPEN_READONLY
            case .immutable: SQLITE_OPEN_READONLY | SQLITE_OPEN_URI
            }
        let name = mode == .immutable ? Self.immutableURI(of: path) : path
        var opened: OpaquePointer?
        let code = sqlite3_open_v2(
            name, &opened, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
            isSandboxed ? REPRISE_SANDBOX_VFS : nil)
        guard code == SQLITE_OK, let opened else {
            let error = SQLiteError(code: code, handle: opened)
            sqlite3_close_v2(opened)
            throw error
        }
        handle = opened
        self.watch = watch
        logPages = .allocate(capacity: 1)
        logPages.initialize(to: 0)
        sqlite3_busy_timeout(handle, 5000)
        reprise_sqlite3_db_config_int(handle, SQLITE_DBCONFIG_DEFENSIVE, 1)
        reprise_sqlite3_db_config_int(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        // Every few tens of microseconds.
        look(everyInstructions: 1000)
    }

    private static func immutableURI(of path: String) -> String {
        var uri = path.hasPrefix("/") ? "file://" : "file:"
        for scalar in path.unicodeScalars {
            switch scalar {
            case "%": uri += "%25"
            case "?": uri += "%3f"
            case "#": uri += "%23"
            default: uri.unicodeScalars.append(scalar)
            }
        }
        return uri + "?immutable=1"
    }

    deinit {
        // A copy must be ended first, and statements finalized; their own deinit does it.
        copy = nil
        statements.removeAll()
        sqlite3_close_v2(handle)
        logPages.deallocate()
    }

    // MARK: Running statements

    /// Runs a statement without rows.
    func run(_ sql: StaticString, _ values: Value...) throws(SQLiteError) {
        let statement = try cached(sql)
        defer { statement.reset() }
        try statement.bind(values)
        while try statement.step() {}
    }

    /// The first row of a query, transformed; nil without one.
    func first<T>(
        _ sql: StaticString, _ values: Value..., row: (borrowing Row) throws(SQLiteError) -> T
    ) throws(SQLiteError) -> T? {
        let statement = try cached(sql)
        defer { statement.reset() }
        try statement.bind(values)
        return try statement.step() ? try row(Row(statement)) : nil
    }

    /// All rows of a query, transformed. The query itself bounds their number.
    func all<T>(
        _ sql: StaticString, _ values: Value..., row: (borrowing Row) throws(SQLiteError) -> T
    ) throws(SQLiteError) -> [T] {
        let statement = try cached(sql)
        defer { statement.reset() }
        try statement.bind(values)
        var rows: [T] = []
        while try statement.step() { rows.append(try row(Row(statement))) }
        return rows
    }

    /// Goes through the rows of a query until `row` says to stop.
    func each(
        _ sql: StaticString, _ values: Value..., row: (borrowing Row) throws(SQLiteError) -> Bool
    ) throws(SQLiteError) {
        let statement = try cached(sql)
        defer { statement.reset() }
        try statement.bind(values)
        while try statement.step() {
            guard try row(Row(statement)) else { return }
        }
    }

    /// Removes the rows whose keys a query finds, one by one.
    ///
    /// In place of `DELETE … WHERE (a, b) IN (SELECT …)`, for which SQLite looks up the rows of a table by the first
    /// column alone when another one is text, and then reads all rows that share it.
    /// - Parameters:
    ///   - removal: a `DELETE` of one row, which takes what `key` reads.
    /// - Returns: how many rows the query found.
    func removeEach(
        _ query: StaticString, _ values: Value..., by removal: StaticString, key: (borrowing Row) -> [Value]
    ) throws(SQLiteError) -> Int {
        let found = try cached(query)
        var keys: [[Value]] = []
        do {
            defer { found.reset() }
            try found.bind(values)
            while try found.step() { keys.append(key(Row(found))) }
        }
        let statement = try cached(removal)
        for key in keys {
            defer { statement.reset() }
            try statement.bind(key)
            while try statement.step() {}
        }
        return keys.count
    }

    /// Runs several look-ups on one snapshot of the database: in the current transaction, or in one of their own.
    func consistently<T>(_ body: () throws -> T) throws -> T {
        if isInTransaction { return try body() }
        try run("BEGIN")
        defer { try? run("COMMIT") }
        return try body()
    }

    /// Runs a script of statements, uncached and without parameters: migrations and pragmas.
    func execute(_ script: String) throws(SQLiteError) {
        let code = sqlite3_exec(handle, script, nil, nil, nil)
        guard code == SQLITE_OK else { throw SQLiteError(code: code, handle: handle) }
    }

    /// The plan SQLite makes for a statement, a line for each step: for tests of query plans.
    func plan(of sql: String) throws(SQLiteError) -> [String] {
        let statement = try Statement(handle: handle, sql: "EXPLAIN QUERY PLAN " + sql)
        var lines: [String] = []
        while try statement.step() { lines.append(Row(statement).text(3)) }
        return lines
    }

    // MARK: State

    /// The version of the library: 3040001 for 3.40.1. https://sqlite.org/c3ref/libversion.html
    static var libraryVersion: Int { Int(sqlite3_libversion_number()) }

    /// Rows the latest statement changed, not counting triggers.
    var changes: Int { Int(sqlite3_changes64(handle)) }

    /// Rows that all statements changed since the connection was opened, those of triggers and foreign keys counted.
    var totalChanges: Int { Int(sqlite3_total_changes64(handle)) }

    var isInTransaction: Bool { sqlite3_get_autocommit(handle) == 0 }

    enum CheckpointMode {
        /// Writes back what no reader still needs.
        case passive
        /// Waits for readers, for the busy timeout at most, and truncates the log.
        case truncate
    }

    /// Takes checkpointing over from SQLite, which would do it inside a commit, and counts the log's pages instead.
    func watchLog() {
        sqlite3_wal_hook(
            handle,
            { context, _, _, pages in
                context!.assumingMemoryBound(to: Int32.self).pointee = pages
                return SQLITE_OK
            }, logPages)
    }

    /// Pages in the write-ahead log after the latest commit or truncation, once ``watchLog()`` was called.
    var pagesInLog: Int { Int(logPages.pointee) }

    /// The size of the log's file, now or with so many bytes more. Once it is written back, it is used again.
    func logBytes(with bytes: Int) -> Int {
        guard let path = sqlite3_db_filename(handle, nil) else { return 0 }
        var status = stat()
        let size = stat(sqlite3_filename_wal(path), &status) == 0 ? Int(status.st_size) : 0
        return max(size, pagesInLog * Self.pageBytes + bytes)
    }

    /// Pages of the file that hold nothing.
    func freePages() throws(SQLiteError) -> Int { try first("PRAGMA freelist_count") { $0.int(0) } ?? 0 }

    /// All pages of the file, once the log is written back.
    func pages() throws(SQLiteError) -> Int { try first("PRAGMA page_count") { $0.int(0) } ?? 0 }

    /// By how much the database's file will grow when the log is written back.
    var bytesBeyondFile: Int {
        guard let pages = try? pages(), let path = sqlite3_db_filename(handle, nil) else { return 0 }
        var status = stat()
        guard stat(path, &status) == 0 else { return 0 }
        return max(0, pages * Self.pageBytes - Int(status.st_size))
    }

    /// Writes the write-ahead log back into the database.
    /// - Returns: whether the whole log is written back.
    func checkpoint(_ mode: CheckpointMode) throws(SQLiteError) -> Bool {
        var logFrames: Int32 = 0
        var checkpointed: Int32 = 0
        let code = sqlite3_wal_checkpoint_v2(
            handle, nil, mode == .passive ? SQLITE_CHECKPOINT_PASSIVE : SQLITE_CHECKPOINT_TRUNCATE, &logFrames,
            &checkpointed)
        // A reader in the way is not an error: the rest is written back next time.
        guard code == SQLITE_OK || code & 0xFF == SQLITE_BUSY else { throw SQLiteError(code: code, handle: handle) }
        // Otherwise only the next commit would tell.
        if mode == .truncate, code == SQLITE_OK { logPages.pointee = 0 }
        return code == SQLITE_OK && logFrames == checkpointed
    }

    /// Runs `body`, interrupting what it runs after `milliseconds`.
    func withDeadline<T>(milliseconds: Int64, _ body: (Connection) throws -> T) rethrows -> T {
        try watch.withDeadline(milliseconds: milliseconds) { try body(self) }
    }

    // MARK: Copying

    /// Begins a copy of the whole database into a file, which must be empty. It advances by
    /// ``DatabaseCopy/advance(pages:)``, outside transactions. https://sqlite.org/backup.html
    ///
    /// What this connection commits in the meantime is written to the copy too, so the copy is the database as it is
    /// when it is complete. A change by another connection would make it start over; so would a rollback of pages this
    /// connection has changed, but not one to a savepoint.
    func beginCopy(to path: String) throws(SQLiteError) {
        endCopy()
        let destination = try Connection(path: path, mode: .writer)
        // Whoever makes the copy syncs it, at its own times and in its own thread.
        try destination.execute(
            """
            PRAGMA journal_mode = MEMORY;
            PRAGMA synchronous = OFF;
            PRAGMA cache_size = -1024;
            """)
        guard let process = sqlite3_backup_init(destination.handle, "main", handle, "main") else {
            throw SQLiteError(code: sqlite3_extended_errcode(destination.handle), handle: destination.handle)
        }
        copy = DatabaseCopy(process: process, destination: destination)
    }

    /// Ends the copy, complete or not, and closes its file.
    func endCopy() { copy = nil }

    // MARK: SQL from outside

    /// Runs `body`, in which SQLite gets at most so much memory on this thread, and none once `watch` is over.
    /// Connections it opens must be gone when it ends.
    /// - Parameter mostBytes: gets the most bytes in use at once.
    static func withSandbox<T>(
        memoryBytes: Int, watch: Watch, mostBytes: inout Int, _ body: () throws -> T
    ) rethrows -> T {
        configureLibrary
        reprise_enter_sandbox(
            Int64(memoryBytes), { Unmanaged<Watch>.fromOpaque($0!).takeUnretainedValue().isOver ? 1 : 0 },
            Unmanaged.passUnretained(watch).toOpaque())
        defer { mostBytes = Int(reprise_leave_sandbox()) }
        return try withExtendedLifetime(watch) { try body() }
    }

    /// Restricts every statement prepared from now on to what `policy` permits, and its resources to ``Limits``. This
    /// cannot be undone. https://sqlite.org/security.html
    func confine(to policy: InspectionPolicy) throws(SQLiteError) {
        for (option, value) in [
            (SQLITE_DBCONFIG_ENABLE_TRIGGER, 0), (SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0),
            (SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0), (SQLITE_DBCONFIG_DQS_DML, 0), (SQLITE_DBCONFIG_DQS_DDL, 0),
        ] {
            reprise_sqlite3_db_config_int(handle, option, Int32(value))
        }
        for (limit, value) in [
            (SQLITE_LIMIT_LENGTH, StorageLimits.maxSQLValueBytes),
            // ``checkWork(of:)`` puts a word before it.
            (SQLITE_LIMIT_SQL_LENGTH, Limits.maxSQLBytes + "EXPLAIN ".utf8.count),
            (SQLITE_LIMIT_COLUMN, Limits.maxSQLColumns), (SQLITE_LIMIT_EXPR_DEPTH, StorageLimits.maxSQLExpressionDepth),
            (SQLITE_LIMIT_COMPOUND_SELECT, StorageLimits.maxSQLCompoundParts),
            (SQLITE_LIMIT_VDBE_OP, StorageLimits.maxSQLInstructions),
            (SQLITE_LIMIT_FUNCTION_ARG, StorageLimits.maxSQLFunctionArguments), (SQLITE_LIMIT_ATTACHED, 0),
            (SQLITE_LIMIT_LIKE_PATTERN_LENGTH, StorageLimits.maxSQLPatternBytes),
            (SQLITE_LIMIT_VARIABLE_NUMBER, Limits.maxSQLParameters), (SQLITE_LIMIT_TRIGGER_DEPTH, 1),
            (SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            sqlite3_limit(handle, limit, Int32(value))
        }
        let code = reprise_replace_quadratic_functions(handle, Int32(StorageLimits.maxSQLPatternBytes))
        guard code == SQLITE_OK else { throw SQLiteError(code: code, handle: handle) }
        look(everyInstructions: StorageLimits.sqlInstructionsPerLook)
        self.policy = policy
        sqlite3_set_authorizer(
            handle,
            { context, action, first, second, _, _ in
                let policy = Unmanaged<InspectionPolicy>.fromOpaque(context!).takeUnretainedValue()
                func text(_ pointer: UnsafePointer<CChar>?) -> String { pointer.map { String(cString: $0) } ?? "" }
                let asked: SQLAction =
                    switch action {
                    case SQLITE_SELECT: .select
                    case SQLITE_RECURSIVE: .recursive
                    case SQLITE_READ: .read(table: text(first), column: text(second))
                    case SQLITE_FUNCTION: .function(text(second))
                    case SQLITE_PRAGMA: .pragma(text(first), argument: second.map { String(cString: $0) })
                    default: .other(code: action)
                    }
                return policy.permits(asked) ? SQLITE_OK : SQLITE_DENY
            }, Unmanaged.passUnretained(policy).toOpaque())
    }

    /// The one statement in a text from outside, uncached.
    /// - Throws: ``SQLiteError``, with the position if SQLite knows it; ``StatementCountError``.
    func prepare(_ text: String) throws -> Statement { try Statement(handle: handle, only: text) }

    /// Interrupts what runs once ``watch`` says so. https://sqlite.org/c3ref/progress_handler.html
    private func look(everyInstructions count: Int) {
        sqlite3_progress_handler(
            handle, Int32(count),
            { Unmanaged<Watch>.fromOpaque($0!).takeUnretainedValue().isOver ? 1 : 0 },
            Unmanaged.passUnretained(watch).toOpaque())
    }

    /// The prepared statement for `sql`, cached. Static strings only: SQL is never built from input, and the text's
    /// address is its identity, so that a look-up needs no hash of the text.
    private func cached(_ sql: StaticString) throws(SQLiteError) -> Statement {
        if let statement = statements[sql.utf8Start], !statement.isBusy { return statement }
        let statement = try Statement(handle: handle, sql: sql.description)
        // All statements of the program fit; the bound only guards against an unforeseen leak.
        if statements.count >= StorageLimits.maxCachedStatements { statements.removeAll() }
        statements[sql.utf8Start] = statement
        return statement
    }
}

/// A copy of a database that is being made. Belongs to the connection it is made by and ends before it.
final class DatabaseCopy {
    private let process: OpaquePointer
    /// Closed after the process has ended.
    private let destination: Connection
    /// Pages copied so far, and those there are. Both change with the database.
    private(set) var copiedPages = 0
    private(set) var allPages = 0
    private(set) var isComplete = false
    /// How often it had to begin again.
    private(set) var restarts = 0

    fileprivate init(process: OpaquePointer, destination: Connection) {
        self.process = process
        self.destination = destination
    }

    deinit { sqlite3_backup_finish(process) }

    /// Copies some pages.
    /// - Throws: ``SQLiteError``; the copy cannot be continued then.
    func advance(pages: Int) throws(SQLiteError) {
        let code = sqlite3_backup_step(process, Int32(pages))
        guard code == SQLITE_OK || code == SQLITE_DONE else {
            throw SQLiteError(code: code, message: String(cString: sqlite3_errstr(code)))
        }
        isComplete = code == SQLITE_DONE
        let before = copiedPages
        allPages = Int(sqlite3_backup_pagecount(process))
        copiedPages = allPages - Int(sqlite3_backup_remaining(process))
        // SQLite does not say that it began again, but otherwise it has copied as many pages as it was asked to.
        if !isComplete, copiedPages < before + pages { restarts += 1 }
    }
}
