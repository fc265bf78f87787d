// The bounds that only this engine has: how the writer groups and steps, what its readers hold, how ad-hoc queries are
// confined. What callers see is in Domain's Limits.

import Domain

/// The engine's fixed limits. Sizes are bytes, durations milliseconds or what each name says.
enum StorageLimits {
    /// Time between two writes of when a token was last used, in milliseconds.
    static let tokenUseMilliseconds: Int64 = 60_000
    // MARK: Sessions

    /// Largest state read on the calling thread, in keys and bytes; larger ones are read by the pool.
    static let maxPointReadKeys = 64
    static let maxPointReadBytes = 64 * 1024

    // MARK: Samples

    /// Samples one step of the roll-up takes.
    static let rollupBatchSamples = 1000
    /// Samples it adds up before it checks whether the step is over. Fewer would write the same roll-ups more often.
    static let rollupReadSamples = 64
    /// Series whose raw samples are looked up one after the other; for more, all samples of the range are read.
    static let maxSeriesReadSingly = 32

    // MARK: The writer

    /// Maximum number of operations committed together.
    static let maxGroupOperations = 512
    /// Maximum bytes of values committed together.
    static let maxGroupBytes = 4 * 1024 * 1024
    /// Time after which a group is committed even if more operations wait.
    static let maxGroupMilliseconds: Int64 = 20
    /// Maximum time of one step of background work on the writer, in microseconds. The step ends earlier if a
    /// foreground operation waits and the share of background work is used up.
    static let backgroundStepMicroseconds: Int64 = 1000
    /// Time after which a foreground operation that works in steps ends its step, in microseconds.
    static let foregroundStepMicroseconds: Int64 = 2000
    /// Microseconds of foreground work that earn one microsecond in which background work may keep foreground
    /// operations waiting: background work always gets a fifth of the time.
    static let foregroundTimePerBackgroundTime: Int64 = 4
    /// Pages of the write-ahead log after which it is written back: 4 MiB.
    static let checkpointPages = 1000
    /// Operations that may wait for the writer; above it the answer is 503.
    static let maxQueuedWrites = 8192
    /// Bytes of values that may wait for the writer; above it the answer is 503.
    static let maxQueuedWriteBytes = 64 * 1024 * 1024

    // MARK: Idempotency keys

    /// Keys, or answers, that one write removes to keep their number and size; later writes do the rest.
    static let maxForgottenPerWrite = 256

    // MARK: Reading

    /// Connections for point look-ups, answered on the calling thread: one per core, up to this number.
    static let maxPointReaders = 16
    /// Page cache of each of them, in KiB.
    static let pointReaderCacheKibibytes = 4096

    /// The limits of one lane of longer reads.
    struct ReadLane: Sendable {
        /// Threads, each with a connection.
        let threads: Int
        /// Reads that may wait for one of them; above it the answer is 503.
        let maxQueued: Int
        /// Page cache of each connection.
        let pageCacheKibibytes: Int
        /// Niceness of its threads: how much less processor time they get than the service's other threads.
        let niceness: Int32
    }

    /// Chunks of large values. Refusing a read would abort a download, so there is a place for each connection. A chunk
    /// is read only once, so little more than the path to it is worth caching.
    static let chunkReads = ReadLane(
        threads: 2, maxQueued: Limits.maxConnections, pageCacheKibibytes: 1024, niceness: 0)
    /// Lists and look-ups of bounded size.
    static let listReads = ReadLane(threads: 2, maxQueued: 1024, pageCacheKibibytes: 4096, niceness: 0)
    /// Aggregates over ranges. With a longer queue, they would wait for minutes.
    static let aggregateReads = ReadLane(threads: 2, maxQueued: 64, pageCacheKibibytes: 4096, niceness: 5)
    /// Background tasks, their dry runs, and the service's own metrics.
    static let upkeepReads = ReadLane(threads: 2, maxQueued: 64, pageCacheKibibytes: 1024, niceness: 5)
    /// Page cache of the connection of `reprise doctor`, which reads each page once, in KiB.
    static let doctorCacheKibibytes = 8192
    /// Prepared statements kept per connection.
    static let maxCachedStatements = 256

