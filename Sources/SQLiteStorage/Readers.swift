// Connections that only read: a few for point look-ups on the calling thread, a pool for everything longer.

import Domain
import NIOPosix
import Synchronization

/// A connection several threads take turns with. Opened when first used.
final class SharedConnection: Sendable {
    private let connection = Mutex<Connection?>(nil)
    private let open: @Sendable () throws(SQLiteError) -> sending Connection

    init(open: @escaping @Sendable () throws(SQLiteError) -> sending Connection) {
        self.open = open
    }

    /// Runs `body`, waiting for the turn.
    func use<T: Sendable>(_ body: (Connection) throws -> T) throws -> T {
        try connection.withLock { try run(body, on: &$0) }
    }

    /// Runs `body` unless another thread has the turn.
    func useIfFree<T: Sendable>(_ body: (Connection) throws -> T) throws -> T? {
        try connection.withLockIfAvailable { try run(body, on: &$0) }
    }

    private func run<T: Sendable>(
        _ body: (Connection) throws -> T, on connection: inout sending Connection?
    ) throws -> T {
        if let connection { return try body(connection) }
        let opened = try open()
        connection = opened
        return try body(opened)
    }

    func close() { connection.withLock { $0 = nil } }
}

/// All reading of the database.
final class Readers: Sendable {
    private let pointReaders: [SharedConnection]
    private let poolReaders: [SharedConnection]
    private let pool = NIOThreadPool(numberOfThreads: Limits.poolReaders)
    private let waiting = Atomic(0)

    init(path: String) {
        let open: @Sendable () throws(SQLiteError) -> sending Connection = { () throws(SQLiteError) in
            let connection = try Connection(path: path, mode: .reader)
            try connection.configureReader()
            return connection
        }
        pointReaders = (0..<Limits.pointReaders).map { _ in SharedConnection(open: open) }
        poolReaders = (0..<Limits.poolReaders).map { _ in SharedConnection(open: open) }
        pool.start()
    }

    /// Reads a row or two by key on the calling thread: microseconds, and no change of threads.
    /// - Throws: what `body` throws, SQLite's errors as the caller's failures.
    func point<T: Sendable>(_ body: (Connection) throws -> T) throws -> T {
        do {
            for reader in pointReaders {
                if let value = try reader.useIfFree(body) { return value }
            }
            return try pointReaders[0].use(body)
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
            throw Failure(.shuttingDown, "The server is shutting down.")
        } catch {
            throw storageFailure(error)
        }
    }

    func close() async {
        try? await pool.shutdownGracefully()
        for reader in pointReaders + poolReaders { reader.close() }
    }
}
