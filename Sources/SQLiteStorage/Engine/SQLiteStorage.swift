// The SQLite engine: opens the file, holds the connections, closes them. Each area has files of its own.

import Domain
import Glibc
import Logging
import NIOPosix
import Synchronization

/// Everything Reprise keeps, in one SQLite file.
///
/// One connection writes, in groups (``Writer``); others only read (``Readers``). See docs/design/sqlite.md.
public final class SQLiteStorage: Sendable {
    let writer: Writer
    let readers: Readers
    let inspector: SQLInspector
    let backupMaker: BackupMaker
    let clock: WallClock
    let settings: LiveSettings
    let logger: Logger
    let ledger = AccessLedger()
    let activity = ActivityLedger()
    let leases = BlobLeases()
    let register: TokenRegister
    let valueCheck: ValueCheck
    /// What uploads in progress have stored so far.
    let unfinishedUploadBytes = Atomic(0)
    let clockWatch: ClockWatch
    let signals: Signals
    let space: DiskSpace
    /// Retired generations whose rows are being counted, so that the sweep leaves them alone.
    let heldGenerations = Mutex<[Int64: Int]>([:])
    /// What the background tasks did since the start.
    let taskRuns = Mutex<[MaintenanceTask: OperationalFigures.TaskRuns]>([:])
    /// nil without a limit.
    var databaseLimit: DatabaseLimit? {
        DatabaseLimit(setting: settings.current.integer(.maxDatabaseBytes))
    }
    let path: String
    /// How long opening took.
    let opening: OpeningTimes
    private let lock: DatabaseLock

    /// What is known in memory about the rows, so that the database need not be queried every second.
    final class Signals: Sendable {
        /// The next `entry_id` and `blob_id`, never reused while the process runs.
        let nextEntryID: Atomic<Int64>
        let nextBlobID: Atomic<Int64>
        /// The number of the next write of an entry's value.
        let nextWriteNumber: Atomic<Int64>
        /// The next `sample_id`, and the last one that is in the roll-ups.
        let nextSampleID: Atomic<Int64>
        let rolledUpTo: Atomic<Int64>
        /// No entry expires earlier, in milliseconds; `Int64.max` for none.
        let earliestExpiry: Atomic<Int64>
        /// No session expires earlier, in milliseconds; `Int64.max` for none.
        let earliestSessionExpiry: Atomic<Int64>
        let hasClearedRows: Atomic<Bool>
        let hasExceededCaps: Atomic<Bool>
        let hasOrphans: Atomic<Bool>
        /// Rows were removed, so pages may be free.
        let hasSpareSpace = Atomic(true)
        /// Reasons of removal written since they were last counted.
        let newRemovals = Atomic(Limits.maxRememberedRemovals)

        init(
            nextEntryID: Int64, nextBlobID: Int64, nextWriteNumber: Int64, lastSampleID: Int64, rolledUpTo: Int64,
            earliestExpiry: Int64, earliestSessionExpiry: Int64, hasClearedRows: Bool, hasOrphans: Bool
        ) {
            self.nextEntryID = Atomic(nextEntryID)
            self.nextBlobID = Atomic(nextBlobID)
            self.nextWriteNumber = Atomic(nextWriteNumber)
            // Samples up to the mark may be removed already; their numbers must not be reused.
            self.nextSampleID = Atomic(max(lastSampleID, rolledUpTo) + 1)
            self.rolledUpTo = Atomic(rolledUpTo)
            self.earliestExpiry = Atomic(earliestExpiry)
            self.earliestSessionExpiry = Atomic(earliestSessionExpiry)
            self.hasClearedRows = Atomic(hasClearedRows)
            // A ranking or an eviction may have been interrupted; one look-up at start-up tells.
            self.hasExceededCaps = Atomic(true)
            self.hasOrphans = Atomic(hasOrphans)
        }

        func note(expiry: Instant?) {
            if let expiry { earliestExpiry.min(expiry.milliseconds, ordering: .relaxed) }
        }

        func note(sessionExpiry expiry: Instant?) {
            if let expiry { earliestSessionExpiry.min(expiry.milliseconds, ordering: .relaxed) }
        }
    }

    /// Opens the database, creating it and its folder if missing, and updates its schema.
    ///
    /// - Parameters:
    ///   - path: the database file. Beside it are `-wal`, `-shm` and `.lock`.
    ///   - settings: `durability` is read once; settings about entries, at each write.
    /// - Throws: ``OpeningError`` with the remedy.
    public convenience init(
        path: String, for use: StorageUse = .server, settings: LiveSettings, clock: WallClock, logger: Logger
    ) throws(OpeningError) {
        try self.init(
            path: path, for: use, settings: settings, clock: clock, logger: logger, microseconds: monotonicMicroseconds)
    }

