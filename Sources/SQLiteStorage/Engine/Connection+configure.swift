// What every connection is told before anything else. Nothing is left to the library's defaults, because Debian's
// differ from upstream's (secure_delete is on, for one).

import Domain

extension Connection {
    /// Settings of the writing connection. `auto_vacuum` and the log take effect when the file is created.
    func configureWriter() throws(SQLiteError) {
        try execute(
            """
            PRAGMA auto_vacuum = INCREMENTAL;
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            PRAGMA foreign_keys = ON;
            PRAGMA recursive_triggers = OFF;
            PRAGMA secure_delete = OFF;
            PRAGMA journal_size_limit = \(StorageLimits.maxLogBytes);
            PRAGMA cache_size = -8192;
            PRAGMA mmap_size = 0;
            PRAGMA temp_store = MEMORY;
            PRAGMA cell_size_check = ON;
            """)
        watchLog()
    }

    /// Settings of a reading connection. A commit empties its page cache anyway, so a small one is enough.
    func configureReader(cacheKibibytes: Int) throws(SQLiteError) {
        try execute(
            """
            PRAGMA query_only = ON;
            PRAGMA cache_size = -\(cacheKibibytes);
            PRAGMA mmap_size = 0;
            PRAGMA temp_store = MEMORY;
            """)
    }

    /// Settings of a connection for SQL from outside, which is sandboxed: the files it sorts and gathers in are kept in
    /// memory, where they are counted. It sorts as much at a time as its page cache may hold.
    func configureInspector() throws(SQLiteError) {
        try execute(
            """
            PRAGMA query_only = ON;
            PRAGMA cache_size = -2048;
            PRAGMA mmap_size = 0;
            PRAGMA temp_store = FILE;
            PRAGMA cell_size_check = ON;
            """)
    }
}
