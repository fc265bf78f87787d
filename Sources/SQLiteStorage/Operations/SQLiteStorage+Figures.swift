// The engine's figures: its queue, its file, its namespaces, how far cleanup lags.

import Domain
import Glibc
import Logging
import Synchronization

extension SQLiteStorage: OperationalStore {
    public func operationalFigures() async -> OperationalFigures {
        var figures = OperationalFigures()
        var freeBytes: Int?
        do {
            (figures.stored, freeBytes) = try await storedFigures()
        } catch {
            logger.warning("the database's figures could not be read", metadata: ["error": "\(error)"])
        }
        let statistics = writer.statistics
        figures.writes = statistics.operations
        figures.engine = ownFigures(statistics, freeBytes: freeBytes)
        figures.newSamples = newSampleCount
        let runs = taskRuns.withLock { $0 }
        figures.taskRuns = Self.tasks.map { runs[$0.task] ?? OperationalFigures.TaskRuns($0.task) }
        return figures
    }

    /// - Parameter freeBytes: nil when the database did not answer.
    private func ownFigures(_ statistics: Writer.Statistics, freeBytes: Int?) -> [EngineFigure] {
        let waiting = writer.waiting
        var figures = [
            EngineFigure(
                "reprise_writer_queued_writes", "Writes waiting for the writer.", .gauge(Double(waiting.operations))),
            EngineFigure(
                "reprise_writer_queued_bytes", "Memory held by waiting writes.", .gauge(Double(waiting.bytes))),
            EngineFigure(
                "reprise_writer_commits_total", "Commits.", .counter(Double(statistics.groupSizes.count))),
            EngineFigure(
                "reprise_writer_group_size", "Writes committed together.", .histogram(statistics.groupSizes)),
            EngineFigure(
                "reprise_writer_commit_duration_seconds", "Time each commit takes.",
                .histogram(statistics.commitSeconds)),
            EngineFigure(
                "reprise_database_size_bytes", "Size of the database file.",
                .gauge(Double(FileSystem.size(of: path) ?? 0))),
            EngineFigure(
                "reprise_database_wal_size_bytes", "Size of the write-ahead log.",
                .gauge(Double(FileSystem.size(of: path + "-wal") ?? 0))),
        ]
        figures += backupFigures
        let space = space.figures
        figures += [
            EngineFigure(
                "reprise_storage_full", "1 while writes are refused because the disk is full.",
                .gauge(space.isShort ? 1 : 0)),
            EngineFigure(
                "reprise_storage_refused_writes_total",
                "Writes refused because the disk is full or max_database_bytes is reached.",
                .counter(Double(space.refusedWrites + writer.limitRefusals.load(ordering: .relaxed)))),
            EngineFigure(
                "reprise_storage_reserve_bytes", "Disk space held in reserve for removing data when the disk is full.",
                .gauge(Double(space.reserveBytes))),
        ]
        figures.append(
            EngineFigure(
                "reprise_cache_damaged_reads_total",
                "Reads of values that do not have the SHA-256 they were stored with.",
                .counter(Double(valueCheck.damagedCount))))
        figures += [
            EngineFigure(
                "reprise_database_limit_bytes", "The setting max_database_bytes; 0 without a limit.",
                .gauge(Double(databaseLimit?.bytes ?? 0))),
            EngineFigure(
                "reprise_uploads_unfinished_bytes", "Bytes of large values whose upload is not finished.",
                .gauge(Double(unfinishedUploadBytes.load(ordering: .relaxed)))),
        ]
        let jumps = clockWatch.jumps
        figures += [
            EngineFigure(
                "reprise_clock_jumps_total", "Times the machine's clock was found to have been set.",
                .counter(Double(jumps.count))),
            EngineFigure(
                "reprise_clock_last_jump_seconds",
                "By how much it was set the last time; negative if back, 0 if never.",
                .gauge(Double(jumps.latest?.milliseconds ?? 0) / 1000)),
        ]
        if let free = space.freeBytes {
            figures.append(
                EngineFigure(
                    "reprise_storage_free_bytes", "Bytes the database may still use on its file system.",
                    .gauge(Double(free))))
        }
        if let freeBytes {
            figures.append(
                EngineFigure(
                    "reprise_database_free_bytes", "Bytes of free pages in the database file.",
                    .gauge(Double(freeBytes))))
        }
        return figures
    }