    // MARK: Ad-hoc SQL

    /// Largest text, blob or row that a query may read or create: the largest stored value, with the rest of its row.
    static let maxSQLValueBytes = 288 * 1024
    /// Memory that SQLite may take for one query, including sorting and temporary tables: nothing is written to files.
    static let maxSQLMemoryBytes = 64 * 1024 * 1024
    /// Depth of an expression.
    static let maxSQLExpressionDepth = 100
    /// Parts of a compound SELECT.
    static let maxSQLCompoundParts = 50
    /// Instructions a query may compile to. Two views joined take 1600; one that loads a value takes some 50 us for the
    /// largest.
    static let maxSQLInstructions = 10_000
    /// Values that the operators and functions of a compiled query may have together. The most that SQLite does without
    /// checking the clock is to process all of them at their maximum size: 4 ns per byte, 1.2 s in total.
    static let maxSQLOperands = 1000
    /// Arguments of one call of a function.
    static let maxSQLFunctionArguments = 16
    /// Longest pattern of LIKE and GLOB, and longest set of characters for trim(): they take time in proportion to the
    /// product of this and the text's length.
    static let maxSQLPatternBytes = 100
    /// Instructions between two checks of the clock. One that processes a long value takes milliseconds.
    static let sqlInstructionsPerLook = 50
    /// Niceness of a query's thread: how much less processor time it gets than the service's other threads.
    static let sqlNiceness: Int32 = 15

    // MARK: Counting

    /// Entries whose hits are counted in memory between two flushes; above it only the namespace's counters change.
    static let maxTrackedAccesses = 100_000
    /// Minutes whose look-ups wait in memory to be written; above it, look-ups are added to the latest minute.
    static let maxPendingMinutes = 60
    /// How long the activity of the cache and the background tasks is kept by minute, in milliseconds: a day, plus an
    /// hour so that a range of a day still has all its minutes.
    static let activityMinutesMilliseconds: Int64 = 25 * 3_600_000
    /// Rows of cache activity; above it the oldest are merged, in the end across namespaces.
    static let maxCacheActivityRows = 500_000
    /// Sessions whose activity waits in memory to be written; above it, a read writes its own.
    static let maxTrackedSessions = 100_000
    /// Activities in one write of the flush.
    static let flushBatchRows = 128

    // MARK: Backups

    /// Pages copied before a step checks whether it is over: a tenth of a millisecond.
    static let backupStepPages = 16
    /// Bytes of a backup that are written before they are synced, so that a sync of the log does not wait for more.
    static let backupSyncBytes = 8 * 1024 * 1024
    /// How often the copy may begin again. It does so only if a commit fails, or if another program writes.
    static let maxBackupRestarts = 10
    /// Free space that a backup leaves on its disk, for the log of the database for example.
    static let backupSpareBytes = 64 * 1024 * 1024
    /// Bytes read at a time to hash a backup.
    static let backupReadBytes = 1024 * 1024
    /// Memory that SQLite may take to verify a backup.
    static let maxBackupCheckBytes = 64 * 1024 * 1024
    /// Niceness of the thread that verifies backups.
    static let backupNiceness: Int32 = 19
    /// Largest file with the facts about a backup.
    static let maxBackupFactsBytes = 64 * 1024
    /// Time between two lines in the log about the progress of a backup, in milliseconds.
    static let backupProgressMilliseconds: Int64 = 10_000

    // MARK: Background work

