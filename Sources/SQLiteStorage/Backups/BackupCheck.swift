// Whether a file is a sound database of this service, and what its bytes hash to.

import Crypto
import Domain
import Glibc

/// Reads a database file that nobody writes. Each call may take seconds for each gigabyte and ends early, with
/// `shutting_down`, when the signal is raised.
struct BackupCheck: Sendable {
    let path: String
    var signal = StopSignal()

    /// Turns a copied file into a complete one: a copy says that it has a write-ahead log beside it, as its original
    /// has.
    func detachFromLog() throws {
        let connection = try Connection(path: path, mode: .writer, watch: Watch(signal: signal))
        try connection.execute("PRAGMA synchronous = OFF")
        let mode = try connection.first("PRAGMA journal_mode = DELETE") { $0.text(0) }
        guard mode == "delete" else { throw SQLiteError.busy }
    }

    /// What is wrong with the database; nil if it is sound.
    ///
    /// It must be a database of this service, all its pages, rows and indexes must fit together, and all references
    /// must lead somewhere.
    /// - Parameter forThisVersion: whether this program must also know its schema.
    func problem(forThisVersion: Bool = false) throws -> String? {
        var mostBytes = 0
        let watch = Watch(signal: signal)
        do {
            return try Connection.withSandbox(
                memoryBytes: StorageLimits.maxBackupCheckBytes, watch: watch, mostBytes: &mostBytes
            ) {
                let connection = try Connection(path: path, mode: .immutable, watch: watch, isSandboxed: true)
                guard try Migrator().isOwn(connection) else { return "it is not a database of Reprise" }
                if let problem = try connection.first("PRAGMA integrity_check(1)", row: { $0.text(0) }),
                    problem != "ok"
                {
                    return problem
                }
                if let table = try connection.first("PRAGMA foreign_key_check", row: { $0.text(0) }) {
                    return "a row of \(table) refers to one that is missing"
                }
                if forThisVersion { _ = try Migrator().applied(connection) }
                return nil
            }
        } catch let error as OpeningError {
            return error.description
        } catch let error as SQLiteError where error.isDamage {
            return error.message
        } catch  where signal.isRaised {
            throw Failure.shuttingDown
        }
    }

    /// The SHA-256 of the file and its size.
    /// - Parameter each: gets all bytes, in order.
    func digest(
        passing each: (UnsafeRawBufferPointer) throws -> Void = { _ in }
    ) throws -> (entityTag: EntityTag, sizeBytes: Int) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError("open \(path)") }
        defer {
            // It is not read again soon, and should not displace the database from the system's memory.
            posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
            close(descriptor)
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(
            byteCount: StorageLimits.backupReadBytes, alignment: 4096)
        defer { buffer.deallocate() }
        var hasher = SHA256()
        var size = 0
        while true {
            guard !signal.isRaised else { throw Failure.shuttingDown }
            let count = read(descriptor, buffer.baseAddress, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw FileError("read \(path)") }
            if count == 0 { break }
            let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
            hasher.update(bufferPointer: bytes)
            try each(bytes)
            size += count
        }
        return (EntityTag(digest: Array(hasher.finalize())), size)
    }
}
