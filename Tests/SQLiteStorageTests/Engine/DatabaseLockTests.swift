// One server for one file.

import Domain
import Glibc
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

    /// Closed twice, the number of a refused lock's descriptor would be taken from whatever file got it in between.
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

    @Test func aSecondStorageOnTheFileIsRefused() async throws {
        let clock = ManualClock()
        let first = try makeStorage(in: folder, clock: clock)
        #expect(message { _ = try makeStorage(in: folder, clock: clock) }?.contains("process \(getpid())") == true)
        try await first.put("key")
        await first.close()
    }
}
