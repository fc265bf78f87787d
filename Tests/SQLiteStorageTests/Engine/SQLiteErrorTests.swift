// How SQLite's result codes are mapped: the table in SQLiteError.swift, row by row.

import CSQLite
import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct SQLiteErrorTests {
    private func failure(_ code: Int32) -> Failure {
        SQLiteError(code: code, message: "near \"secret\": /var/lib/reprise.db").failure
    }

    @Test(
        arguments: [
            (SQLITE_FULL, .storageFull),
            (SQLITE_BUSY, .databaseBusy), (SQLITE_LOCKED, .databaseBusy),
            (517 /* SQLITE_BUSY_SNAPSHOT */, .databaseBusy), (262 /* SQLITE_LOCKED_SHAREDCACHE */, .databaseBusy),
            (SQLITE_INTERRUPT, .deadlineExceeded),
            (SQLITE_READONLY, .databaseReadOnly), (SQLITE_PERM, .databaseReadOnly), (SQLITE_AUTH, .databaseReadOnly),
            (1032 /* SQLITE_READONLY_DBMOVED */, .databaseReadOnly),
            (SQLITE_CORRUPT, .databaseDamaged), (SQLITE_NOTADB, .databaseDamaged),
            (779 /* SQLITE_CORRUPT_INDEX */, .databaseDamaged),
            (SQLITE_IOERR, .storageUnavailable), (SQLITE_CANTOPEN, .storageUnavailable),
            (SQLITE_PROTOCOL, .storageUnavailable), (1034 /* SQLITE_IOERR_FSYNC */, .storageUnavailable),
            (SQLITE_NOMEM, .overloaded),
            (SQLITE_TOOBIG, .payloadTooLarge),
            (SQLITE_ERROR, .internalError), (SQLITE_MISUSE, .internalError), (SQLITE_CONSTRAINT, .internalError),
            (2067 /* SQLITE_CONSTRAINT_UNIQUE */, .internalError), (SQLITE_SCHEMA, .internalError),
        ] as [(Int32, Failure.Code)])
    func hasADecidedOutcome(code: Int32, outcome: Failure.Code) {
        #expect(failure(code).code == outcome)
    }

    @Test func whatMayPassTellsWhenToTryAgain() {
        let passing = [
            SQLITE_BUSY, SQLITE_LOCKED, SQLITE_INTERRUPT, SQLITE_READONLY, SQLITE_CORRUPT, SQLITE_IOERR,
            SQLITE_CANTOPEN,
            SQLITE_NOMEM,
        ]
        for code in passing { #expect(failure(code).retryAfterSeconds == 1) }
        for code in [SQLITE_TOOBIG, SQLITE_ERROR] { #expect(failure(code).retryAfterSeconds == nil) }
    }

    @Test func internalDetailStaysInside() {
        for code in Int32(1)...26 { #expect(!failure(code).detail.contains("secret")) }
        #expect(SQLiteError(code: 1, message: "secret").description.contains("secret"))
    }

    @Test func otherErrorsPassUnchanged() {
        let miss = Failure.miss(.absent)
        #expect(storageFailure(miss) as? Failure == miss)
        #expect((storageFailure(SQLiteError(code: SQLITE_FULL, message: "")) as? Failure)?.code == .storageFull)
    }
}
