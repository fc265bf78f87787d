// The making of backups, whoever copies the database: a running service, or a command on a file that nobody serves.

import Domain
import Glibc
import Logging
import Synchronization

/// Makes one backup at a time, and knows those there are. See docs/design/backups.md.
final class BackupMaker: Sendable {
    let folder: BackupFolder
    let signal = StopSignal()
    /// Reads of backups that are downloaded, lists, removals.
    let files = BoundedThreads(
        count: 2, maxQueued: Limits.maxConnections, refusal: "Too many reads of backups are waiting.")
    /// Syncs, checks and hashes of the one that is being made, and what is done once it is there.
    private let work = BoundedThreads(
        count: 1, maxQueued: 1, niceness: StorageLimits.backupNiceness, refusal: "Another backup is being checked.")
    private let clock: WallClock
    private let logger: Logger
    private let state = Mutex(State())

    /// Of the backups of this database.
    struct Figures: Sendable {
        var latest: Backup?
        var count = 0
        var totalBytes = 0
        var failures = 0
    }

    private struct State {
        var isRunning = false
        var figures = Figures()
    }

    init(folder: BackupFolder, clock: WallClock, logger: Logger) {
        self.folder = folder
        self.clock = clock
        self.logger = logger
        let leftovers = folder.removeLeftovers()
        if !leftovers.isEmpty {
            logger.notice("removed what an interrupted backup left", metadata: ["files": "\(leftovers)"])
        }
        look()
    }

    var figures: Figures { state.withLock { $0.figures } }

    var isRunning: Bool { state.withLock { $0.isRunning } }

    /// Reads again what is there.
    func look() {
        let own = (try? folder.ownBackups()) ?? []
        state.withLock { state in
            state.figures.latest = own.first
            state.figures.count = own.count
            state.figures.totalBytes = own.reduce(0) { $0 + $1.sizeBytes }
        }
    }

    /// Makes a backup.
    /// - Parameters:
    ///   - databaseBytes: the size of the database now.
    ///   - keep: how many backups to keep.
    ///   - copy: copies the database into the empty file, and returns the instant whose state it holds. It need not be
    ///     synced.
    /// - Throws: as ``BackupStore/createBackup()``.
    func make(
        databaseBytes: Int, keep: Int, copy: (PartialBackup) async throws -> Instant
    ) async throws -> Backup {
        try begin()
        defer { state.withLock { $0.isRunning = false } }
        do {
            let (backup, removed) = try await made(databaseBytes: databaseBytes, keep: keep, copy)
            logger.info(
                "made a backup",
                metadata: [
                    "name": "\(backup.name)", "size_bytes": "\(backup.sizeBytes)", "sha256": "\(backup.entityTag.hex)",
                    "duration_seconds": "\(backup.durationSeconds)", "removed": "\(removed.map(\.rawValue))",
                ])
            return backup
        } catch {
            let failure = signal.isRaised ? .shuttingDown : Self.failure(error)
            if failure.code == .shuttingDown {
                logger.notice("a backup was ended by the shutdown")
            } else {
                state.withLock { $0.figures.failures += 1 }
                logger.error("a backup failed", metadata: ["error": "\(failure.detail)", "folder": "\(folder.path)"])
            }
            throw failure
        }
    }

    private func begin() throws(Failure) {
        try state.withLock { state throws(Failure) in
            guard !signal.isRaised else { throw .shuttingDown }
            guard !state.isRunning else {
                throw Failure(.backupRunning, "A backup is being made. Wait until it is listed in GET /v1/backups.")
            }
            state.isRunning = true
        }
    }

