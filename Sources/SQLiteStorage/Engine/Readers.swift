// Connections that only read: a few for point look-ups on the calling thread, a pool for everything longer.

import Domain
import NIOCore
import NIOPosix
import Synchronization

/// A connection several threads take turns with. Opened when first used.
final class SharedConnection: Sendable {
    private let connection = Mutex<Connection?>(nil)
    private let isClosed = Atomic(false)
    private let path: String

    init(path: String) { self.path = path }

    /// Runs `body`, waiting for the turn.
    func use<T: Sendable>(_ body: (Connection) throws -> T) throws -> T {
        try connection.withLock { try run(body, on: &$0) }
    }

    /// Runs `body` unless another thread has the turn.
    func useIfFree<T: Sendable>(_ body: (Connection) throws -> T) throws -> T? {
        try connection.withLockIfAvailable { try run(body, on: &$0) }
    }

    /// Runs `body`, waiting for the turn, if the connection is open at all.
    func useIfOpen(_ body: (Connection) -> Void) {
        connection.withLock { if let connection = $0 { body(connection) } }
    }

    private func run<T: Sendable>(
        _ body: (Connection) throws -> T, on connection: inout sending Connection?
    ) throws -> T {
        if let connection { return try body(connection) }
        guard !isClosed.load(ordering: .relaxed) else { throw Failure.shuttingDown }
        let opened = try Connection(path: path, mode: .reader)
        try opened.configureReader()
        connection = opened
        return try body(opened)
    }

    func close() {
        connection.withLock {
            isClosed.store(true, ordering: .relaxed)
            $0 = nil
        }
    }
}

extension Failure {
    static let shuttingDown = Failure(.shuttingDown, "The server is shutting down.")
}

/// The connections for point look-ups, which keep their view of the database until there is something new.
///
/// A read transaction takes and drops file locks, two system calls each, and when the database has changed it empties
/// the page cache. A look-up itself is cheaper than that. As only this process writes, it knows when something has
/// changed: a connection keeps its transaction open and begins a new one when the count of commits is not the one it
/// began at.
///
/// The count is odd while a commit is under way, and then a look-up takes a transaction for itself. So an answer is
/// never older than the latest commit that anybody was told of, and once somebody has seen a commit nobody is served
/// the state before it.
///
/// A transaction that stays open keeps the log from being written back entirely and begun anew, so a checkpoint ends
/// them all first, and while it runs none is kept.
final class Snapshots: Sendable {
    private let readers: [PointReader]
    /// Two for each commit or checkpoint; odd while one is under way.
    private let commits = Atomic<Int>(0)

    private final class PointReader: Sendable {
        let shared: SharedConnection
        /// The count of commits at which its transaction began. Only touched while it has the connection.
        let begunAt = Atomic<Int>(-1)

        init(path: String) { shared = SharedConnection(path: path) }
    }

    init(path: String) {
        // As many as event loops, which are the threads that ask.
        readers = (0..<min(System.coreCount, Limits.maxPointReaders)).map { _ in PointReader(path: path) }
    }

    /// Runs `body` on a connection that sees the latest commit.
    func read<T: Sendable>(_ body: (Connection) throws -> T) throws -> T {
        for reader in readers {
            if let value = try reader.shared.useIfFree({ try read(body, $0, reader) }) { return value }
        }
        return try readers[0].shared.use { try read(body, $0, readers[0]) }
    }

    private func read<T>(_ body: (Connection) throws -> T, _ connection: Connection, _ reader: PointReader) throws -> T
    {
        let current = commits.load(ordering: .acquiring)
        if reader.begunAt.load(ordering: .relaxed) != current {
            if connection.isInTransaction { try connection.run("COMMIT") }
            reader.begunAt.store(current, ordering: .relaxed)
        }
        if current % 2 == 0, !connection.isInTransaction { try connection.run("BEGIN") }
        do {
            return try body(connection)
        } catch let error as SQLiteError {
            end(connection)
            throw error
        }
    }

    private func end(_ connection: Connection) {
        if connection.isInTransaction { try? connection.run("COMMIT") }
    }

    /// Runs a commit; afterwards every look-up sees it. On the writer's thread only.
    func commit<T>(_ body: () throws(SQLiteError) -> T) throws(SQLiteError) -> T {
        commits.wrappingAdd(1, ordering: .acquiringAndReleasing)
        defer { commits.wrappingAdd(1, ordering: .acquiringAndReleasing) }
        return try body()
    }

    /// Runs a checkpoint with no transaction kept. On the writer's thread only.
    func checkpoint<T>(_ body: () throws(SQLiteError) -> T) throws(SQLiteError) -> T {
        try commit { () throws(SQLiteError) in
            for reader in readers { reader.shared.useIfOpen(end) }
            return try body()
        }
    }

    func close() {
        for reader in readers { reader.shared.close() }
    }
}

/// All reading of the database.
final class Readers: Sendable {
    private let snapshots: Snapshots
    private let poolReaders: [SharedConnection]
    private let pool = NIOThreadPool(numberOfThreads: Limits.poolReaders)
    private let waiting = Atomic(0)

    init(path: String, snapshots: Snapshots) {
        self.snapshots = snapshots
        poolReaders = (0..<Limits.poolReaders).map { _ in SharedConnection(path: path) }
        pool.start()
    }

    /// Reads a row or two by key on the calling thread: microseconds, and no change of threads.
    /// - Throws: what `body` throws, SQLite's errors as the caller's failures.
    func point<T: Sendable>(_ body: (Connection) throws -> T) throws -> T {
        do {
            return try snapshots.read(body)
        } catch {
            throw storageFailure(error)
        }
    }

    /// Reads on a thread of the pool, with a deadline.
    /// - Throws: what `body` throws, SQLite's errors as the caller's failures; `deadline_exceeded`, `overloaded`.
    func pooled<T: Sendable>(_ body: @escaping @Sendable (Connection) throws -> T) async throws -> T {
        guard waiting.wrappingAdd(1, ordering: .relaxed).newValue <= Limits.maxQueuedReads else {
            waiting.wrappingSubtract(1, ordering: .relaxed)
            throw Failure.overloaded("Too many reads wait already.")
        }
        defer { waiting.wrappingSubtract(1, ordering: .relaxed) }
        do {
            return try await pool.runIfActive { [poolReaders] in
                let bounded: (Connection) throws -> T = {
                    try $0.withDeadline(milliseconds: Limits.readDeadlineMilliseconds, body)
                }
                // As many threads as connections: one is free.
                for reader in poolReaders {
                    if let value = try reader.useIfFree(bounded) { return value }
                }
                return try poolReaders[0].use(bounded)
            }
        } catch is CancellationError {
            throw Failure.shuttingDown
        } catch {
            throw storageFailure(error)
        }
    }

    /// Reads on a thread of the pool like ``pooled(_:)``, all look-ups on one state of the database.
    func consistently<T: Sendable>(_ body: @escaping @Sendable (Connection) throws -> T) async throws -> T {
        try await pooled { connection in try connection.consistently { try body(connection) } }
    }

    func close() async {
        try? await pool.shutdownGracefully()
        snapshots.close()
        for reader in poolReaders { reader.close() }
    }
}