    /// - Parameters:
    ///   - microseconds: the clock by which the writer ends steps; it never steps itself.
    ///   - volume: the file system of the database.
    init(
        path: String, for use: StorageUse = .server, settings: LiveSettings, clock: WallClock, logger: Logger,
        microseconds: @escaping @Sendable () -> Int64 = monotonicMicroseconds, volume: DiskSpace.Volume = .system
    ) throws(OpeningError) {
        do {
            if let slash = path.lastIndex(of: "/") { try PrivateFile.createFolder(String(path[..<slash])) }
        } catch {
            throw OpeningError("\(error). Create it, or choose another --database.")
        }
        lock = try DatabaseLock(database: path, for: use)
        try lock.checkHeader()
        // A restore that was killed left it; none can be under way.
        unlink(lock.database + StoppedDatabase.partialSuffix)
        let path = lock.database
        var opening = OpeningTimes(microseconds)
        do {
            space = DiskSpace(database: path, logger: logger, volume: volume)
            let connection = try Self.openWriter(path, space: space, clock: clock, logger: logger, times: &opening)
            space.start()
            signals = try Self.signals(connection)
            register = TokenRegister(try connection.tokens())
            clockWatch = ClockWatch(clock: clock, newest: try connection.latestInstant(), logger: logger)
            // Ranks from before the clock was set back must not be above those of later uses.
            ledger.raiseTick(to: try connection.highestRank())
            opening.end(.preparation)
            let isDurable = settings.current.text(.durability) == "full"
            let snapshots = Snapshots(path: path)
            readers = Readers(path: path, snapshots: snapshots)
            inspector = SQLInspector(path: path)
            backupMaker = BackupMaker(
                folder: BackupFolder(setting: settings.current.text(.backupDirectory), database: path), clock: clock,
                logger: logger)
            writer = Writer(
                connection: connection, isDurable: isDurable, snapshots: snapshots, space: space,
                files: DatabaseFiles(database: path), logger: logger,
                microseconds: microseconds)
        } catch let error as OpeningError {
            throw OpeningError("\(path): \(error.description)")
        } catch let error as SQLiteError where error.isOfFullDisk {
            throw OpeningError(
                "the disk is too full to open \(path). Free \(StorageLimits.neededToOpen >> 20) MiB there, but none of "
                    + "the files whose names begin with the database's, and start again.")
        } catch let error as SQLiteError {
            throw OpeningError("cannot open \(path): \(error). \(error.remedyWhenOpening)")
        } catch {
            throw OpeningError("cannot open \(path): \(error)")
        }
        self.path = path
        self.opening = opening
        self.clock = clock
        self.settings = settings
        self.logger = logger
        valueCheck = ValueCheck(logger: logger)
        let ledger = ledger
        settings.observe { ledger.isCounting.store($0.boolean(.enableMonitoring), ordering: .relaxed) }
        writer.makeRoom { [weak self] pages, connection in
            try self?.makeRoom(pages: pages, on: connection) ?? { _ in }
        }
        let (writer, signals) = (writer, signals)
        settings.observe {
            writer.setLimit(DatabaseLimit(setting: $0.integer(.maxDatabaseBytes)))
            // Namespaces may have to be ranked.
            signals.hasExceededCaps.store(true, ordering: .relaxed)
        }
    }

    /// Opens the connection that writes; on a full disk, in the reserve.
    /// - Throws: ``OpeningError``, ``SQLiteError``.
    private static func openWriter(
        _ path: String, space: DiskSpace, clock: WallClock, logger: Logger, times: inout OpeningTimes
    ) throws -> Connection {
        // The index of the log is written through memory, and a file system that has no block for it ends the process.
        if !space.hasRoom(for: 0) { _ = space.giveUpReserve() }
        while true {
            do {
                return try openWriter(path, clock: clock, logger: logger, times: &times)
            } catch let error as SQLiteError where error.isOfFullDisk && space.giveUpReserve() {
                // Once more, in what was given up.
            }
        }
    }