    /// Maximum number of rows that one background step removes.
    static let sweepBatchRows = 128
    /// Rows that a step reads at a time, so that a step that ends early has not read many in vain.
    static let sweepReadRows = 16
    /// Sessions that one background step removes, and their rows.
    static let sweepBatchSessions = 64
    static let sweepBatchSessionRows = 128
    /// Bytes of values in rows that are removed together; a step checks the time after them.
    static let sweepReadBytes = 1024 * 1024
    /// Raw samples, or roll-ups of one resolution, one background step removes.
    static let sweepBatchSamples = 500
    /// Bytes of values one step removes.
    static let sweepBatchBytes = 8 * 1024 * 1024
    /// Maximum number of entries that one write evicts to keep its namespace within its caps; the background task does
    /// the rest.
    static let maxEvictionsPerWrite = 256
    /// Expired entries that a clear counts within its write; more are counted after it.
    static let maxExpiredCountedPerWrite = 1024
    /// Entries that one write checks to find those to evict, if uses of many are only counted in memory.
    static let maxEvictionLooks = 1024
    /// Clears of a namespace that a miss searches before their rows have been swept, the latest first. Each takes a
    /// look-up; they are swept within a second or so.
    static let maxClearsPerMiss = 64
    /// Pages that one step of `space` returns to the file system.
    static let vacuumStepPages = 256
    /// Free pages kept in the file for the next writes: if all were returned, it would only grow again.
    static let keptFreePages = 1024
    // MARK: The clock

    /// What the wall clock may differ from a steady one in a second without having been set, in milliseconds.
    static let clockToleranceMilliseconds: Int64 = 5000
    /// How long nothing that has expired is deleted after the clock was set forward, in milliseconds: an hour, in which
    /// a time server or an operator will have corrected it if it is wrong.
    static let sweepHoldMilliseconds: Int64 = 3_600_000
    /// Time that may have passed between two starts without a suspicion that the clock is wrong: a day.
    static let longestTrustedAbsenceMilliseconds: Int64 = 86_400_000
    /// Entries that a repair of deadlines reads at a time.
    static let clockRepairRows = 1000

    // MARK: Damage

    /// Values up to this size are compared with their SHA-256 on each read, which takes a few microseconds.
    static let alwaysCheckedBytes = 4096
    /// Of the later reads of larger values, one of so many is compared again.
    static let readsPerRepeatedCheck = 16

    // MARK: A full disk

    /// SQLite's own maximum of pages in a file. https://sqlite.org/limits.html
    static let maxDatabasePages = 4_294_967_294
    /// Disk space kept in reserve, so that rows can be removed when the rest is used up: the log that is written back
    /// every ``checkpointPages``, and as much again for the steps of a sweep.
    static let reserveBytes = 8 * 1024 * 1024
    /// What is given up of it at a time.
    static let reservePartBytes = 2 * 1024 * 1024
    /// What must be free besides the reserve before growing writes are accepted again.
    static let reserveMarginBytes = 2 * 1024 * 1024
    /// What must be free to open a database that has no reserve.
    static let neededToOpen = reserveBytes + reserveMarginBytes
    /// What must be left after a growing write.
    static let minFreeBytes = 1024 * 1024
    /// With so much free, the file system is asked only now and then how much it is, and if a commit is not synced,
    /// whether the files are in place: a system call can take longer than such a commit.
    static let ampleFreeBytes = 64 * 1024 * 1024
    static let checkMilliseconds: Int64 = 100
    /// A write of more bytes may be refused without others being refused too.
    static let mostBytesOfSmallWrite = 256 * 1024
    /// Pages of the log after which it is written back while the disk is full.
    static let fullDiskCheckpointPages = 256
    /// Time between two lines of the log about a full disk, in milliseconds.
    static let shortageReminderMilliseconds: Int64 = 60_000

    // MARK: The limit of the database's size

    /// The least that the log may take of `max_database_bytes`: the largest write, a batch of 16 MiB, and what is in
    /// the log before it.
    static let leastLimitedLogBytes = 28 * 1024 * 1024
    /// Pages of the database that only writes which remove something may use: 1 MiB.
    static let spareLimitedPages = 256
    /// Maximum number of entries evicted in one transaction when the limit is reached, and what they take in the log.
    static let maxEvictionsPerRelief = 512
    static let reliefLogBytes = 8 * 1024 * 1024

    // MARK: The log

    /// Size to which the write-ahead log is truncated, and above which a checkpoint waits for readers.
    static let maxLogBytes = 64 * 1024 * 1024
}
