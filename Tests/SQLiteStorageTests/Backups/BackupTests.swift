// Backups as files: what is in them while others write, what is beside them, what crashes leave.

import Domain
import FoundationEssentials
import Glibc
import TestSupport
import Testing

@testable import SQLiteStorage

struct BackupTests {
    private let folder = TemporaryFolder()
    private let clock = ManualClock()

    private func withStorage(
        settings: LiveSettings = LiveSettings(.quick), _ body: (SQLiteStorage) async throws -> Void
    ) async throws {
        let storage = try makeStorage(in: folder, clock: clock, settings: settings)
        do {
            try await body(storage)
        } catch {
            await storage.close()
            throw error
        }
        await storage.close()
    }

    /// Opens a copy of a backup as a database of its own.
    private func opening<T: Sendable>(_ backup: Backup, _ body: (SQLiteStorage) async throws -> T) async throws -> T {
        let other = TemporaryFolder()
        try FileManager.default.copyItem(
            atPath: folder.file("backups/\(backup.name)"), toPath: other.file("reprise.db"))
        let storage = try makeStorage(in: other, clock: clock)
        let result = try await body(storage)
        await storage.close()
        return result
    }

    /// Not even root can remove a folder like a file.
    @Test func whatCannotBeRemovedIsTold() throws {
        let backups = BackupFolder(setting: folder.file("backups"), database: folder.file("reprise.db"))
        let name = Name(stored: "reprise-20261123T071400.123Z.db")
        try PrivateFile.createFolder(backups.file(of: name))
        #expect(throws: FileError.self) { try backups.remove(name) }
        #expect(try backups.backups().isEmpty)
        #expect(throws: FileError.self) {
            try BackupFolder(setting: "/proc/self/exe", database: folder.file("reprise.db")).backups()
        }
    }

    /// A copy that a killed restore left would take as much space as the database.
    @Test func aStartRemovesWhatAKilledRestoreLeft() async throws {
        let left = try folder.write("part", to: "reprise.db" + StoppedDatabase.partialSuffix)
        try await withStorage { _ in }
        #expect(access(left, F_OK) != 0)
    }

    private var names: Set<String> {
        Set((try? FileManager.default.contentsOfDirectory(atPath: folder.file("backups"))) ?? [])
    }

    /// Values that make a copy take many steps.
    private func fill(_ storage: SQLiteStorage) async throws {
        for number in 0..<128 {
            try await storage.put("filling-\(number)", [UInt8](repeating: UInt8(number), count: 60_000))
        }
    }

    // MARK: What is in them

    /// Each writer writes pairs, in order, and each pair in one transaction.
    @Test func everyBackupUnderWritesIsAPrefixOfWhatWasWritten() async throws {
        let writers = 4
        try await withStorage { storage in
            try await fill(storage)
            let written = Shared(Array(repeating: 0, count: writers))
            let made = try await withThrowingTaskGroup(of: [(Backup, [Int])].self) { group in
                for writer in 0..<writers {
                    group.addTask {
                        var number = 0
                        while !Task.isCancelled {
                            let operations = ["a", "b"].map { half in
                                CacheOperation.set(
                                    CacheWrite("\(half)-\(writer)-\(number)", Array("\(number)".utf8)))
                            }
                            _ = try await storage.batch(operations, namespace: .n, atomic: true)
                            number += 1
                            written.change { $0[writer] += 1 }
                        }
                        return []
                    }
                }
                group.addTask {
                    var made: [(Backup, [Int])] = []
                    for _ in 0..<3 {
                        let before = written.value
                        made.append((try await storage.createBackup(), before))
                    }
                    return made
                }
                for try await made in group where !made.isEmpty {
                    group.cancelAll()
                    return made
                }
                return []
            }
            #expect(made.count == 3)
            for (backup, before) in made {
                let counts = try await opening(backup) { restored in
                    var counts: [Int] = []
                    for writer in 0..<writers {
                        var count = 0
                        while await restored.missReason("a-\(writer)-\(count)") == nil {
                            #expect(try await restored.text("b-\(writer)-\(count)") == "\(count)")
                            count += 1
                        }
                        #expect(await restored.missReason("b-\(writer)-\(count)") != nil)
                        // Nothing beyond the first gap.
                        let all = try await restored.namespace(.n).entryCount
                        counts.append(count)
                        if writer == writers - 1 { #expect(all == 128 + 2 * counts.reduce(0, +)) }
                    }
                    return counts
                }
                for (count, least) in zip(counts, before) { #expect(count >= least) }
            }
        }
    }

    @Test func whatIsRolledBackMeanwhileNeitherShowsNorStartsTheCopyAnew() async throws {
        try await withStorage { storage in
            try await fill(storage)
            let path = folder.file("copy.db")
            try await storage.writer.performOutsideTransaction { connection in
                try connection.beginCopy(to: path)
                try connection.copy!.advance(pages: 500)
            }
            for number in 0..<20 {
                // Pages that are copied already, and pages that are not.
                await #expect(throws: CancellationError.self) {
                    try await storage.writer.perform { connection in
                        try connection.run("UPDATE cache_entries SET hit_count = hit_count + 1")
                        throw CancellationError()
                    }
                }
                try await storage.put("between-\(number)")
                let restarts = try await storage.writer.performOutsideTransaction { connection in
                    try connection.copy!.advance(pages: 20)
                    return connection.copy!.restarts
                }
                #expect(restarts == 0)
            }
            try await storage.writer.performOutsideTransaction { connection in
                while !connection.copy!.isComplete { try connection.copy!.advance(pages: 1000) }
                connection.endCopy()
            }
            let check = BackupCheck(path: path)
            try check.detachFromLog()
            #expect(try check.problem(forThisVersion: true) == nil)
            let copy = try Connection(path: path, mode: .immutable)
            let counts = try copy.first("SELECT sum(hit_count), count(*) FROM cache_entries") {
                [$0.int(0), $0.int(1)]
            }
            #expect(counts == [0, 148])
        }
    }

    @Test func theLogStaysShortWhileABackupIsMade() async throws {
        try await withStorage { storage in
            try await fill(storage)
            let log = folder.file("reprise.db-wal")
            let longest = try await withThrowingTaskGroup(of: Int?.self) { group in
                group.addTask {
                    var longest = 0
                    for number in 0... {
                        if Task.isCancelled { break }
                        try await storage.put("writing-\(number % 64)", [UInt8](repeating: 7, count: 60_000))
                        longest = max(longest, FileSystem.size(of: log) ?? 0)
                    }
                    return longest
                }
                group.addTask {
                    for _ in 0..<3 { _ = try await storage.createBackup() }
                    return nil
                }
                var longest = 0
                for try await found in group {
                    group.cancelAll()
                    longest = max(longest, found ?? 0)
                }
                return longest
            }
            // A group of writes may come on top of the pages that are written back.
            #expect(longest < 4096 * StorageLimits.checkpointPages + 4 * StorageLimits.maxGroupBytes)
        }
    }

    // MARK: The files

    @Test func aBackupIsOneFileThatNeedsNoLog() async throws {
        try await withStorage { storage in
            try await storage.put("key")
            let backup = try await storage.createBackup()
            #expect(names == ["\(backup.name)", "\(backup.name).json"])
            let bytes = try #require(folder.contents("backups/\(backup.name)"))
            // The versions of the file format: 1 for a rollback journal, 2 for a log.
            #expect(bytes[18...19] == [1, 1])
            for name in ["backups", "backups/\(backup.name)", "backups/\(backup.name).json"] {
                var status = stat()
                #expect(stat(folder.file(name), &status) == 0)
                #expect(status.st_mode & 0o777 == (name == "backups" ? 0o700 : 0o600), "\(name)")
            }
            #expect(try await opening(backup) { try await $0.text("key") } == "value")
        }
    }

    @Test func theFolderIsTheOneThatTheSettingNames() async throws {
        for (setting, place) in [("copies/daily", "copies/daily"), (folder.file("elsewhere"), "elsewhere")] {
            let settings = Settings.with(.backupDirectory, .text(setting))
            try await withStorage(settings: settings) { storage in
                let backup = try await storage.createBackup()
                #expect(access(folder.file("\(place)/\(backup.name)"), F_OK) == 0)
            }
        }
    }

    @Test func whatACrashLeftIsRemovedAndWhatIsBeingMadeIsNot() async throws {
        #expect(mkdir(folder.file("backups"), 0o700) == 0)
        let left = ["reprise-1.partial", "reprise-1.partial-journal", "reprise-2.db.json"]
        let others = ["notes.txt", "reprise-3.db", "other.db.json"]
        for name in left + others { _ = try folder.write("text", to: "backups/\(name)") }
        do {
            let held = open(folder.file("backups/reprise-1.partial"), O_RDWR)
            #expect(flock(held, LOCK_EX | LOCK_NB) == 0)
            try await withStorage { storage async throws in
                #expect(names == Set(left + others))
                #expect(try await storage.backups(before: nil, limit: 10).isEmpty)
            }
            close(held)
        }
        try await withStorage { _ in #expect(names == Set(others)) }
    }

    @Test func aFileOfAnotherSizeThanItsFactsIsNoBackup() async throws {
        try await withStorage { storage in
            let first = try await storage.createBackup()
            let second = try await storage.createBackup()
            #expect(truncate(folder.file("backups/\(first.name)"), 100) == 0)
            #expect(unlink(folder.file("backups/\(second.name).json")) == 0)
            #expect(try await storage.backups(before: nil, limit: 10).isEmpty)
            #expect(await code { try await storage.openBackup(first.name) } == .backupNotFound)
        }
    }

    /// Two services may share a folder: neither removes what is the other's.
    @Test func backupsOfAnotherDatabaseAreListedAndKept() async throws {
        let settings = Settings.with(.backupKeep, .integer(1))
        try await withStorage(settings: settings) { storage in
            let other = try await storage.createBackup()
            let facts = folder.file("backups/\(other.name).json")
            let text = String(decoding: folder.contents("backups/\(other.name).json")!, as: UTF8.self)
            #expect(text.contains("\"database\":\""))
            let moved = text.replacing("reprise.db\",", with: "other.db\",")
            try Data(moved.utf8).write(to: URL(filePath: facts))
            var made: [Backup] = []
            for _ in 0..<3 { made.append(try await storage.createBackup()) }
            #expect(try await storage.backups(before: nil, limit: 10) == [made[2], other])
        }
    }

    // MARK: Failures

    @Test func aDatabaseThatIsDamagedIsNotBackedUp() async throws {
        try await withStorage { try await fill($0) }
        let descriptor = open(folder.file("reprise.db"), O_RDWR)
        let pages = folder.size("reprise.db") / 4096
        let damage = [UInt8](repeating: 0xFF, count: 16)
        // Most are pages that only the values are in, and which are not read at the start.
        for page in pages / 4..<pages / 2 { pwrite(descriptor, damage, damage.count, off_t(page * 4096)) }
        close(descriptor)
        try await withStorage { storage in
            #expect(await code { try await storage.createBackup() } == .databaseDamaged)
            #expect(names == [])
            #expect(storage.backupMaker.figures.failures == 1 && !storage.backupMaker.isRunning)
        }
    }

    @Test func aDiskWithoutRoomIsToldBeforeTheCopy() async throws {
        try await withStorage { storage in
            let failure = await failure {
                try await storage.backupMaker.make(databaseBytes: 1 << 60, keep: 1) { _ in
                    Issue.record("the copy was begun")
                    return clock.now
                }
            }
            #expect(failure?.code == .storageFull)
            #expect(failure?.detail.contains("\(1 << 60 + StorageLimits.backupSpareBytes) bytes") == true)
            #expect(failure?.detail.contains("backup_directory") == true)
            #expect(names == [])
        }
    }

    @Test func aFolderThatCannotBeUsedIsTold() async throws {
        let settings = Settings.with(.backupDirectory, .text("/proc/backups"))
        try await withStorage(settings: settings) { storage in
            let failure = await failure { try await storage.createBackup() }
            #expect(failure?.code == .storageUnavailable && failure?.detail.contains("backup_directory") == true)
        }
    }

    @Test func aShutdownEndsTheBackupAndLeavesNothing() async throws {
        let storage = try makeStorage(in: folder, clock: clock)
        try await fill(storage)
        let failure = await failure {
            try await storage.backupMaker.make(databaseBytes: 0, keep: 1) { partial in
                let path = partial.path
                try await storage.writer.performOutsideTransaction { try $0.beginCopy(to: path) }
                storage.endLongReads()
                _ = try await storage.writer.performOutsideTransaction { try $0.copy!.advance(pages: 10) }
                throw Failure.shuttingDown
            }
        }
        #expect(failure?.code == .shuttingDown)
        #expect(storage.backupMaker.figures.failures == 0)
        await storage.close()
        #expect(names == [])
    }

    @Test func aCheckEndsWithTheSignal() async throws {
        try await withStorage { storage in
            try await fill(storage)
            let backup = try await storage.createBackup()
            let check = BackupCheck(path: folder.file("backups/\(backup.name)"))
            #expect(try check.problem() == nil)
            #expect(try check.digest().entityTag == backup.entityTag)
            check.signal.raise()
            #expect(throws: Failure.shuttingDown) { try check.problem() }
            #expect(throws: Failure.shuttingDown) { try check.digest() }
        }
    }
}
