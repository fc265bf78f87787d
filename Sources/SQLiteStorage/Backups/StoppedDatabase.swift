// A database that no server has open: backing it up, and putting a backup in its place.

import CFileSystem
import Domain
import Glibc
import Logging

/// A database file, with its lock held, so that no server can start on it meanwhile.
public final class StoppedDatabase: Sendable {
    /// The path without symbolic links.
    public let path: String
    private let lock: DatabaseLock
    /// Whether there was a file before it was locked.
    private let existed: Bool
    private let clock: WallClock
    private let folder: BackupFolder

    /// How far a long operation is: done, and all. Bytes or pages, whatever it counts.
    public typealias Progress = @Sendable (Int, Int) -> Void

    /// - Parameters:
    ///   - path: of the database, which need not exist.
    ///   - backupDirectory: the setting.
    /// - Throws: ``OpeningError``; `isHeldByServer` tells whether a server runs on the file.
    public init(path: String, backupDirectory: String, clock: WallClock = .system) throws(OpeningError) {
        do {
            if let slash = path.lastIndex(of: "/") { try PrivateFile.createFolder(String(path[..<slash])) }
        } catch {
            throw OpeningError("\(error).")
        }
        existed = access(path, F_OK) == 0
        lock = try DatabaseLock(database: path, for: .command)
        self.path = lock.database
        self.clock = clock
        folder = BackupFolder(setting: backupDirectory, database: lock.database)
    }

    // MARK: Backing up

    /// Makes a backup in the folder of the backups. The database is only read, and its schema may be an older one.
    /// - Throws: as ``BackupStore/createBackup()``; ``OpeningError``.
    public func createBackup(keep: Int, logger: Logger, progress: @escaping Progress) async throws -> Backup {
        let maker = BackupMaker(folder: folder, clock: clock, logger: logger)
        do {
            let backup = try await maker.make(databaseBytes: FileSystem.size(of: path) ?? 0, keep: keep) { partial in
                try copy(to: partial.path, progress)
                return clock.now()
            }
            await maker.close()
            return backup
        } catch {
            await maker.close()
            throw error
        }
    }

    private func copy(to copy: String, _ progress: Progress) throws {
        let connection = try Connection(path: path, mode: .reader)
        guard try Migrator().isOwn(connection) else {
            throw Failure(.databaseDamaged, "\(path) is not a database of Reprise.")
        }
        try connection.beginCopy(to: copy)
        while let copy = connection.copy, !copy.isComplete {
            try copy.advance(pages: Self.pagesPerReport)
            progress(copy.copiedPages, copy.allPages)
        }
        connection.endCopy()
    }

    private static let pagesPerReport = 4096

    /// The file that a command's argument means: a backup by its name, or any file by its path.
    public func file(meantBy argument: String) -> String {
        // Also without a sound file of facts, about which there is more to say than that there is no such backup.
        if !argument.contains("/"), let name = try? Name(argument, field: "name"),
            FileSystem.size(of: folder.file(of: name)) != nil
        {
            return folder.file(of: name)
        }
        return argument
    }

    /// The backups, the newest first.
    /// - Throws: ``RestoreError`` if the folder cannot be read.
    public func backups() throws -> [Backup] { try Self.backups(in: folder) }

    /// The path of their folder.
    public var backupFolder: String { folder.path }

    /// The backups of a database that may be lost, and the path of their folder.
    /// - Throws: ``RestoreError`` if the folder cannot be read.
    public static func backups(
        ofDatabase path: String, backupDirectory: String
    ) throws -> (backups: [Backup], folder: String) {
        let folder = BackupFolder(setting: backupDirectory, database: path)
        return (try backups(in: folder), folder.path)
    }

    private static func backups(in folder: BackupFolder) throws -> [Backup] {
        do {
            return try folder.backups().map(\.backup)
        } catch {
            throw RestoreError("\(error). Run this as a user who may, or correct backup_directory.")
        }
    }

    // MARK: Restoring

    /// Of the copy of a backup that is being restored.
    static let partialSuffix = ".restore-partial"