    private func made(
        databaseBytes: Int, keep: Int, _ copy: (PartialBackup) async throws -> Instant
    ) async throws -> (backup: Backup, removed: [Name]) {
        let started = ContinuousClock.now
        let partial = try await work.run { [self] in try folder.beginPartial(now: clock.now()) }
        do {
            try await work.run { [self] in try checkSpace(for: databaseBytes) }
            logger.info(
                "making a backup", metadata: ["database_bytes": "\(databaseBytes)", "folder": "\(folder.path)"])
            let createdAt = try await copy(partial)
            return try await work.run { [self] in
                let backup = try verifyAndPublish(partial, createdAt: createdAt, started: started)
                var removed: [Name] = []
                do {
                    removed = try folder.removeExcess(keeping: keep, and: backup.name)
                } catch {
                    logger.error("an old backup could not be removed", metadata: ["error": "\(error)"])
                }
                look()
                // Also where the clock was set back, and others have later names.
                state.withLock { $0.figures.latest = backup }
                return (backup, removed)
            }
        } catch {
            // Now, whoever still refers to it.
            try? await work.run { partial.remove() }
            throw error
        }
    }

    private func verifyAndPublish(
        _ partial: PartialBackup, createdAt: Instant, started: ContinuousClock.Instant
    ) throws -> Backup {
        let check = BackupCheck(path: partial.path, signal: signal)
        try check.detachFromLog()
        try partial.sync()
        if let problem = try check.problem() {
            throw Failure(
                .databaseDamaged,
                "The copy of the database is not sound: \(problem). The database is probably damaged: keep the older "
                    + "backups, and check the disk.")
        }
        let (entityTag, sizeBytes) = try check.digest()
        let seconds = (ContinuousClock.now - started).seconds
        return try folder.publish(
            partial,
            BackupFacts(
                createdAt: createdAt, sizeBytes: sizeBytes, entityTag: entityTag,
                durationSeconds: (seconds * 1000).rounded() / 1000, database: folder.database))
    }

    /// Syncs what has been copied, at low priority.
    func sync(_ partial: PartialBackup) async throws {
        try await work.run { try partial.sync() }
    }

    private func checkSpace(for bytes: Int) throws(Failure) {
        guard let free = FreeSpace.bytes(at: folder.path) else { return }
        let needed = bytes + StorageLimits.backupSpareBytes
        guard free >= needed else { throw Self.full("It takes about \(needed) bytes, and \(free) are free.") }
    }

    private static func full(_ figures: String) -> Failure {
        Failure(
            .storageFull,
            "The disk of the backups has no room for another. \(figures) Free disk space, remove old backups, or set "
                + "backup_directory to a folder on another disk.")
    }

    /// What a caller sees.
    private static func failure(_ error: any Error) -> Failure {
        switch error {
        case let error as FileError: return error.failure
        case let error as SQLiteError where error.isOfFullDisk: return full("The copy was given up.")
        default: break
        }
        guard let failure = storageFailure(error) as? Failure else {
            return Failure(.internalError, "The backup failed. The server's log has the details.")
        }
        return failure.code == .storageFull && !failure.detail.contains("backup_directory")
            ? full("The copy was given up.") : failure
    }

    /// Ends the backup that is being made, and refuses new ones.
    func stop() { signal.raise() }

    /// Does the same as ``stop()``, and waits until it has ended.
    func close() async {
        stop()
        while isRunning { try? await Task.sleep(for: .milliseconds(1)) }
        await work.close()
        await files.close()
    }
}

extension FileError {
    /// The decided outcome for the caller of a backup.
    var failure: Failure {
        switch number {
        case ENOSPC, EDQUOT:
            Failure(
                .storageFull,
                "The disk of the backups is full. Free disk space, remove old backups, or set backup_directory to a "
                    + "folder on another disk.")
        case EACCES, EPERM, EROFS, ENOTDIR, ENOENT:
            Failure(
                .storageUnavailable,
                "The folder of the backups cannot be used: \(description). Make it writable for the server, or change "
                    + "backup_directory.")
        default: Failure(.storageUnavailable, "The file system failed: \(description). Check the disk.")
        }
    }
}
