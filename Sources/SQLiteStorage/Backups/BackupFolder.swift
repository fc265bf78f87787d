// Where backups are: one file for each, and beside it one with the facts about it.

import Domain
import FoundationEssentials
import Glibc
import Synchronization

/// The folder of the backups.
///
/// A backup is `reprise-<instant>.db`, and `reprise-<instant>.db.json` holds what the file itself cannot: its hash, and
/// how long it took. Only a pair of both is a backup. While one is made, it is a *partial* file, which its maker locks;
/// a partial that nobody locks was left behind by a crash and is removed.
struct BackupFolder: Sendable {
    let path: String
    /// The database whose backups are made here. Others may share the folder; their backups are listed, but not removed
    /// to make room.
    let database: String

    private static let prefix = "reprise-"
    private static let suffix = ".db"
    private static let partialInfix = ".partial"

    /// - Parameters:
    ///   - setting: the setting `backup_directory`; a relative path begins at the folder of the database.
    ///   - database: the path of the database, without symbolic links.
    init(setting: String, database: String) {
        let home = database.lastIndex(of: "/").map { database[...$0] } ?? "./"
        path = setting.hasPrefix("/") ? setting : home + setting
        self.database = database
    }

    /// The path of a backup, whether it is there or not.
    func file(of name: Name) -> String { "\(path)/\(name)" }

    // MARK: What is there

    /// In descending order of their names. None if there is no folder.
    /// - Throws: ``FileError`` if the folder cannot be read.
    func backups() throws(FileError) -> [(backup: Backup, database: String)] {
        try contents().filter(Self.isName).sorted(by: >).compactMap { facts(of: $0) }
    }

    /// Those of this database.
    func ownBackups() throws(FileError) -> [Backup] {
        try backups().filter { $0.database == database }.map(\.backup)
    }

    /// - Throws: `backup_not_found`.
    func backup(_ name: Name) throws(Failure) -> Backup {
        guard Self.isName(name.rawValue), let facts = facts(of: name.rawValue) else {
            throw Failure(.backupNotFound, "There is no backup with this name. GET /v1/backups lists them.")
        }
        return facts.backup
    }

