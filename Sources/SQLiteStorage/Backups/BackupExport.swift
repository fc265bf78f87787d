// A backup that is written to a file of the caller's choice.

import Crypto
import Domain
import Glibc
import Synchronization

/// Writes a new file, which appears under its name only when it is complete and its hash is the right one.
public final class BackupExport: Sendable {
    private let path: String
    private let partial: String
    private let descriptor: Int32
    private let hasher = Mutex(SHA256())

    /// - Throws: ``RestoreError`` if the file exists or cannot be created.
    public init(path: String) throws {
        self.path = path
        partial = path + ".partial"
        guard access(path, F_OK) != 0 else {
            descriptor = -1
            throw RestoreError("\(path) exists. Remove it, or choose another name.")
        }
        unlink(partial)
        descriptor = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, PrivateFile.mode)
        guard descriptor >= 0 else { throw RestoreError(FileError(errno, "create \(partial)").description) }
        fchmod(descriptor, PrivateFile.mode)
    }

    deinit {
        guard descriptor >= 0 else { return }
        close(descriptor)
        unlink(partial)
    }

    /// - Throws: ``RestoreError``.
    public func write(_ bytes: UnsafeRawBufferPointer) throws {
        hasher.withLock { $0.update(bufferPointer: bytes) }
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw RestoreError(FileError(errno, "write \(partial)").description) }
            rest = rest.dropFirst(count)
        }
    }

    /// Copies a whole file.
    public func write(contentsOf source: String, progress: (Int) -> Void) throws {
        var done = 0
        _ = try BackupCheck(path: source).digest { bytes in
            try write(bytes)
            done += bytes.count
            progress(done)
        }
    }

    /// Ends the file.
    /// - Throws: ``RestoreError`` if its bytes are not those of the backup; nothing remains then.
    public func finish(expecting entityTag: EntityTag) throws {
        let written = EntityTag(digest: Array(hasher.withLock { $0.finalize() }))
        guard written == entityTag else {
            throw RestoreError(
                "the SHA-256 of the copy is \(written.hex), and that of the backup was \(entityTag.hex): the backup or "
                    + "the connection is damaged.")
        }
        guard fsync(descriptor) == 0, rename(partial, path) == 0 else {
            throw RestoreError(FileError(errno, "complete \(path)").description)
        }
        // Whoever cannot sync the folder has the file all the same.
        try? BackupFolder.syncFolder(path.lastIndex(of: "/").map { String(path[...$0]) } ?? ".")
    }
}
