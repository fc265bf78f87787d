// Group commit: which operations are committed together, in which order, and what happens to those that fail.

import CSQLite
import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct WriterTests {
    private let folder = TemporaryFolder()
    private let writer: Writer
    /// The writer's clock: it stands still, so that background work has no time of its own unless a test gives it some.
    private let clock: SteppedClock

    init() throws {
        let path = folder.file("test.db")
        let connection = try Connection(path: path, mode: .writer)
        try connection.configureWriter()
        try connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, x ANY UNIQUE) STRICT")
        let clock = SteppedClock()
        self.clock = clock
        writer = Writer(
            connection: connection, isDurable: false, snapshots: Snapshots(path: path),
            space: DiskSpace(database: path, logger: quietLogger), files: DatabaseFiles(database: path),
            logger: quietLogger,
            microseconds: { clock.microseconds })
    }

    /// Starts an operation; when this returns, it is waiting in the queue.
    private func enqueue<T: Sendable>(
        _ priority: Writer.Priority = .foreground, _ growth: Writer.Growth = .growing, bytes: Int = 0,
        _ body: @escaping @Sendable (Connection) throws -> T
    ) -> Task<T, any Error> {
        Task.immediate { [writer] in try await writer.perform(priority, bytes: bytes, .durable, growth, body) }
    }

    private func insert(_ value: Int, _ priority: Writer.Priority = .foreground) -> Task<Void, any Error> {
        enqueue(priority) { try $0.run("INSERT INTO t (x) VALUES (?1)", .integer(value)) }
    }

    /// Keeps the writer busy until the gate is opened, so that a group forms behind it.
    private func hold() async throws -> Gate {
        let gate = Gate()
        let begun = Shared(false)
        _ = enqueue { _ in
            begun.set(true)
            gate.wait()
        }
        while !begun.value { await Task.yield() }
        return gate
    }

    private func rows() async throws -> [Int] {
        // Also on a full disk.
        try await writer.perform(.foreground, .durable, .shrinking) {
            try $0.all("SELECT x FROM t ORDER BY id") { $0.int(0) }
        }
    }

    @Test func aLoneWriteIsCommittedAtOnce() async throws {
        try await insert(1).value
        #expect(try await rows() == [1])
        #expect(writer.statistics.groups == 2)
    }

    @Test func whatGathersIsCommittedTogether() async throws {
        let gate = try await hold()
        let tasks = (1...100).map { insert($0) }
        gate.open()
        for task in tasks { try await task.value }
        let statistics = writer.statistics
        #expect(statistics.operations == 101)
        #expect(statistics.largestGroup > 1)
        // More than one only if the machine is so slow that a group's time is up.
        #expect(Double(statistics.operations) / Double(statistics.groups) > 2)
    }

    @Test func operationsAreCommittedInOrder() async throws {
        let gate = try await hold()
        let tasks = (1...50).map { insert($0) }
        gate.open()
        for task in tasks { try await task.value }
        #expect(try await rows() == Array(1...50))
    }

    @Test func aGroupIsBoundedInBytes() async throws {
        let gate = try await hold()
        let tasks = (1...4).map { value in
            enqueue(bytes: StorageLimits.maxGroupBytes / 2) {
                try $0.run("INSERT INTO t (x) VALUES (?1)", .integer(value))
            }
        }
        gate.open()
        for task in tasks { try await task.value }
        #expect(writer.statistics.largestGroup <= 2)
        #expect(writer.statistics.groups >= 3)
    }

    // MARK: Failing

    private struct Refusal: Error {}

    @Test func oneThatFailsLeavesItsNeighboursAlone() async throws {
        let gate = try await hold()
        let first = insert(1)
        let failing = enqueue { connection in
            try connection.run("INSERT INTO t (x) VALUES (?1)", .integer(2))
            throw Refusal()
        }
        let last = insert(3)
        gate.open()
        try await first.value
        await #expect(throws: Refusal.self) { try await failing.value }
        try await last.value
        #expect(try await rows() == [1, 3])
    }

    @Test func aFailingStatementIsADefectOfOurs() async throws {
        let gate = try await hold()
        let first = insert(1)
        let twice = insert(1)
        let last = insert(2)
        gate.open()
        try await first.value
        #expect(await code { try await twice.value } == .internalError)
        try await last.value
        #expect(try await rows() == [1, 2])
    }

    @Test func aLoneOneThatFailsIsUndone() async throws {
        let failing = enqueue { connection in
            try connection.run("INSERT INTO t (x) VALUES (?1)", .integer(1))
            throw Refusal()
        }
        await #expect(throws: Refusal.self) { try await failing.value }
        #expect(try await rows() == [])
    }

    /// SQLite rolls a transaction back by itself after some failures: https://sqlite.org/lang_transaction.html
    @Test func whenTheTransactionIsLostTheOthersAreTriedAgain() async throws {
        let gate = try await hold()
        let first = insert(1)
        let failing = enqueue { connection in
            try connection.execute("ROLLBACK")
            throw SQLiteError(code: SQLITE_IOERR, message: "lost")
        }
        let last = insert(3)
        gate.open()
        try await first.value
        #expect(await code { try await failing.value } == .storageUnavailable)
        try await last.value
        #expect(try await rows() == [1, 3])
    }

    @Test func onAFullDiskWhatFitsIsStillWritten() async throws {
        try await writer.perform { connection in
            for value in 1...10 { try connection.run("INSERT INTO t (x) VALUES (?1)", .integer(value)) }
        }
        try await writer.perform { connection in
            let pages = try connection.first("PRAGMA page_count") { $0.int(0) }!
            try connection.execute("PRAGMA max_page_count = \(pages + 1)")
        }
        let gate = try await hold()
        let put = enqueue { try $0.run("INSERT INTO t (x) VALUES (?1)", .blob(noise(100_000))) }
        let delete = enqueue(.foreground, .shrinking) { try $0.run("DELETE FROM t WHERE x = ?1", .integer(5)) }
        gate.open()
        #expect(await code { try await put.value } == .storageFull)
        try await delete.value
        #expect(try await rows() == [1, 2, 3, 4, 6, 7, 8, 9, 10])
    }

    // MARK: The queue

    @Test func foregroundGoesFirst() async throws {
        let gate = try await hold()
        let tasks = [insert(101, .background), insert(102, .background), insert(1), insert(2)]
        gate.open()
        for task in tasks { try await task.value }
        #expect(try await rows() == [1, 2, 101, 102])
    }

    /// So that work in steps ends when the service stops, and what a caller asked for is done whether or not it still
    /// waits.
    @Test func aCancelledTaskDoesNoMoreBackgroundWork() async throws {
        let gate = Gate()
        let task = Task { [writer] in
            gate.wait()
            for (value, priority) in [(1, Writer.Priority.foreground), (2, .background)] {
                try await writer.perform(priority) { try $0.run("INSERT INTO t (x) VALUES (?1)", .integer(value)) }
            }
        }
        task.cancel()
        gate.open()
        let failure = await #expect(throws: Failure.self) { try await task.value }
        #expect(failure?.code == .shuttingDown)
        #expect(try await rows() == [1])
    }

    @Test func backgroundIsNeverStarved() async throws {
        let gate = try await hold()
        let count = StorageLimits.maxGroupOperations * 3
        let foreground = (1...count).map { value in
            enqueue { [clock] connection in
                clock.advance(StorageLimits.backgroundStepMicroseconds)
                try connection.run("INSERT INTO t (x) VALUES (?1)", .integer(value))
            }
        }
        let background = insert(0, .background)
        gate.open()
        for task in foreground { try await task.value }
        try await background.value
        // It ran after the first group, although foreground operations waited for three.
        #expect(try await rows().firstIndex(of: 0) == StorageLimits.maxGroupOperations)
    }

    /// As long as nothing has taken time, no share of it is due.
    @Test func backgroundWaitsForItsShare() async throws {
        let gate = try await hold()
        let foreground = (1...StorageLimits.maxGroupOperations * 3).map { insert($0) }
        let background = insert(0, .background)
        gate.open()
        for task in foreground { try await task.value }
        try await background.value
        #expect(try await rows().last == 0)
    }

    /// Background work of unknown length: it handles rows until its step is over. At most one step runs between two
    /// foreground operations, and it ends with the row after which one waits.
    @Test func aStepEndsWhenAForegroundOperationWaits() async throws {
        let steps = Shared<[Int]>([])
        let waiting = Shared<Task<Void, any Error>?>(nil)
        try await enqueue(.background) { [writer] _ in
            var rows = 0
            repeat {
                rows += 1
                if rows == 3 { waiting.set(insert(1)) }
            } while rows < 10 && !writer.isStepOver
            let handled = rows
            steps.change { $0.append(handled) }
        }.value
        try await waiting.value?.value
        #expect(steps.value == [3])
    }

    @Test func aStepEndsWithItsTime() async throws {
        let rows = try await enqueue(.background) { [writer, clock] _ in
            var rows = 0
            repeat {
                rows += 1
                clock.advance(StorageLimits.backgroundStepMicroseconds / 4)
            } while !writer.isStepOver
            return rows
        }.value
        #expect(rows == 4)
        let foreground = try await enqueue { [writer, clock] _ in
            var rows = 0
            repeat {
                rows += 1
                clock.advance(StorageLimits.foregroundStepMicroseconds / 4)
            } while !writer.isStepOver
            return rows
        }.value
        #expect(foreground == 4)
    }

    @Test func theBackgroundHasAFifthOfTheTime() {
        var share = BackgroundShare()
        #expect(!share.isDue)
        let step = StorageLimits.backgroundStepMicroseconds
        share.add(step * StorageLimits.foregroundTimePerBackgroundTime - 4, isBackground: false)
        #expect(share.credit == step - 1 && !share.isDue)
        share.add(4, isBackground: false)
        #expect(share.isDue)
        // An unused share is not saved up.
        share.add(1_000_000, isBackground: false)
        #expect(share.credit == step)
        share.add(step - 10, isBackground: true)
        #expect(share.credit == 10 && !share.isDue)
        share.add(step, isBackground: true)
        #expect(share.credit == 0)
    }

    @Test func aFullQueueRefuses() async throws {
        let gate = try await hold()
        let waiting = (0..<StorageLimits.maxQueuedWrites).map { _ in enqueue { _ in } }
        let refused = await failure { try await writer.perform { _ in } }
        gate.open()
        #expect(refused?.code == .overloaded)
        #expect(refused?.retryAfterSeconds == 1)
        for task in waiting { try await task.value }
        try await writer.perform { _ in }
    }

    @Test func tooManyWaitingBytesAreRefused() async throws {
        let gate = try await hold()
        let waiting = enqueue(bytes: StorageLimits.maxQueuedWriteBytes) { _ in }
        let refused = await code { try await writer.perform(bytes: 1) { _ in } }
        gate.open()
        #expect(refused == .overloaded)
        try await waiting.value
        try await writer.perform(bytes: 1) { _ in }
    }

    @Test func aValueLargerThanTheQueueIsTakenAlone() async throws {
        try await writer.perform(bytes: StorageLimits.maxQueuedWriteBytes + 1) { _ in }
    }

    // MARK: Closing

    @Test func closingFinishesWhatWaits() async throws {
        let gate = try await hold()
        let waiting = insert(1)
        let closing = Task.immediate { [writer] in await writer.close() }
        #expect(await code { try await writer.perform { _ in } } == .shuttingDown)
        gate.open()
        try await waiting.value
        await closing.value
        let connection = try Connection(path: folder.file("test.db"), mode: .reader)
        #expect(try connection.all("SELECT x FROM t") { $0.int(0) } == [1])
    }

    @Test func closingWritesTheLogBack() async throws {
        try await insert(1).value
        await writer.close()
        #expect(folder.size("test.db-wal") == 0)
        #expect(await code { try await writer.perform { _ in } } == .shuttingDown)
    }

    /// The log is written back every 4 MiB, so its file grows to little more.
    @Test func theLogIsKeptShort() async throws {
        for number in 0..<200 {
            try await writer.perform { connection in
                try connection.run("INSERT INTO t (x) VALUES (?1)", .blob(noise(200_000, seed: number)))
            }
        }
        #expect(folder.size("test.db-wal") < 12_000_000)
    }
}

