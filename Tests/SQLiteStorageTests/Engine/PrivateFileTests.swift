// Files and folders that the service creates. Its umask is tested end to end, because a process has only one.

import Glibc
import TestSupport
import Testing

@testable import SQLiteStorage

struct PrivateFileTests {
    private let folder = TemporaryFolder()

    private func mode(_ name: String) -> mode_t? {
        var status = stat()
        return stat(folder.file(name), &status) == 0 ? status.st_mode & 0o777 : nil
    }

    @Test func aNewFileIsItsOwners() throws {
        try PrivateFile.createIfMissing(folder.file("new"))
        #expect(mode("new") == 0o600)
    }

    @Test func aFileThatExistsIsLeftAlone() throws {
        let path = try folder.write("text", to: "old")
        for given: mode_t in [0o400, 0o640, 0o644] {
            #expect(chmod(path, given) == 0)
            try PrivateFile.createIfMissing(path)
            #expect(mode("old") == given)
        }
        #expect(folder.contents("old") == Array("text".utf8))
    }

    @Test func newFoldersAreTheirOwnersAndOthersAreLeftAlone() throws {
        #expect(mkdir(folder.file("old"), 0o755) == 0 && chmod(folder.file("old"), 0o755) == 0)
        try PrivateFile.createFolder(folder.file("old/new/newer"))
        #expect(mode("old") == 0o755)
        #expect(mode("old/new") == 0o700 && mode("old/new/newer") == 0o700)
    }

    /// The user of the service could not use what root creates otherwise.
    @Test(.enabled(if: geteuid() == 0)) func whatRootCreatesBelongsToTheFoldersOwner() throws {
        #expect(chown(folder.file("."), 10_001, 10_002) == 0)
        try PrivateFile.createIfMissing(folder.file("new"))
        try PrivateFile.createFolder(folder.file("one/two"))
        for name in ["new", "one", "one/two"] {
            var status = stat()
            #expect(stat(folder.file(name), &status) == 0)
            #expect(status.st_uid == 10_001 && status.st_gid == 10_002, "\(name)")
        }
        // What is not the service's stays root's.
        _ = try NewFile(folder.file("export"), isOfService: false)
        var status = stat()
        #expect(stat(folder.file("export"), &status) == 0 && status.st_uid == 0)
    }

    @Test func whatCannotBeCreatedIsTold() {
        func message(_ body: () throws -> Void) -> String? {
            do {
                try body()
                return nil
            } catch {
                return "\(error)"
            }
        }
        #expect(
            message { try PrivateFile.createIfMissing("/nowhere/file") }
                == "cannot create the file /nowhere/file: No such file or directory")
        #expect(message { try PrivateFile.createFolder("/proc/nowhere") }?.contains("/proc/nowhere/") == true)
    }

    /// SQLite gives the log, its index and the lock the mode that the database was created with.
    @Test func allFilesOfAStorageAreItsOwners() async throws {
        let storage = try makeStorage(in: folder, clock: ManualClock())
        try await storage.put("key")
        for name in ["reprise.db", "reprise.db-wal", "reprise.db-shm", "reprise.db.lock"] {
            #expect(mode(name) == 0o600, "\(name)")
        }
        await storage.close()
    }
}
