// A backup that is written to a file of the caller's choice.

import Crypto
import Domain
import Glibc
import Synchronization

/// Writes a new file, which appears under its name only when it is complete and its hash is the right one.
public final class BackupExport: Sendable {
    private let path: String
    private let file: NewFile
    private let hasher = Mutex(SHA256())

    /// - Throws: ``RestoreError`` if the file exists or cannot be created.
    public init(path: String) throws {
        for file in [path, path + BackupFacts.suffix] where access(file, F_OK) == 0 {
            throw RestoreError("\(file) exists, and nothing that exists is overwritten. Choose another name.")
        }
        self.path = path
        do {
            // Whoever owns the folder must not be able to read it for that reason.
            file = try NewFile(path + ".partial", isOfService: false)
        } catch {
            throw RestoreError(error.description)
        }
    }

    deinit { unlink(file.path) }

    /// - Throws: ``RestoreError``.
    public func write(_ bytes: UnsafeRawBufferPointer) throws {
        hasher.withLock { $0.update(bufferPointer: bytes) }
        do {
            try file.write(bytes)
        } catch {
            throw RestoreError(error.description)
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

    /// Ends the file, and writes the facts about the backup beside it, with which a restore verifies it.
    /// - Throws: ``RestoreError`` if its bytes are not those of the backup; nothing remains then.
    public func finish(_ backup: Backup) throws {
        let written = EntityTag(digest: Array(hasher.withLock { $0.finalize() }))
        guard written == backup.entityTag else {
            throw RestoreError(
                "the SHA-256 of the copy is \(written.hex), and that of the backup was \(backup.entityTag.hex): the "
                    + "backup or the connection is damaged.")
        }
        do throws(FileError) {
            try file.sync()
            try BackupFacts(backup, database: "").write(to: path + BackupFacts.suffix, isOfService: false)
            guard rename(file.path, path) == 0 else { throw FileError("rename \(file.path)") }
        } catch {
            unlink(path + BackupFacts.suffix)
            throw RestoreError(error.description)
        }
        // Whoever cannot sync the folder has the file all the same.
        try? FileSystem.syncFolder(FileSystem.folder(of: path))
    }
}