    public struct Restored: Sendable {
        public var sizeBytes: Int
        public var entityTag: EntityTag
        /// Where the database is that was there before; nil if there was none.
        public var keptPath: String?
        /// Whether the hash of the backup was known, and is the same.
        public var hadHash: Bool
    }

    /// Puts a copy of a backup in the place of the database.
    ///
    /// The copy is verified before anything of the old database is touched. Then both change places in one step, so a
    /// crash at any point leaves either the old or the new one, complete. The old one stays beside it under another
    /// name.
    /// - Parameter isForced: whether a database that is there may be replaced.
    /// - Throws: ``RestoreError``, after which the old database is as it was.
    public func restore(from source: String, isForced: Bool, progress: Progress) throws -> Restored {
        var isRestored = false
        // The lock has created it.
        defer { if !existed && !isRestored { unlink(path) } }
        try checkSource(source)
        let hadDatabase = (FileSystem.size(of: path) ?? 0) > 0
        guard !hadDatabase || isForced else {
            throw RestoreError(
                "there is a database at \(path). To replace it, add --force: it is kept beside the new one, under "
                    + "another name.")
        }
        let copy = path + Self.partialSuffix
        defer { unlink(copy) }
        let (entityTag, sizeBytes) = try makeCopy(of: source, at: copy, progress)
        try verify(copy, entityTag, of: source)
        try adoptOwner(of: hadDatabase ? path : FileSystem.folder(of: path), for: copy)
        let kept = path + ".replaced-" + clock.now().rfc3339.filter { $0 != "-" && $0 != ":" }
        try detachOldLog(movingTo: kept)
        let keptPath = try swap(copy, with: hadDatabase ? kept : nil)
        isRestored = true
        return Restored(
            sizeBytes: sizeBytes, entityTag: entityTag,
            keptPath: keptPath ?? (access(kept + "-wal", F_OK) == 0 ? kept + "-wal" : nil),
            hadHash: access(source + BackupFacts.suffix, F_OK) == 0)
    }

    private func checkSource(_ source: String) throws(RestoreError) {
        var given = stat()
        guard stat(source, &given) == 0, given.st_mode & S_IFMT == S_IFREG else {
            throw RestoreError(
                "there is no backup '\(source)', neither in \(folder.path) nor as a file. 'reprise backup list' lists "
                    + "the backups of a database; of another one, give the path.")
        }
        var own = stat()
        if stat(path, &own) == 0, own.st_ino == given.st_ino, own.st_dev == given.st_dev {
            throw RestoreError("\(source) is the database itself, not a backup of it.")
        }
        for suffix in ["-wal", "-journal"] where (FileSystem.size(of: source + suffix) ?? 0) > 0 {
            throw RestoreError(
                "\(source) has a log beside it (\(suffix)), so it is a database in use and not a backup: the "
                    + "newest commits are not in the file. Make a backup of it with 'reprise backup'.")
        }
    }

    private func makeCopy(
        of source: String, at copy: String, _ progress: Progress
    ) throws -> (entityTag: EntityTag, sizeBytes: Int) {
        let needed = FileSystem.size(of: source) ?? 0
        if let free = FreeSpace.bytes(at: FileSystem.folder(of: path)), free < needed {
            throw RestoreError(
                "the disk of \(path) has no room: the backup takes \(needed) bytes, and \(free) are free.")
        }
        return try copyFile(source, to: copy) { progress($0, needed) }
    }

    /// Copies a file and syncs the copy.
    private func copyFile(
        _ source: String, to copy: String, progress: (Int) -> Void = { _ in }
    ) throws -> (entityTag: EntityTag, sizeBytes: Int) {
        do {
            let file = try NewFile(copy)
            var done = 0
            let result = try BackupCheck(path: source).digest { bytes in
                try file.write(bytes)
                done += bytes.count
                progress(done)
            }
            try file.sync()
            return result
        } catch let error as FileError {
            throw RestoreError(error.description)
        }
    }