    /// Opens the connection that writes, with everything written that the program needs to run.
    private static func openWriter(
        _ path: String, clock: WallClock, logger: Logger, times: inout OpeningTimes
    ) throws -> Connection {
        let connection = try Connection(path: path, mode: .writer)
        // Before anything is set, because some settings are written into the file.
        try Migrator().checkOwnership(connection)
        try connection.configureWriter()
        // After a full disk the log may hold pages that were never committed, and those behind them need its space.
        _ = try? connection.checkpoint(.truncate)
        times.end(.recovery)
        let applied = try Migrator().migrate(connection, now: clock.now())
        if !applied.isEmpty {
            logger.info("applied migrations", metadata: ["versions": "\(applied)", "database": "\(path)"])
        }
        times.end(.migration)
        try connection.run("UPDATE cache_openings SET openings = openings + 1")
        return connection
    }

    /// A few look-ups at the ends of indexes, so that start-up takes the same time however large the database is.
    private static func signals(_ connection: Connection) throws(SQLiteError) -> Signals {
        func one(_ sql: StaticString) throws(SQLiteError) -> Int64? {
            try connection.first(sql) { $0.optionalInteger(0) } ?? nil
        }
        // 40 bits last for a year and more at 20 000 writes a second.
        let nextWriteNumber = (try one("SELECT openings FROM cache_openings") ?? 0) << 40
        return Signals(
            nextEntryID: (try one("SELECT max(entry_id) FROM cache_entries") ?? 0) + 1,
            nextBlobID: (try one("SELECT max(blob_id) FROM cache_blobs") ?? 0) + 1,
            nextWriteNumber: nextWriteNumber,
            lastSampleID: try one("SELECT max(sample_id) FROM samples") ?? 0, rolledUpTo: try connection.rolledUpTo(),
            earliestExpiry: try connection.earliestExpiry()?.milliseconds ?? .max,
            earliestSessionExpiry: try connection.earliestSessionExpiry()?.milliseconds ?? .max,
            hasClearedRows: try one("SELECT 1 FROM cache_generations WHERE cleared_at_ms IS NOT NULL LIMIT 1") != nil,
            // Named, because with statistics of a small table SQLite would rather scan it.
            hasOrphans: try one(
                "SELECT 1 FROM cache_blobs INDEXED BY cache_blobs_orphaned WHERE is_attached = 0 LIMIT 1") != nil)
    }

    /// Ends reads that may take seconds, SQL and aggregates, and the making of a backup with `shutting_down`, and
    /// refuses new ones. Called when the service begins to stop, so that the rest can finish soon.
    public func endLongReads() {
        inspector.stop()
        backupMaker.stop()
        readers.endLongReads()
    }

    /// Writes what is held in memory, finishes what is waiting and closes the file. Later calls fail with
    /// `shutting_down`.
    public func close() async {
        do {
            try await flushCounters(.shrinking)
            try await writeTokenUses(isClosing: true)
        } catch {
            logger.error("counters were lost", metadata: ["error": "\(error)"])
        }
        await inspector.close()
        await backupMaker.close()
        await readers.close()
        await writer.close()
        lock.release()
        let statistics = writer.statistics
        logger.info(
            "database closed",
            metadata: [
                "writes": "\(statistics.operations)", "commits": "\(statistics.groups)",
                "mean_group": "\(meanGroup(statistics))", "largest_group": "\(statistics.largestGroup)",
            ])
    }

    private func meanGroup(_ statistics: Writer.Statistics) -> String {
        guard statistics.groups > 0 else { return "0" }
        return JSON.decimal((Double(statistics.operations) / Double(statistics.groups) * 10).rounded() / 10).text
    }

    /// A write inside the next group.
    func transaction<T: Sendable>(
        _ priority: Writer.Priority = .foreground, _ growth: Writer.Growth = .growing, bytes: Int = 0,
        _ body: @escaping @Sendable (CacheTransaction) throws -> T
    ) async throws -> T {
        let withdrawal = AccessLedger.Withdrawal(from: ledger)
        do {
            return try await writer.perform(priority, bytes: bytes, .durable, growth) { connection in
                // Run once more after its group failed, it has not written what it took out.
                withdrawal.undo()
                return try body(
                    CacheTransaction(
                        connection: connection, storage: self, withdrawal: withdrawal, now: self.clock.now()))
            }
        } catch {
            withdrawal.undo()
            throw error
        }
    }
}

extension SQLiteStorage: HealthStore {
    public func checkReadiness() async throws -> Int {
        if space.isShort { throw Failure.storageFull }
        return try await writer.perform(.foreground, .durable, .shrinking) { connection in
            // Changes nothing, but writes a page to the log, which proves that the file can be written.
            try connection.run("UPDATE schema_migrations SET applied_at_ms = applied_at_ms WHERE version = 1")
            return try connection.first("SELECT max(version) FROM schema_migrations") { $0.int(0) } ?? 0
        }
    }
}
