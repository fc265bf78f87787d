// The background work: what each task does, its record, counters, free space. Each area has a file of its own.

import Domain
import Glibc
import Synchronization

extension MaintenanceTask {
    /// Removes the chunks of values that no entry refers to: replaced, removed or never finished.
    public static let blobOrphans = Self(rawValue: "blob_orphans")
    /// Gives free pages back to the file system and keeps the write-ahead log short.
    public static let space = Self(rawValue: "space")
}

extension SQLiteStorage: MaintenanceStore {
    public var tasks: [DeclaredTask] { Self.tasks }

    static let tasks = [
        DeclaredTask(.cacheExpiry), DeclaredTask(.cacheCaps), DeclaredTask(.blobOrphans, isFedByOthers: true),
        DeclaredTask(.sessionExpiry), DeclaredTask(.historyCaps), DeclaredTask(.stateTemporaries),
        DeclaredTask(.debounceMarks),
        // New samples together touch the same roll-ups.
        DeclaredTask(.sampleRollup, pauseMilliseconds: Limits.sampleRollupMilliseconds),
        DeclaredTask(.sampleRetention),
        // Pages just freed are likely to be written again.
        DeclaredTask(.space, pauseMilliseconds: 30_000, isFedByOthers: true),
    ]

    static func has(_ task: MaintenanceTask) -> Bool { tasks.contains { $0.task == task } }

    public func perform(_ task: MaintenanceTask, isDryRun: Bool) async throws -> Removal {
        switch task {
        case .cacheExpiry: return try await removeDueEntries(isDryRun: isDryRun)
        case .cacheCaps: return try await holdAllCaps(isDryRun: isDryRun)
        case .blobOrphans: return try await removeOrphans(isDryRun: isDryRun)
        case .sessionExpiry: return try await removeExpiredSessions(isDryRun: isDryRun)
        case .historyCaps: return try await removeExcessHistory(isDryRun: isDryRun)
        case .stateTemporaries: return try await removeTemporaryKeys(isDryRun: isDryRun)
        case .debounceMarks:
            var removal = try await removeDebounceMarks(isDryRun: isDryRun)
            removal += try await forgetOldKeys(isDryRun: isDryRun)
            return removal
        case .sampleRollup:
            // Roll-ups take space; they are made up for when there is some.
            if isDryRun || space.isShort { return Removal() }
            try await rollUpSamples()
            try await rollUpActivity()
            return Removal()
        case .sampleRetention:
            if !isDryRun && clockWatch.holdsSweeps { return Removal() }
            if !isDryRun { try await forgetOldActivity() }
            return try await removeOldSamples(isDryRun: isDryRun)
        case .space: return try await returnSpace(isDryRun: isDryRun)
        default: throw Failure.invalid("task", "must be a task of this engine, not '\(task.rawValue)'.")
        }
    }

    public func backlog() -> MaintenanceBacklog {
        clockWatch.check()
        var backlog = MaintenanceBacklog(
            hasCounters: (!ledger.isEmpty || !activity.isEmpty || hasTokenUses) && !space.isShort)
        func note(_ task: MaintenanceTask, deadline: borrowing Atomic<Int64>) {
            let deadline = deadline.load(ordering: .relaxed)
            if deadline < .max { backlog.deadlines[task] = Instant(milliseconds: deadline) }
        }
        func note(_ task: MaintenanceTask, if isWaiting: Bool) {
            if isWaiting { backlog.waiting.insert(task) }
        }
        note(.cacheExpiry, deadline: signals.earliestExpiry)
        note(.sessionExpiry, deadline: signals.earliestSessionExpiry)
        note(.cacheExpiry, if: signals.hasClearedRows.load(ordering: .relaxed))
        note(.cacheExpiry, if: clockWatch.needsRepair)
        note(.cacheCaps, if: signals.hasExceededCaps.load(ordering: .relaxed))
        note(.blobOrphans, if: signals.hasOrphans.load(ordering: .relaxed))
        note(.sampleRollup, if: newSampleCount > 0 && !space.isShort)
        note(.space, if: signals.hasSpareSpace.load(ordering: .relaxed) || logBytes > StorageLimits.maxLogBytes)
        // Every second, without the pause: what was freed must reach the file system.
        if space.isShort { backlog.deadlines[.space] = Instant(milliseconds: 0) }
        return backlog
    }

    /// Samples that are not rolled up.
    var newSampleCount: Int {
        Int(signals.nextSampleID.load(ordering: .relaxed) - 1 - signals.rolledUpTo.load(ordering: .relaxed))
    }