    private var backupFigures: [EngineFigure] {
        let backups = backupMaker.figures
        func gauge(_ name: String, _ help: String, _ value: Double) -> EngineFigure {
            EngineFigure(name, help, .gauge(value))
        }
        return [
            gauge("reprise_backups", "Backups of this database.", Double(backups.count)),
            gauge("reprise_backups_size_bytes", "Size of all of them.", Double(backups.totalBytes)),
            gauge(
                "reprise_backup_last_success_timestamp_seconds",
                "When the latest backup was made, in seconds since 1970; 0 if there is none.",
                (backups.latest.map { Double($0.createdAt.milliseconds) } ?? 0) / 1000),
            gauge(
                "reprise_backup_last_size_bytes", "Size of the latest backup.",
                Double(backups.latest?.sizeBytes ?? 0)),
            gauge(
                "reprise_backup_last_duration_seconds", "Time it took to make and verify the latest backup.",
                backups.latest?.durationSeconds ?? 0),
            gauge(
                "reprise_backup_interval_seconds", "The setting backup_interval_seconds; 0 if there is no schedule.",
                Double(settings.current.milliseconds(.backupInterval)) / 1000),
            EngineFigure(
                "reprise_backup_failures_total", "Backups that failed.", .counter(Double(backups.failures))),
        ]
    }

    private func storedFigures() async throws -> (stored: OperationalFigures.Stored, freeBytes: Int) {
        let now = clock.now()
        var (stored, ids, freeBytes) = try await readers.consistently(.upkeep) { connection in
            var stored = OperationalFigures.Stored()
            let namespaces = try connection.namespaceRows(now: now)
            stored.namespaces = namespaces.map(\.figures)
            let (sessions, expired) = try connection.sessionTotals(now: now)
            stored.sessionCount = sessions.sessions - expired.sessions
            stored.stateKeyCount = sessions.keys - expired.keys
            stored.stateSizeBytes = sessions.bytes - expired.bytes
            let freePages = try connection.freePages()
            stored.lagSeconds = try connection.lagSeconds(now: now)
            return (stored, namespaces.map(\.id), Connection.pageBytes * freePages)
        }
        // From memory, where they are exact and never go back, even if the process was killed.
        for (index, lookups) in ledger.lookups(of: ids).enumerated() {
            stored.namespaces[index].hits = lookups.hits
            stored.namespaces[index].misses = lookups.misses
        }
        return (stored, freeBytes)
    }
}

extension Connection {
    /// How late the oldest row of each kind is that should be gone; 0 if none is late.
    func lagSeconds(now: Instant) throws(SQLiteError) -> [OperationalFigures.Leftover: Double] {
        var seconds: [OperationalFigures.Leftover: Double] = [:]
        for leftover in OperationalFigures.Leftover.allCases {
            let late = try oldest(leftover).map { max(now.milliseconds(since: $0), 0) } ?? 0
            seconds[leftover] = Double(late) / 1000
        }
        return seconds
    }

    /// When the oldest of these expired or was cleared, or will expire.
    private func oldest(_ leftover: OperationalFigures.Leftover) throws(SQLiteError) -> Instant? {
        func one(_ sql: StaticString) throws(SQLiteError) -> Instant? {
            try first(sql) { $0.optionalInstant(0) } ?? nil
        }
        return switch leftover {
        case .cache: try earliestExpiry()
        case .cleared: try one("SELECT min(cleared_at_ms) FROM cache_generations WHERE cleared_at_ms IS NOT NULL")
        case .sessions: try earliestSessionExpiry()
        case .debounces: try one("SELECT min(expires_at_ms) FROM debounce_marks")
        }
    }
}
