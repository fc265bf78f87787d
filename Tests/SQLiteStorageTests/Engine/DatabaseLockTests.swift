// One server per file.

import Domain
import FoundationEssentials
import Glibc
import TestSupport
import Testing

@testable import SQLiteStorage

struct DatabaseLockTests {
    private let folder = TemporaryFolder()

    private func message(_ body: () throws -> Void) -> String? {
        do {
            try body()
            return nil
        } catch {
            return (error as? OpeningError)?.description
        }
    }

    @Test func theSecondIsToldWhoHoldsIt() throws {
        let path = folder.file("test.db")
        let first = try DatabaseLock(database: path)
        let refusal = message { _ = try DatabaseLock(database: path) }
        #expect(refusal?.contains("process \(getpid())") == true)
        #expect(refusal?.contains(path) == true)
        withExtendedLifetime(first) {}
    }

    @Test(arguments: [
        (StorageUse.server, true, "serves"), (.command, false, "a command of reprise (process \(getpid()))"),
    ])
    func theSecondIsToldWhatItIsHeldFor(use: StorageUse, isServer: Bool, words: String) throws {
        let path = folder.file("test.db")
        let first = try DatabaseLock(database: path, for: use)
        let refusal = #expect(throws: OpeningError.self) { try DatabaseLock(database: path) }
        #expect(refusal?.isHeldByServer == isServer)
        #expect(refusal?.description.contains(words) == true)
        let claim = FileClaim(path: path)
        #expect(claim.isHeld)
        #expect(claim.isServed == isServer)
        withExtendedLifetime(first) {}
    }

    /// It says nothing about itself, and the file still names the last holder, which is gone.
    @Test func anExaminationIsNoServer() throws {
        let path = folder.file("test.db")
        do { _ = try DatabaseLock(database: path) }
        let claim = FileClaim(path: path)
        let refusal = #expect(throws: OpeningError.self) { try DatabaseLock(database: path) }
        #expect(refusal?.isHeldByServer == false)
        #expect(refusal?.description.contains("reprise doctor") == true)
        #expect(refusal?.description.contains("process") == false)
        withExtendedLifetime(claim) {}
    }

    @Test(arguments: [
        ("12 server", LockHolder(process: 12, use: .server)), ("12 command", LockHolder(process: 12, use: .command)),
        ("12", LockHolder(process: 12, use: .server)), ("", LockHolder(process: nil, use: .server)),
        ("x y z", LockHolder(process: nil, use: .server)),
    ])
    func itsFileSaysWhoHasIt(text: String, holder: LockHolder) throws {
        let path = folder.file("lock")
        try text.write(toFile: path, atomically: false, encoding: .utf8)
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        #expect(LockHolder(of: descriptor) == holder)
    }

    /// If a refused lock's descriptor were closed twice, that could close another file that got its number in between.
    @Test func aRefusalClosesNoOtherFile() async throws {
        let path = folder.file("test.db")
        let first = try DatabaseLock(database: path)
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                for _ in 0..<20_000 { _ = try? DatabaseLock(database: path) }
            }
            for _ in 0..<2 {
                group.addTask {
                    for _ in 0..<40_000 where close(open("/dev/null", O_RDONLY | O_CLOEXEC)) != 0 {
                        Issue.record("the descriptor was closed by another: \(errno)")
                        return
                    }
                }
            }
        }
        withExtendedLifetime(first) {}
    }

    @Test func itIsFreeOnceItsHolderIsGone() throws {
        for _ in 0..<2 { _ = try DatabaseLock(database: folder.file("test.db")) }
    }

    @Test func otherFilesAreOthersLocks() throws {
        let first = try DatabaseLock(database: folder.file("a.db"))
        _ = try DatabaseLock(database: folder.file("b.db"))
        withExtendedLifetime(first) {}
    }

    @Test func aFolderThatIsNotThereIsTold() {
        #expect(
            message { _ = try DatabaseLock(database: "/nowhere/test.db") }?.contains("/nowhere/test.db.lock") == true)
    }

    /// Through a link of either kind, it is the same file.
    @Test(arguments: [true, false])
    func aSecondStorageThroughALinkIsRefused(isSymbolic: Bool) async throws {
        let clock = ManualClock()
        let first = try makeStorage(in: folder, clock: clock)
        let alias = folder.file("alias.db")
        #expect((isSymbolic ? symlink : link)(folder.file("reprise.db"), alias) == 0)
        let refusal = message {
            _ = try SQLiteStorage(
                path: alias, settings: LiveSettings(.quick), clock: clock.wallClock, logger: quietLogger)
        }
        #expect(refusal?.contains(isSymbolic ? "process \(getpid())" : "2 names (hard links)") == true)
        await first.close()
    }

    /// The log and the lock are next to the file, not next to the link.
    @Test func aLinkIsFollowed() async throws {
        let clock = ManualClock()
        await (try makeStorage(in: folder, clock: clock)).close()
        #expect(mkdir(folder.file("elsewhere"), 0o755) == 0)
        let alias = folder.file("elsewhere/alias.db")
        #expect(symlink(folder.file("reprise.db"), alias) == 0)
        let storage = try SQLiteStorage(
            path: alias, settings: LiveSettings(.quick), clock: clock.wallClock, logger: quietLogger)
        try await storage.put("key")
        await storage.close()
        #expect(access(folder.file("elsewhere/alias.db.lock"), F_OK) != 0)
        let again = try makeStorage(in: folder, clock: clock)
        #expect(try await again.text("key") == "value")
        await again.close()
    }

    @Test func aLinkToNothingIsTold() {
        #expect(symlink(folder.file("nothing.db"), folder.file("dangling.db")) == 0)
        #expect(
            message { _ = try DatabaseLock(database: folder.file("dangling.db")) }?.contains("does not exist") == true)
    }

    @Test func aSecondStorageOnTheFileIsRefused() async throws {
        let clock = ManualClock()
        let first = try makeStorage(in: folder, clock: clock)
        #expect(message { _ = try makeStorage(in: folder, clock: clock) }?.contains("process \(getpid())") == true)
        try await first.put("key")
        await first.close()
    }
}