    private func verify(_ copy: String, _ entityTag: EntityTag, of source: String) throws {
        let facts = BackupFacts(contentsOf: source + BackupFacts.suffix)
        guard facts != nil || access(source + BackupFacts.suffix, F_OK) != 0 else {
            throw RestoreError(
                "\(source).json, which has the hash of the backup, is damaged. Choose another backup; or remove that "
                    + "file, and check the values of the restored database with 'reprise doctor --deep'.")
        }
        if let facts, facts.entityTag != entityTag {
            throw RestoreError(
                "\(source) is damaged: its SHA-256 is \(entityTag.hex), and it was \(facts.entityTag.hex) when it was "
                    + "made. Choose another backup.")
        }
        if let problem = try BackupCheck(path: copy).problem(forThisVersion: true) {
            throw RestoreError(
                "\(source) cannot be restored: \(problem.split(separator: "\n").joined(separator: " ")). Choose "
                    + "another backup: 'reprise backup list' lists them.")
        }
    }

    /// The server must be able to open the database, even if the command was run by root.
    private func adoptOwner(of model: String, for copy: String) throws(RestoreError) {
        var status = stat()
        guard stat(model, &status) == 0 else { return }
        if geteuid() == 0, chown(copy, status.st_uid, status.st_gid) != 0 {
            throw RestoreError(FileError("give \(copy) to the owner of \(model)").description)
        }
        if status.st_mode & S_IFMT == S_IFREG { chmod(copy, status.st_mode & 0o777) }
    }

    /// Makes the old database complete in one file, so that its log is not applied to the new one. If it is too damaged
    /// for that, or lost, its log is kept under another name, as it is.
    private func detachOldLog(movingTo kept: String) throws {
        let (log, keptLog) = (path + "-wal", kept + "-wal")
        // SQLite removes the log of a file that it takes for none of its own.
        if (FileSystem.size(of: log) ?? 0) > 0 { _ = try copyFile(log, to: keptLog) }
        if (FileSystem.size(of: path) ?? 0) > 0 {
            do {
                let old = try Connection(path: path, mode: .writer)
                try Migrator().checkOwnership(old)
                guard try old.checkpoint(.truncate) else { throw SQLiteError.busy }
                unlink(keptLog)
            } catch let error as OpeningError {
                unlink(keptLog)
                throw RestoreError("\(path): \(error.description)")
            } catch let error as SQLiteError where !error.isDamage {
                unlink(keptLog)
                throw RestoreError(
                    "\(path) cannot be closed properly (\(error.message)), so it was not replaced. End other programs "
                        + "that have it open, or move it away together with its -wal and -shm.")
            } catch is SQLiteError {
                // Nothing better can be done with a damaged file than to keep all of it.
            }
        }
        unlink(log)
        unlink(path + "-shm")
        try syncFolder()
    }

    /// - Parameter kept: the new name of the old database; nil if there is none.
    /// - Returns: where the old one is now.
    private func swap(_ copy: String, with kept: String?) throws -> String? {
        guard let kept else {
            guard rename(copy, path) == 0 else { throw RestoreError(FileError("rename \(copy)").description) }
            try syncFolder()
            return nil
        }
        guard rename(copy, kept) == 0 else { throw RestoreError(FileError("rename \(copy)").description) }
        try syncFolder()
        if reprise_exchange_files(kept, path) == 0 {
            try syncFolder()
            return kept
        }
        // A file system that cannot exchange files: the old one gets a second name before it loses the first.
        let old = kept + ".db"
        guard link(path, old) == 0, rename(kept, path) == 0 else {
            let error = FileError("put the backup in the place of \(path)")
            unlink(old)
            unlink(kept)
            throw RestoreError(error.description)
        }
        try syncFolder()
        return old
    }

    private func syncFolder() throws {
        do {
            try FileSystem.syncFolder(FileSystem.folder(of: path))
        } catch {
            throw RestoreError(error.description)
        }
    }
}

/// Why a backup was not restored, in words for an operator. Nothing was changed.
public struct RestoreError: Error, Sendable, CustomStringConvertible {
    public let description: String

    init(_ description: String) { self.description = description }
}
