// What SQLite reports, and what becomes of it.

import CSQLite
import Domain

/// A result code with SQLite's message. Stays inside the engine and its logs: callers get ``failure``.
struct SQLiteError: Error, Sendable, CustomStringConvertible {
    /// The extended result code. https://sqlite.org/rescode.html
    let code: Int32
    let message: String

    init(code: Int32, handle: OpaquePointer?) {
        self.code = code
        self.message = String(cString: handle.map { sqlite3_errmsg($0) } ?? sqlite3_errstr(code))
    }

    init(code: Int32, message: String) {
        self.code = code
        self.message = message
    }

    var description: String { "SQLite error \(code): \(message)" }

    private var primary: Int32 { code & 0xFF }

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
        case SQLITE_FULL:
            return Failure(.storageFull, "The disk is full: nothing was stored. Free space or clear namespaces.")
        case SQLITE_BUSY, SQLITE_LOCKED:
            return retryable(.databaseBusy, "Another program holds the database's lock. Try again shortly.")
        case SQLITE_INTERRUPT:
            return retryable(
                .deadlineExceeded, "The read took longer than its deadline. Narrow the filter or the page and retry.")
        case SQLITE_READONLY, SQLITE_PERM, SQLITE_AUTH:
            return retryable(.databaseReadOnly, "The database cannot be written; the server's operator must see to it.")
        case SQLITE_CORRUPT, SQLITE_NOTADB:
            return retryable(.databaseDamaged, "The database is damaged; the server's operator must restore a backup.")
        case SQLITE_IOERR, SQLITE_CANTOPEN, SQLITE_PROTOCOL:
            return retryable(.storageUnavailable, "The storage failed. Try again; if it persists, tell the operator.")
        case SQLITE_NOMEM: return .overloaded("The server is short of memory.")
        case SQLITE_TOOBIG: return Failure(.payloadTooLarge, "The value is larger than the database can hold.")
        default: return Failure(.internalError, "The server failed; its log has the details under this request id.")
        }
    }

    private func retryable(_ code: Failure.Code, _ detail: String) -> Failure {
        var failure = Failure(code, detail)
        failure.retryAfterSeconds = 1
        return failure
    }
}
