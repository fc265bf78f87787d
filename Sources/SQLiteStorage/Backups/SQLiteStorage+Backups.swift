// Backups of a running service: the writer copies the database between two groups.

import Domain
import Glibc
import Logging

extension SQLiteStorage: BackupStore {
    public func createBackup() async throws -> Backup {
        let bytes = FileSystem.size(of: path) ?? 0
        return try await backupMaker.make(
            databaseBytes: bytes, keep: settings.current.integer(.backupKeep)
        ) { partial in
            do {
                return try await copy(to: partial)
            } catch {
                // The connection keeps nothing of it, whatever the reason was.
                try? await writer.performOutsideTransaction { $0.endCopy() }
                throw error
            }
        }
    }

    /// Copies the database in steps of background work: the writer writes to the copy what it commits in the meantime,
    /// so no reader has to keep its view, the log stays short, and the copy never begins again.
    /// - Returns: the instant whose state the copy holds.
    private func copy(to partial: PartialBackup) async throws -> Instant {
        let path = partial.path
        try await writer.performOutsideTransaction { try $0.beginCopy(to: path) }
        var syncedBytes = 0
        var reported = monotonicMilliseconds()
        while true {
            guard !backupMaker.signal.isRaised, !Task.isCancelled else { throw Failure.shuttingDown }
            let step = try await writer.performOutsideTransaction { try self.copyStep(on: $0) }
            if let completedAt = step.completedAt { return completedAt }
            guard step.restarts <= StorageLimits.maxBackupRestarts else {
                throw Failure(
                    .storageUnavailable,
                    "The database could not be copied, because commits failed or another program wrote to it.")
            }
            // What waits to be written delays syncs of the log.
            let copiedBytes = step.copiedPages * Connection.pageBytes
            if copiedBytes - syncedBytes >= StorageLimits.backupSyncBytes {
                try await backupMaker.sync(partial)
                syncedBytes = copiedBytes
            }
            if monotonicMilliseconds() - reported >= StorageLimits.backupProgressMilliseconds {
                reported = monotonicMilliseconds()
                logger.info(
                    "copying the database", metadata: ["pages": "\(step.copiedPages)", "of": "\(step.allPages)"])
            }
        }
    }

    private struct CopyStep {
        var copiedPages = 0
        var allPages = 0
        var restarts = 0
        var completedAt: Instant?
    }

    /// Runs on the writer's thread.
    private func copyStep(on connection: Connection) throws -> CopyStep {
        guard let copy = connection.copy else { throw Failure.shuttingDown }
        repeat { try copy.advance(pages: StorageLimits.backupStepPages) } while !copy.isComplete && !writer.isStepOver
        var step = CopyStep(copiedPages: copy.copiedPages, allPages: copy.allPages, restarts: copy.restarts)
        if copy.isComplete {
            connection.endCopy()
            step.completedAt = clock.now()
        }
        return step
    }

    public func backups(before name: Name?, limit: Int) async throws -> [Backup] {
        try await onFiles { [folder = backupMaker.folder] in
            let all = try folder.backups().lazy.map(\.backup)
            return Array(all.filter { name == nil || $0.name.rawValue < name!.rawValue }.prefix(limit))
        }
    }

    public func openBackup(_ name: Name) async throws -> (backup: Backup, content: any LargeValue) {
        try await backupMaker.files.run { [backupMaker] in
            let backup = try backupMaker.folder.backup(name)
            return (backup, try StoredBackup(path: backupMaker.folder.file(of: name), threads: backupMaker.files))
        }
    }

    public func deleteBackup(_ name: Name, condition: EntityCondition) async throws {
        try await onFiles { [backupMaker] in
            let backup = try? backupMaker.folder.backup(name)
            try condition.check(backup.map { .present($0.entityTag.hex, updatedAt: $0.createdAt) } ?? .absent)
            _ = try backupMaker.folder.backup(name)
            defer { backupMaker.look() }
            try backupMaker.folder.remove(name)
        }
    }

    /// Runs what works on the files of backups.
    private func onFiles<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
        do {
            return try await backupMaker.files.run(body)
        } catch let error as FileError {
            throw error.failure
        }
    }

    public var latestBackup: Backup? { backupMaker.figures.latest }
}

/// A backup that is being sent.
private final class StoredBackup: LargeValue {
    private let descriptor: Int32
    private let threads: BoundedThreads

    /// - Throws: `backup_not_found` if it has been removed.
    init(path: String, threads: BoundedThreads) throws(Failure) {
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        self.threads = threads
        guard descriptor >= 0 else {
            if errno == ENOENT { throw Failure(.backupNotFound, "The backup was removed.") }
            throw FileError("open \(path)").failure
        }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    func read(from offset: Int, atMost count: Int) async throws -> [UInt8] {
        try await threads.run { [self] in
            let bytes = try [UInt8](unsafeUninitializedCapacity: count) { buffer, read in
                read = pread(descriptor, buffer.baseAddress, buffer.count, off_t(offset))
                while read < 0, errno == EINTR {
                    read = pread(descriptor, buffer.baseAddress, buffer.count, off_t(offset))
                }
                guard read >= 0 else {
                    let error = FileError("read the backup")
                    read = 0
                    throw error.failure
                }
            }
            guard !bytes.isEmpty else {
                throw Failure(.storageUnavailable, "The backup could not be read: its file is shorter than it was.")
            }
            return bytes
        }
    }
}
