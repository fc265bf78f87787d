// The one header Swift sees of SQLite.
#include <sqlite3.h>

/// Turns off the allocation statistics, because every allocation in every thread would have to take their lock. Must be
/// called before any connection is opened. sqlite3_config() is variadic, which Swift cannot call.
static inline int reprise_sqlite3_disable_memory_statistics(void) {
    return sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

/// sqlite3_db_config() for the options that take one integer: Swift cannot call variadic C functions.
static inline int reprise_sqlite3_db_config_int(sqlite3 *db, int option, int value) {
    return sqlite3_db_config(db, option, value, (int *)0);
}

/// Tells SQLite to copy what is bound. The C macro is a cast Swift does not import.
static inline int reprise_sqlite3_bind_text(sqlite3_stmt *s, int index, const char *text, int length) {
    return sqlite3_bind_text(s, index, text, length, SQLITE_TRANSIENT);
}

/// The same for blobs.
static inline int reprise_sqlite3_bind_blob(sqlite3_stmt *s, int index, const void *bytes, sqlite3_uint64 length) {
    return sqlite3_bind_blob64(s, index, bytes, length, SQLITE_TRANSIENT);
}
