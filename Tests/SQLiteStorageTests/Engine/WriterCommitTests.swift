// Group commit as other connections see it: an answered write is committed, and synced if one of the group needs it.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct WriterCommitTests {
    private let folder = TemporaryFolder()

    /// A writer with a table of rows whose `parent`, if there is one, must exist when the transaction is committed: a
    /// row without its parent makes COMMIT itself fail, after every statement has succeeded.
    private func makeWriter(isDurable: Bool) throws -> Writer {
        let path = folder.file("test.db")
        let connection = try Connection(path: path, mode: .writer)
        try connection.configureWriter()
        try connection.execute(
            """
            CREATE TABLE t (
                x INTEGER PRIMARY KEY, parent INTEGER REFERENCES t (x) DEFERRABLE INITIALLY DEFERRED
            ) STRICT
            """)
        return Writer(
            connection: connection, isDurable: isDurable, snapshots: Snapshots(path: path),
            space: DiskSpace(database: path, logger: quietLogger), files: DatabaseFiles(database: path),
            logger: quietLogger)
    }

    /// Keeps the writer busy until the gate is opened, so that a group forms behind it.
    private func hold(_ writer: Writer) async throws -> Gate {
        let gate = Gate()
        let begun = Shared(false)
        _ = Task.immediate {
            try await writer.perform { _ in
                begun.set(true)
                gate.wait()
            }
        }
        while !begun.value { await Task.yield() }
        return gate
    }

    /// What an independent connection sees at this moment.
    private func committedRows() throws -> [Int] {
        let connection = try Connection(path: folder.file("test.db"), mode: .reader)
        return try connection.all("SELECT x FROM t ORDER BY x") { $0.int(0) }
    }

    // MARK: Answers and commits

    private struct Refusal: Error {}

    private enum Outcome: Equatable {
        /// The operation succeeded; whether another connection saw its row at that moment.
        case success(isCommitted: Bool)
        case refusal
        case failure(Failure.Code?)
    }

    /// Starts to insert a row; when this returns, the operation is waiting in the queue.
    private func insert(
        _ x: Int, parent: Int? = nil, into writer: Writer, refusing: Bool = false
    ) -> Task<Outcome, any Error> {
        Task.immediate {
            do {
                try await writer.perform { connection in
                    try connection.run(
                        "INSERT INTO t (x, parent) VALUES (?1, ?2)", .integer(x), parent.map { .integer($0) } ?? .null)
                    if refusing { throw Refusal() }
                }
                return .success(isCommitted: try committedRows().contains(x))
            } catch is Refusal {
                return .refusal
            } catch {
                return .failure((error as? Failure)?.code)
            }
        }
    }

    @Test(arguments: [false, true])
    func nobodyIsToldOfSuccessWhenTheCommitFails(isDurable: Bool) async throws {
        let writer = try makeWriter(isDurable: isDurable)
        #expect(try await insert(1, parent: 404, into: writer).value == .failure(.internalError))
        #expect(try committedRows() == [])
        // The transaction that could not be committed is gone, and the next one is not disturbed.
        #expect(try await insert(2, into: writer).value == .success(isCommitted: true))
        #expect(try committedRows() == [2])
        await writer.close()
    }

    @Test(arguments: [false, true])
    func whenAGroupCannotBeCommittedEachOperationIsTriedAlone(isDurable: Bool) async throws {
        let writer = try makeWriter(isDurable: isDurable)
        let gate = try await hold(writer)
        let tasks = [
            insert(1, into: writer), insert(2, parent: 404, into: writer), insert(3, into: writer, refusing: true),
            insert(4, parent: 1, into: writer), insert(5, parent: 404, into: writer), insert(6, into: writer),
        ]
        gate.open()
        var outcomes: [Outcome] = []
        for task in tasks { outcomes.append(try await task.value) }
        #expect(
            outcomes == [
                .success(isCommitted: true), .failure(.internalError), .refusal, .success(isCommitted: true),
                .failure(.internalError), .success(isCommitted: true),
            ])
        #expect(try committedRows() == [1, 4, 6])
        await writer.close()
    }

    // MARK: Syncing

    /// What `PRAGMA synchronous` says: https://sqlite.org/pragma.html#pragma_synchronous
    private enum Synchronous: Int {
        /// A commit does not sync the log.
        case normal = 1
        /// A commit syncs the log.
        case full = 2
    }

    /// Commits the operations as one group.
    /// - Returns: for each, the setting that the connection had for the group's commit.
    private func committed(
        _ persistences: [Writer.Persistence], by writer: Writer
    ) async throws -> [Synchronous?] {
        while true {
            let gate = try await hold(writer)
            let groups = writer.statistics.groups
            let tasks = persistences.map { persistence in
                Task.immediate {
                    try await writer.perform(.foreground, persistence) { connection in
                        try connection.first("PRAGMA synchronous") { $0.int(0) }
                    }
                }
            }
            gate.open()
            var found: [Synchronous?] = []
            for task in tasks { found.append(try await task.value.flatMap { Synchronous(rawValue: $0) }) }
            // The one that was held, and these. More only if the machine is so slow that a group's time is up.
            if writer.statistics.groups == groups + 2 { return found }
        }
    }

    @Test func aGroupIsSyncedIfAnyOfItNeedsIt() async throws {
        let writer = try makeWriter(isDurable: true)
        for _ in 0..<2 {
            #expect(try await committed([.durable], by: writer) == [.full])
            #expect(try await committed([.withNext], by: writer) == [.normal])
            #expect(try await committed([.withNext, .withNext], by: writer) == [.normal, .normal])
            #expect(try await committed([.durable, .withNext], by: writer) == [.full, .full])
            #expect(try await committed([.withNext, .durable, .withNext], by: writer) == [.full, .full, .full])
        }
        await writer.close()
    }

    @Test func withoutDurabilityNoGroupIsSynced() async throws {
        let writer = try makeWriter(isDurable: false)
        #expect(try await committed([.durable, .withNext], by: writer) == [.normal, .normal])
        await writer.close()
    }

    /// Operations that are retried, each alone, still have the same needs.
    @Test func whatIsTriedAgainIsSyncedAsBefore() async throws {
        let writer = try makeWriter(isDurable: true)
        let gate = try await hold(writer)
        let failing = insert(1, parent: 404, into: writer)
        let found = Shared<[String: [Int?]]>([:])
        let tasks = [("durable", Writer.Persistence.durable), ("with next", .withNext)].map { name, persistence in
            Task.immediate {
                try await writer.perform(.foreground, persistence) { connection in
                    let synchronous = try connection.first("PRAGMA synchronous") { $0.int(0) }
                    found.change { $0[name, default: []].append(synchronous) }
                }
            }
        }
        gate.open()
        #expect(try await failing.value == .failure(.internalError))
        for task in tasks { try await task.value }
        // If the machine is so slow that the group's time is up before them, they run only once.
        #expect(found.value["durable"]?.allSatisfy { $0 == Synchronous.full.rawValue } == true)
        #expect(found.value["with next"]?.last == Synchronous.normal.rawValue)
        await writer.close()
    }

    @Test func theSettingDecidesWhetherCommitsAreSynced() async throws {
        for (durability, expected) in [("full", Synchronous.full), ("normal", .normal)] {
            var settings = Settings()
            settings.set(.durability, to: .text(durability), source: .flag)
            try await withStorage(settings: LiveSettings(settings)) { storage, _ async throws in
                #expect(try await committed([.durable], by: storage.writer) == [expected])
            }
        }
        #expect(Settings().text(.durability) == "full")
    }
}
