// What SQLite reports, and the failures it becomes.

import CSQLite
import Domain
import Glibc

/// A result code with SQLite's message. Stays inside the engine and its logs: callers get ``failure``.
struct SQLiteError: Error, Sendable, CustomStringConvertible {
    /// The extended result code. https://sqlite.org/rescode.html
    let code: Int32
    let message: String
    /// The byte of the statement's text that the error is about, if SQLite knows it.
    let offset: Int?

    init(code: Int32, handle: OpaquePointer?, offset: Int? = nil) {
        self.code =
            Self.isOfFullDisk(code, systemError: handle.map { sqlite3_system_errno($0) } ?? 0) ? SQLITE_FULL : code
        self.offset = offset
        self.message = String(cString: handle.map { sqlite3_errmsg($0) } ?? sqlite3_errstr(code))
    }

    init(code: Int32, message: String) {
        self.code = code
        self.message = message
        self.offset = nil
    }

    /// What ``Watch`` ends, as SQLite reports it.
    static let interruption = SQLiteError(code: SQLITE_INTERRUPT, message: "interrupted")

    /// Another program has the file open.
    static let busy = SQLiteError(code: SQLITE_BUSY, message: "another program uses it")

    var description: String { "SQLite error \(code): \(message)" }

    private var primary: Int32 { code & 0xFF }

    /// Whether a file with a write-ahead log could not be read because the files beside it cannot be created.
    var isOfReadingWithoutLog: Bool { primary == SQLITE_CANTOPEN || primary == SQLITE_READONLY }

    /// Whether the file is not a sound database.
    var isDamage: Bool { primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB }

    /// Whether the disk, a quota or the database's own limit is exhausted.
    var isOfFullDisk: Bool { primary == SQLITE_FULL }

    /// SQLite reports a full disk as such only where it writes data. When it creates or extends one of its files, the
    /// system's error tells; an exhausted quota is an error of its own.
    private static func isOfFullDisk(_ code: Int32, systemError: Int32) -> Bool {
        switch code & 0xFF {
        case SQLITE_FULL: true
        case SQLITE_IOERR, SQLITE_CANTOPEN: systemError == ENOSPC || systemError == EDQUOT
        default: false
        }
    }

    /// Whether ``Watch`` ended the statement.
    var isInterruption: Bool { primary == SQLITE_INTERRUPT }

    /// The decided outcome for the caller.
    ///
    /// | result code | code, status | what it means for the operator |
    /// | --- | --- | --- |
    /// | `SQLITE_FULL` | `storage_full`, 507 | the disk or quota is full; reads and deletes go on |
    /// | `SQLITE_BUSY`, `SQLITE_LOCKED` | `database_busy`, 503 | another program holds the file's lock |
    /// | `SQLITE_INTERRUPT` | `deadline_exceeded`, 503 | the read took longer than its deadline |
    /// | `SQLITE_READONLY`, `SQLITE_PERM`, `SQLITE_AUTH` | `database_read_only`, 503 | file or folder is not writable |
    /// | `SQLITE_CORRUPT`, `SQLITE_NOTADB` | `database_damaged`, 503 | restore a backup |
    /// | `SQLITE_IOERR`, `SQLITE_CANTOPEN`, `SQLITE_PROTOCOL` | `storage_unavailable`, 503 | the file system failed |
    /// | `SQLITE_NOMEM` | `overloaded`, 503 | memory is short |
    /// | `SQLITE_TOOBIG` | `payload_too_large`, 413 | beyond SQLite's own limit |
    /// | anything else | `internal_error`, 500 | a defect of ours |
    var failure: Failure {
        switch primary {
        case SQLITE_FULL: return .storageFull
        case SQLITE_BUSY, SQLITE_LOCKED:
            return retryable(.databaseBusy, "The database is locked by another program. Try again shortly.")
        case SQLITE_INTERRUPT:
            return retryable(
                .deadlineExceeded, "The read exceeded its time limit. Narrow the filter or request a smaller page.")
        case SQLITE_READONLY, SQLITE_PERM, SQLITE_AUTH:
            return retryable(.databaseReadOnly, "The database cannot be written. The server's operator must fix this.")
        case SQLITE_CORRUPT, SQLITE_NOTADB:
            return retryable(.databaseDamaged, "The database is damaged. The server's operator must restore a backup.")
        case SQLITE_IOERR, SQLITE_CANTOPEN, SQLITE_PROTOCOL:
            return retryable(.storageUnavailable, "The storage failed. Try again; if this persists, tell the operator.")
        case SQLITE_NOMEM: return .overloaded("The server is out of memory.")
        case SQLITE_TOOBIG: return Failure(.payloadTooLarge, "The value is larger than the database can hold.")
        default: return Failure(.internalError, "The server failed. Its log has the details under this request id.")
        }
    }