    private func contents() throws(FileError) -> [String] {
        guard let stream = opendir(path) else {
            if errno == ENOENT { return [] }
            throw FileError("read the folder \(path)")
        }
        closedir(stream)
        return (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    }

    private static func isName(_ text: String) -> Bool {
        text.hasPrefix(prefix) && text.hasSuffix(suffix) && !text.contains(partialInfix)
            && (try? Name(text, field: "name")) != nil
    }

    /// What is known about a backup; nil if the file with the facts is missing or damaged, or tells of another size
    /// than the backup has.
    private func facts(of name: String) -> (backup: Backup, database: String)? {
        guard let size = FileSystem.size(of: "\(path)/\(name)"),
            let facts = BackupFacts(contentsOf: factsPath(of: name)), facts.sizeBytes == size
        else { return nil }
        return (facts.backup(named: Name(stored: name)), facts.database)
    }

    private func factsPath(of name: String) -> String { "\(path)/\(name)\(BackupFacts.suffix)" }

    // MARK: Making one

    /// Creates the folder, if it is missing, and an empty partial file in it.
    /// - Throws: ``FileError``.
    func beginPartial(now: Instant) throws -> PartialBackup {
        try PrivateFile.createFolder(path)
        for number in 0..<100 {
            let stem = Self.prefix + Self.stamp(now.advanced(milliseconds: Int64(number)))
            if let partial = try PartialBackup(path: "\(path)/\(stem)\(Self.partialInfix)") { return partial }
        }
        throw FileError(EEXIST, "create a file in \(path)")
    }

    /// Makes a complete and synced partial file a backup.
    /// - Throws: ``FileError``.
    func publish(_ partial: PartialBackup, _ facts: BackupFacts) throws -> Backup {
        var instant = facts.createdAt
        var name: String
        repeat {
            name = Self.prefix + Self.stamp(instant) + Self.suffix
            instant = instant.advanced(milliseconds: 1)
        } while access(file(of: Name(stored: name)), F_OK) == 0
        let factsPath = factsPath(of: name)
        do {
            try facts.write(to: factsPath)
            // From here on it is a backup.
            try partial.publish(as: "\(path)/\(name)")
            try FileSystem.syncFolder(path)
        } catch {
            unlink(factsPath)
            unlink("\(path)/\(name)")
            throw error
        }
        return facts.backup(named: Name(stored: name))
    }

    /// `20261123T071400.123Z`: of the same length for every instant, so that names sort by it.
    private static func stamp(_ instant: Instant) -> String {
        String(instant.rfc3339.filter { $0 != "-" && $0 != ":" })
    }

    // MARK: Removing

    /// Removes a backup. It is gone from every list before its space is.
    /// - Throws: ``FileError`` if it is still there.
    func remove(_ name: Name) throws(FileError) {
        for path in [file(of: name), factsPath(of: name.rawValue)] where unlink(path) != 0 && errno != ENOENT {
            throw FileError("remove \(path)")
        }
    }

    /// Removes the oldest backups of this database beyond the newest `count`, but not the one named.
    /// - Returns: those removed.
    /// - Throws: ``FileError`` if one could not be removed.
    func removeExcess(keeping count: Int, and kept: Name) throws(FileError) -> [Name] {
        let others = try ownBackups().map(\.name).filter { $0 != kept }
        let excess = Array(others.dropFirst(max(count - 1, 0)))
        for name in excess { try remove(name) }
        return excess
    }

    /// Removes what crashes have left behind.
    /// - Returns: the names of the files removed.
    func removeLeftovers() -> [String] {
        let contents = (try? contents()) ?? []
        var removed: [String] = []
        let partials = contents.filter { $0.hasPrefix(Self.prefix) && $0.contains(Self.partialInfix) }
        for name in partials where name.hasSuffix(Self.partialInfix) {
            // Another service is making it.
            guard PartialBackup.isAbandoned("\(path)/\(name)") else { return removed }
        }
        let there = Set(contents)
        let orphans = contents.filter { name in
            name.hasSuffix(Self.suffix + BackupFacts.suffix) && name.hasPrefix(Self.prefix)
                && !there.contains(String(name.dropLast(BackupFacts.suffix.count)))
        }
        for name in partials + orphans where unlink("\(path)/\(name)") == 0 { removed.append(name) }
        return removed
    }
}

/// A backup that is being made. Removed with the last reference at the latest, unless it was published.
final class PartialBackup: Sendable {
    let path: String
    /// Whether it has its final name, or is removed. Another may have the old one by now.
    private let isGone = Atomic(false)
    private let descriptor: Int32

    /// - Returns: nil if there is a file with this name.
    /// - Throws: ``FileError``.
    init?(path: String) throws(FileError) {
        self.path = path
        guard let descriptor = try PrivateFile.create(path) else { return nil }
        self.descriptor = descriptor
        // Marks it as being made. SQLite's own locks are of another kind, and do not meet this one.
        flock(descriptor, LOCK_EX | LOCK_NB)
    }

    deinit {
        remove()
        close(descriptor)
    }

    /// Removes the file, unless it was published.
    func remove() {
        guard !isGone.exchange(true, ordering: .relaxed) else { return }
        for suffix in ["", "-journal", "-wal", "-shm"] { unlink(path + suffix) }
    }

    /// Gives the file its final name.
    func publish(as name: String) throws(FileError) {
        guard rename(path, name) == 0 else { throw FileError("rename \(path)") }
        isGone.store(true, ordering: .relaxed)
    }

    /// Whether nobody is making the partial file with this path.
    static func isAbandoned(_ path: String) -> Bool {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        // Of what cannot be opened, nobody knows.
        guard descriptor >= 0 else { return errno == ENOENT }
        defer { close(descriptor) }
        return flock(descriptor, LOCK_EX | LOCK_NB) == 0
    }

    /// Returns once everything written so far is on disk.
    func sync() throws(FileError) {
        guard fsync(descriptor) == 0 else { throw FileError("sync \(path)") }
    }
}
