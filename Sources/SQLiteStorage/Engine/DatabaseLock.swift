// One process for one file.

import Domain
import Glibc

/// Holds `<database>.lock` until it is released or no longer used. The kernel releases it when the process ends,
/// however that happens, so a lock is never stale and its file may stay behind.
final class DatabaseLock: Sendable {
    /// The database's path without symbolic links. Its log and this lock are named after it, whatever path was given.
    let database: String
    private let descriptor: Int32
    /// The database itself, locked too: it can have other names that no path shows, such as that of a bind mount. Open
    /// for as long as SQLite has it open, because closing it would end SQLite's own locks on it.
    /// https://sqlite.org/howtocorrupt.html#posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    private let file: Int32

    /// - Throws: ``OpeningError`` naming the process that holds it, or saying why the path cannot be used.
    init(database given: String, for use: StorageUse = .server) throws(OpeningError) {
        let database = try Self.withoutLinks(given)
        self.database = database
        let path = database + ".lock"
        // A pipe would keep whoever opens it waiting.
        var kind = stat()
        guard stat(database, &kind) != 0 || kind.st_mode & S_IFMT == S_IFREG else {
            throw OpeningError("\(database) is a folder or a device. Give the path of a file with --database.")
        }
        do {
            // The database too: SQLite gives the log and its index the same mode.
            for file in [path, database] { try PrivateFile.createIfMissing(file) }
        } catch {
            throw OpeningError("\(error). The folder must be writable for the user with the id \(geteuid()).")
        }
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw OpeningError(
                "cannot open \(path): \(String(cString: strerror(errno))). It must be writable for the user with the "
                    + "id \(geteuid()).")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            // Examinations share the lock, and leave what the last holder wrote.
            let isExamined = flock(descriptor, LOCK_SH | LOCK_NB) == 0
            let holder = LockHolder(of: descriptor)
            close(descriptor)
            throw isExamined
                ? OpeningError("'reprise doctor' examines \(database). Wait until it has ended, or stop it.")
                : holder.refusal(of: database)
        }
        // Under another name SQLite would keep another log, and the file would be damaged.
        // https://sqlite.org/howtocorrupt.html#unlinking_or_renaming_a_database_file_while_in_use
        var status = stat()
        if stat(database, &status) == 0, status.st_nlink > 1 {
            close(descriptor)
            throw OpeningError(
                "\(database) has \(status.st_nlink) names (hard links), and servers that use different ones would "
                    + "damage it. Remove the other links, or copy the file.")
        }
        // Where this fails, SQLite says why it does. On Linux these locks and SQLite's do not see each other.
        let file = open(database, O_RDONLY | O_CLOEXEC)
        if file >= 0, flock(file, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK {
            close(file)
            close(descriptor)
            throw OpeningError(
                "another reprise serves \(database) under another name. Stop it, or choose another --database.")
        }
        (self.descriptor, self.file) = (descriptor, file)
        // In this order, so that the id can be replaced on a full disk.
        let text = LockHolder(process: getpid(), use: use).text
        _ = text.withCString { pwrite(descriptor, $0, strlen($0), 0) }
        ftruncate(descriptor, off_t(text.utf8.count))
    }

    /// What every database begins with, before a zero byte. https://sqlite.org/fileformat.html#magic_header_string
    private static let header = "SQLite format 3"

    /// Looks at the first bytes of the database, which may be empty. SQLite would take a file that is shorter than its
    /// header for an empty database. Where a log or journal lies beside the file, SQLite is asked instead: after a
    /// power cut, the first page may be found there.
    /// - Throws: ``OpeningError`` if it is another kind of file.
    func checkHeader() throws(OpeningError) {
        for suffix in ["-wal", "-journal"] {
            var status = stat()
            if stat(database + suffix, &status) == 0, status.st_size > 0 { return }
        }
        var bytes = [UInt8](repeating: 0, count: Self.header.utf8.count)
        let length = pread(file, &bytes, bytes.count, 0)
        guard length <= 0 || bytes.elementsEqual(Self.header.utf8) else {
            throw OpeningError(
                "\(database) is not an SQLite database. Choose another --database, or restore a backup.")
        }
    }

    /// The path with all symbolic links resolved; the file itself need not exist yet.
    private static func withoutLinks(_ path: String) throws(OpeningError) -> String {
        if let real = resolved(path) { return real }
        var status = stat()
        if lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK {
            throw OpeningError(
                "\(path) is a symbolic link to a file that does not exist. Create the file, or remove the link.")
        }
        guard let slash = path.lastIndex(of: "/") else { return (resolved(".") ?? ".") + "/" + path }
        guard let folder = resolved(String(path[...slash])) else { return path }
        return (folder == "/" ? "" : folder) + path[slash...]
    }

    private static func resolved(_ path: String) -> String? {
        guard let real = realpath(path, nil) else { return nil }
        defer { free(real) }
        return String(cString: real)
    }

    // Runs when `init` throws, too. If it were closed twice, the descriptor could be another file's by then.
    deinit {
        close(descriptor)
        if file >= 0 { close(file) }
    }

    /// Releases the file for another server.
    func release() {
        flock(descriptor, LOCK_UN)
        if file >= 0 { flock(file, LOCK_UN) }
    }
}

/// Who holds the lock on a database.
struct LockHolder: Sendable, Equatable {
    /// nil if the file does not say: its holder has only just locked it.
    var process: Int32?
    var use: StorageUse

    /// What is written into the lock file: `1234 server`.
    var text: String { "\(process.map { "\($0)" } ?? "") \(use.rawValue)" }

    init(process: Int32?, use: StorageUse) {
        self.process = process
        self.use = use
    }

    /// Reads what the holder has written. One that has written nothing is taken for a server.
    init(of descriptor: Int32) {
        var buffer = [UInt8](repeating: 0, count: 40)
        let count = pread(descriptor, &buffer, buffer.count, 0)
        let words = buffer.prefix(max(count, 0)).split(separator: UInt8(ascii: " ")).map {
            String(decoding: $0, as: UTF8.self)
        }
        process = words.first.flatMap { Int32($0) }
        use = words.dropFirst().first.flatMap(StorageUse.init) ?? .server
    }

    fileprivate func refusal(of database: String) -> OpeningError {
        let name = process.map { " (process \($0))" } ?? ""
        return switch use {
        case .server:
            OpeningError(
                "another reprise\(name) serves \(database). Stop it, or choose another --database.",
                isHeldByServer: true)
        case .command:
            OpeningError("a command of reprise\(name) works on \(database). Wait until it has ended, or stop it.")
        }
    }
}