    /// What the operator can do when a database cannot be opened.
    var remedyWhenOpening: String {
        switch primary {
        case SQLITE_BUSY, SQLITE_LOCKED: "Another program has it locked: close that program, and start again."
        case SQLITE_READONLY, SQLITE_PERM, SQLITE_AUTH, SQLITE_CANTOPEN:
            "The file, the files beside it and their folder must be writable for the user with the id \(geteuid()), on "
                + "a file system that is not mounted read-only."
        case SQLITE_NOTADB: "The file is not an SQLite database. Choose another --database, or restore a backup."
        case SQLITE_CORRUPT: "The file is damaged: keep it, restore a backup, and check the disk."
        case SQLITE_IOERR, SQLITE_PROTOCOL: "The file system failed: check the kernel's log and the disk."
        default: "Choose another --database, or restore a backup."
        }
    }

    /// The decided outcome for the author of an ad-hoc query.
    ///
    /// | result code | code, status |
    /// | --- | --- |
    /// | `SQLITE_AUTH`, `SQLITE_READONLY` | `sql_not_allowed`, 422: `refusal` says what was |
    /// | `SQLITE_NOMEM`, `SQLITE_TOOBIG` | `sql_limit_exceeded`, 422 |
    /// | `SQLITE_INTERRUPT` | `deadline_exceeded`, 503 |
    /// | `SQLITE_ERROR`, `SQLITE_MISMATCH`, `SQLITE_RANGE`, `SQLITE_CONSTRAINT` | `invalid_sql`, 422, SQLite's words |
    /// | anything else | as ``failure`` |
    func inspectionFailure(refusal: String?, deadlineMilliseconds: Int64) -> Failure {
        // A refusal may have another code: a pragma used as a table fails with the pragma's own code.
        if let refusal { return .sqlNotAllowed(refusal) }
        switch primary {
        case SQLITE_AUTH, SQLITE_READONLY: return .sqlNotAllowed("the statement is not read-only")
        case SQLITE_NOMEM:
            return Failure(
                .sqlLimitExceeded,
                "The query needs more than \(StorageLimits.maxSQLMemoryBytes >> 20) MiB, or is too large when "
                    + "compiled. Sort, group or join fewer rows, or split the query.")
        case SQLITE_TOOBIG:
            return Failure(
                .sqlLimitExceeded,
                "A text, blob or row is larger than \(StorageLimits.maxSQLValueBytes >> 10) KiB: take a part of it, "
                    + "with substr() for one.")
        case SQLITE_INTERRUPT:
            let seconds = DecimalSeconds.format(milliseconds: deadlineMilliseconds)
            return retryable(
                .deadlineExceeded,
                "The query took longer than \(seconds) s and was stopped. Read fewer rows: filter by an indexed "
                    + "column, join on keys, bound recursion with LIMIT.")
        case SQLITE_ERROR, SQLITE_MISMATCH, SQLITE_RANGE, SQLITE_CONSTRAINT:
            return .invalidSQL("SQLite: \(message).", at: offset)
        default: return failure
        }
    }

    private func retryable(_ code: Failure.Code, _ detail: String) -> Failure {
        var failure = Failure(code, detail)
        failure.retryAfterSeconds = 1
        return failure
    }
}