/// A clock in microseconds that stands still until it is advanced.
private final class SteppedClock: Sendable {
    private let now = Shared<Int64>(0)

    var microseconds: Int64 { now.value }
    func advance(_ step: Int64) { now.change { $0 += step } }
}

struct SnapshotsTests {
    @Test func aLookUpSeesTheLatestCommit() async throws {
        try await withStorage { storage, _ in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for task in 0..<8 {
                    group.addTask {
                        for round in 0..<40 {
                            try await storage.put("key\(task)", "\(task) \(round)")
                            #expect(try await storage.text("key\(task)") == "\(task) \(round)")
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    /// Once any client has seen a commit, none is served the state before it.
    @Test func aCounterNeverGoesBack() async throws {
        try await withStorage { storage, _ in
            try await storage.put("counter", "0")
            let seen = Shared(0)
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    for _ in 0..<300 {
                        _ = try await storage.increment(CacheIncrement(key: Key(stored: "counter")), namespace: .n)
                    }
                }
                for _ in 0..<4 {
                    group.addTask {
                        for _ in 0..<300 {
                            let before = seen.value
                            let value = Int(try await storage.text("counter"))!
                            #expect(value >= before)
                            seen.change { $0 = max($0, value) }
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await storage.text("counter") == "300")
        }
    }
}
