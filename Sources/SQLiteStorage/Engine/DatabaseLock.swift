// One server for one file.

import Glibc

/// Holds `<database>.lock` until it is released or no longer used. The kernel releases it when the process ends,
/// however that happens, so a lock is never stale and its file may stay behind.
final class DatabaseLock: Sendable {
    /// The database's path without symbolic links. Its log and this lock are named after it, whatever path was given.
    let database: String
    private let descriptor: Int32

    /// - Throws: ``OpeningError`` naming the process that holds it, or saying why the path cannot be used.
    init(database given: String) throws(OpeningError) {
        let database = try Self.withoutLinks(given)
        self.database = database
        let path = database + ".lock"
        do {
            try PrivateFile.createIfMissing(path)
        } catch {
            throw OpeningError("\(error). Is the folder writable?")
        }
        descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw OpeningError("cannot open \(path): \(String(cString: strerror(errno))). Is the folder writable?")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let holder = Self.contents(of: descriptor)
            throw OpeningError(
                "another reprise\(holder.isEmpty ? "" : " (process \(holder))") serves \(database). "
                    + "Stop it, or choose another --database.", isHeldByServer: true)
        }
        // Under another name SQLite would keep another log, and the file would be damaged.
        // https://sqlite.org/howtocorrupt.html#unlinking_or_renaming_a_database_file_while_in_use
        var status = stat()
        if stat(database, &status) == 0, status.st_nlink > 1 {
            throw OpeningError(
                "\(database) has \(status.st_nlink) names (hard links), and servers that use different ones would "
                    + "damage it. Remove the other links, or copy the file.")
        }
        ftruncate(descriptor, 0)
        let text = "\(getpid())"
        _ = text.withCString { pwrite(descriptor, $0, strlen($0), 0) }
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
        if descriptor >= 0 { close(descriptor) }
    }

    /// Releases the file for another server.
    func release() { flock(descriptor, LOCK_UN) }

    private static func contents(of descriptor: Int32) -> String {
        var buffer = [UInt8](repeating: 0, count: 20)
        let count = pread(descriptor, &buffer, buffer.count, 0)
        return String(decoding: buffer.prefix(max(count, 0)), as: UTF8.self)
    }
}
