// One server for one file.

import Glibc

/// Holds `<database>.lock` until it is released or no longer used. The kernel lets go of it with the process, however
/// that ends, so a lock is never stale and its file may stay behind.
final class DatabaseLock: Sendable {
    private let descriptor: Int32

    /// - Throws: ``OpeningError`` naming the process that holds it.
    init(database: String) throws(OpeningError) {
        let path = database + ".lock"
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw OpeningError("cannot create \(path): \(String(cString: strerror(errno))). Is the folder writable?")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let holder = Self.contents(of: descriptor)
            throw OpeningError(
                "another reprise\(holder.isEmpty ? "" : " (process \(holder))") serves \(database). "
                    + "Stop it, or choose another --database.")
        }
        ftruncate(descriptor, 0)
        let text = "\(getpid())"
        _ = text.withCString { pwrite(descriptor, $0, strlen($0), 0) }
    }

    // Runs when `init` throws, too. Closed twice, the number could be another file's by then.
    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// Lets another server have the file.
    func release() { flock(descriptor, LOCK_UN) }

    private static func contents(of descriptor: Int32) -> String {
        var buffer = [UInt8](repeating: 0, count: 20)
        let count = pread(descriptor, &buffer, buffer.count, 0)
        return String(decoding: buffer.prefix(max(count, 0)), as: UTF8.self)
    }
}