    public func record(_ run: MaintenanceRun) async throws {
        taskRuns.withLock { $0[run.task, default: OperationalFigures.TaskRuns(run.task)].add(run) }
        // On a full disk, space is for removing rows. The counts in memory go on.
        if space.isShort { return }
        // Their number is limited, so they take no more space in the end.
        try await writer.perform(.background, .durable, .shrinking) { connection in
            try connection.run(
                """
                INSERT INTO maintenance_runs
                    (task, trigger, started_at_ms, duration_seconds, rows_removed, bytes_freed, error)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                """,
                .text(run.task.rawValue), .text(run.trigger.rawValue), .instant(run.startedAt),
                .real(run.durationSeconds), .integer(run.rowsRemoved), .integer(run.bytesFreed),
                .optional(run.error, Value.text))
            try connection.run(
                "DELETE FROM maintenance_runs WHERE run_id <= (SELECT max(run_id) FROM maintenance_runs) - ?1",
                .integer(Limits.maxMaintenanceRuns))
            try connection.count(run)
        }
    }

    public func maintenanceRuns(before: Int64?, limit: Int) async throws -> [MaintenanceRun] {
        try await readers.pooled { connection in
            try connection.all(
                """
                SELECT * FROM maintenance_runs WHERE run_id < ?1 ORDER BY run_id DESC LIMIT ?2
                """, .integer(before ?? .max), .integer(limit), row: MaintenanceRun.init)
        }
    }

    // MARK: Counters

    public func flushCounters() async throws {
        try await flushCounters(.growing)
    }

    /// - Parameter growth: whether they are written on a full disk, too: the last time, before memory is lost.
    func flushCounters(_ growth: Writer.Growth) async throws {
        try await flushActivity(.background)
        if growth == .growing && space.isShort { return }
        for (namespaceID, entries) in ledger.waiting() {
            var left = entries
            repeat {
                // They are changed where they are, so max_database_bytes is no reason against it.
                left -= try await transaction(.background, .shrinking) {
                    try $0.writeCounters(namespaceID: namespaceID)
                }
            } while left > 0
        }
        try await writeTokenUses(isClosing: false)
    }

    // MARK: Space

    /// Gives free pages back to the file system, a step at a time, and shortens the log if it is long.
    private func returnSpace(isDryRun: Bool) async throws -> Removal {
        if isDryRun { return try await countSparePages() }
        signals.hasSpareSpace.store(false, ordering: .relaxed)
        var freed = 0
        while true {
            let pages = try await writer.perform(.background, .durable, .shrinking) { connection in
                let free = try connection.freePages()
                let all = try connection.pages()
                // All of them on a full disk, and as many as are above a limit that was lowered.
                let owed = self.space.isShort ? free : min(free, max(0, all - (self.databaseLimit?.pages ?? all)))
                let step = max(min(owed, StorageLimits.vacuumStepPages), Self.sparePages(free: free, of: all))
                var left = step
                while left > 0 {
                    try connection.execute("PRAGMA incremental_vacuum(\(min(left, StorageLimits.sweepReadRows)))")
                    left -= StorageLimits.sweepReadRows
                    if self.writer.isStepOver { break }
                }
                guard step > 0 else { return 0 }
                return free - (try connection.freePages())
            }
            guard pages > 0 else { break }
            freed += pages * Connection.pageBytes
        }
        if space.isShort {
            try await writer.restoreSpace()
        } else {
            try await writer.checkpoint(truncating: logBytes > StorageLimits.maxLogBytes)
        }
        return Removal(removed: 0, freedBytes: freed)
    }

    private func countSparePages() async throws -> Removal {
        try await readers.pooled(.upkeep) { connection in
            var free = try connection.freePages()
            var all = try connection.pages()
            var freed = 0
            while case let step = Self.sparePages(free: free, of: all), step > 0 {
                free -= step
                all -= step
                freed += step
            }
            return Removal(removed: 0, freedBytes: freed * Connection.pageBytes)
        }
    }

    /// Pages to give back in the next step. A tenth of the file may stay free, because the next writes use it without
    /// growing the file.
    static func sparePages(free: Int, of all: Int) -> Int {
        max(0, min(free - max(StorageLimits.keptFreePages, all / 10), StorageLimits.vacuumStepPages))
    }

    /// Size of the write-ahead log's file.
    private var logBytes: Int {
        var status = stat()
        return stat(path + "-wal", &status) == 0 ? Int(status.st_size) : 0
    }
}

extension MaintenanceRun {
    /// From all columns of `maintenance_runs`.
    init(_ row: borrowing Row) {
        self.init(
            id: row.integer("run_id"), task: MaintenanceTask(rawValue: row.text("task")),
            trigger: MaintenanceTrigger(rawValue: row.text("trigger"))!, startedAt: row.instant("started_at_ms"),
            durationSeconds: row.real("duration_seconds"), rowsRemoved: row.int("rows_removed"),
            bytesFreed: row.int("bytes_freed"), error: row.optionalText("error"))
    }
}
