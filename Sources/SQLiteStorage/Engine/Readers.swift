// Connections that only read: a few for point look-ups on the calling thread, lanes of threads for everything longer.

import Domain
import NIOCore
import Synchronization

/// A connection that several threads share, one at a time. Opened when first used.
final class SharedConnection: Sendable {
    private let connection = Mutex<Connection?>(nil)
    private let isClosed = Atomic(false)
    private let path: String
    private let cacheKibibytes: Int
    private let watch: Watch

    /// - Parameters:
    ///   - cacheKibibytes: the size of its page cache.
    ///   - signal: ends what runs on it.
    init(path: String, cacheKibibytes: Int, signal: StopSignal = StopSignal()) {
        self.path = path
        self.cacheKibibytes = cacheKibibytes
        watch = Watch(signal: signal)
    }

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
        let opened = try Connection(path: path, mode: .reader, watch: watch)
        try opened.configureReader(cacheKibibytes: cacheKibibytes)
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
/// the page cache. A look-up itself is cheaper than that. Because only this process writes, it knows when something has
/// changed: a connection keeps its transaction open and begins a new one when the count of commits is not the one it
/// began at.
///
/// The count is odd during a commit, and then a look-up uses a transaction of its own. So an answer is never older than
/// the latest acknowledged commit, and once any reader has seen a commit, no reader sees the state before it.
///
/// A transaction that stays open keeps the log from being written back completely and restarted, so a checkpoint ends
/// them all first, and while it runs none is kept.
final class Snapshots: Sendable {
    private let readers: [PointReader]
    /// Two for each commit or checkpoint; odd during one.
    private let commits = Atomic<Int>(0)

    private final class PointReader: Sendable {
        let shared: SharedConnection
        /// The count of commits at which its transaction began. Only touched while it has the connection.
        let begunAt = Atomic<Int>(-1)

        init(path: String) {
            shared = SharedConnection(path: path, cacheKibibytes: StorageLimits.pointReaderCacheKibibytes)
        }
    }

    init(path: String) {
        // One per event loop, because event loops are the threads that read.
        readers = (0..<min(System.coreCount, StorageLimits.maxPointReaders)).map { _ in PointReader(path: path) }
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

/// What a read off the event loops is for. Each lane has its own threads, connections and queue, so that none waits for
/// another. docs/design/read-lanes.md.
enum ReadLane: CaseIterable {
    /// One chunk of a large value. A download reads one at a time, so that many share the lane evenly.
    case chunks
    /// Pages of lists and look-ups of bounded size.
    case lists
    /// Aggregates over all rows of a range, however many.
    case aggregates
    /// Reads of background tasks and dry runs, and of the service's figures about itself.
    case upkeep

    var bounds: StorageLimits.ReadLane {
        switch self {
        case .chunks: StorageLimits.chunkReads
        case .lists: StorageLimits.listReads
        case .aggregates: StorageLimits.aggregateReads
        case .upkeep: StorageLimits.upkeepReads
        }
    }
}

/// All reading of the database.
final class Readers: Sendable {
    private let snapshots: Snapshots
    private let lanes: [ReadLane: Lane]

    init(path: String, snapshots: Snapshots) {
        self.snapshots = snapshots
        lanes = Dictionary(uniqueKeysWithValues: ReadLane.allCases.map { ($0, Lane(path: path, bounds: $0.bounds)) })
    }

    /// Reads a row or two by key on the calling thread: it takes microseconds and no change of threads.
    /// - Throws: what `body` throws, SQLite's errors as the caller's failures.
    func point<T: Sendable>(_ body: (Connection) throws -> T) throws -> T {
        do {
            return try snapshots.read(body)
        } catch {
            throw storageFailure(error)
        }
    }

    /// Reads on a thread of a lane, with a deadline.
    /// - Throws: what `body` throws, SQLite's errors as the caller's failures; `deadline_exceeded`, `overloaded`,
    ///   `shutting_down`.
    func pooled<T: Sendable>(
        _ lane: ReadLane = .lists, _ body: @escaping @Sendable (Connection) throws -> T
    ) async throws -> T {
        try await lanes[lane]!.read(body)
    }

    /// Reads on a thread of a lane like ``pooled(_:_:)``, all look-ups on one snapshot of the database.
    func consistently<T: Sendable>(
        _ lane: ReadLane = .lists, _ body: @escaping @Sendable (Connection) throws -> T
    ) async throws -> T {
        try await pooled(lane) { connection in try connection.consistently { try body(connection) } }
    }

    /// Ends aggregates, including waiting ones. They may take seconds, and their callers can retry; an interrupted
    /// download or background task would have to start over.
    func endLongReads() { lanes[.aggregates]!.stop() }

    /// Ends all reads.
    func close() async {
        for lane in lanes.values { lane.stop() }
        for lane in lanes.values { await lane.close() }
        snapshots.close()
    }
}

/// The threads and connections of one lane. Nothing is opened or started before it is needed.
private final class Lane: Sendable {
    private let threads: BoundedThreads
    private let connections: [SharedConnection]
    private let signal = StopSignal()

    init(path: String, bounds: StorageLimits.ReadLane) {
        threads = BoundedThreads(
            count: bounds.threads, maxQueued: bounds.maxQueued, niceness: bounds.niceness,
            refusal: "Too many reads are waiting.")
        connections = (0..<bounds.threads).map { [signal] _ in
            SharedConnection(path: path, cacheKibibytes: bounds.pageCacheKibibytes, signal: signal)
        }
    }

    func read<T: Sendable>(_ body: @escaping @Sendable (Connection) throws -> T) async throws -> T {
        do {
            return try await threads.run { [connections, signal] in
                guard !signal.isRaised else { throw Failure.shuttingDown }
                let bounded: (Connection) throws -> T = {
                    try $0.withDeadline(milliseconds: Limits.readDeadlineMilliseconds, body)
                }
                // There are as many threads as connections, so one is free.
                for connection in connections {
                    if let value = try connection.useIfFree(bounded) { return value }
                }
                return try connections[0].use(bounded)
            }
        } catch let error as SQLiteError where error.isInterruption && signal.isRaised {
            throw Failure.shuttingDown
        } catch {
            throw storageFailure(error)
        }
    }

    func stop() { signal.raise() }

    func close() async {
        await threads.close()
        for connection in connections { connection.close() }
    }
}
