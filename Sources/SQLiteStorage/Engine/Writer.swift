// The one connection that writes, and group commit.

import DequeModule
import Domain
import Logging
import NIOPosix
import Synchronization

/// Writes in groups: all waiting operations run in one transaction and are committed once, then all are answered.
///
/// While one commit waits for the disk the next group forms, so that groups grow with the load and a lone write does
/// not wait. Each operation runs in a savepoint of its own: one that fails leaves its neighbours alone. If the
/// transaction as a whole fails (disk full, say), its operations are run again, each on its own, so that those that can
/// succeed do.
///
/// The same idea as in PostgreSQL's `commit_siblings` and MySQL's binary-log group commit. Measurements and bounds:
/// docs/design/group-commit.md.
final class Writer: Sendable {
    enum Priority {
        case foreground
        /// Waits until no foreground operation does, or until its share of the writer's time has come, so that it is
        /// never starved. It is committed alone, so that nobody's answer waits for it, and without a sync, because
        /// after a power cut it is done again.
        case background
    }

    /// What a commit of only these must promise.
    enum Persistence {
        /// On disk when answered, as far as the setting `durability` promises.
        case durable
        /// Must be on the disk only when a later durable operation is: the chunks of an upload.
        case withNext
    }

    struct Statistics: Sendable {
        var operations = 0
        var groups = 0
        var largestGroup = 0
        /// Rows that one operation changed at most, with those that triggers and foreign keys changed.
        var mostForegroundChanges = 0
        var mostBackgroundChanges = 0
        var groupSizes = Histogram(bounds: [1, 2, 4, 8, 16, 32, 64, 128, 256, Double(StorageLimits.maxGroupOperations)])
        /// From the time of a commit to memory to that of a failing disk.
        var commitSeconds = Histogram(
            bounds: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5])
    }

    private struct Operation: Sendable {
        let priority: Priority
        let bytes: Int
        let persistence: Persistence
        /// Whether it runs in a transaction, or by itself between two.
        var isInTransaction = true
        let attempt: @Sendable (Connection) -> Attempt
        let refuse: @Sendable (any Error) -> Void
    }

    /// An operation that was run. `reply` is called once its transaction is committed.
    private struct Attempt {
        let error: (any Error)?
        let reply: () -> Void
    }

    private struct Queue {
        var foreground = Deque<Operation>()
        var background = Deque<Operation>()
        var bytes = 0
        var share = BackgroundShare()
        var isDraining = false
        var isClosed = false
    }

    private let queue = Mutex(Queue())
    private let statisticsBox = Mutex(Statistics())
    private let connection: Mutex<Connection?>
    private let thread = NIOThreadPool(numberOfThreads: 1)
    private let fullSynchronous: Bool
    private let snapshots: Snapshots
    private let microseconds: @Sendable () -> Int64
    /// When the current operation must end its step, and when it must do so if a foreground operation is waiting.
    private let stepEnds = Atomic<Int64>(.max)
    private let stepYields = Atomic<Int64>(.max)
    private let nextCheckpointPages = Atomic(StorageLimits.checkpointPages)
    private let logger: Logger

    /// - Parameters:
    ///   - connection: a configured connection in mode `.writer`.
    ///   - snapshots: notified of each commit, and told to end for a checkpoint.
    ///   - microseconds: a clock that never steps.
    init(
        connection: sending Connection, isDurable: Bool, snapshots: Snapshots, logger: Logger,
        microseconds: @escaping @Sendable () -> Int64 = monotonicMicroseconds
    ) {
        self.connection = Mutex(connection)
        self.fullSynchronous = isDurable
        self.snapshots = snapshots
        self.logger = logger
        self.microseconds = microseconds
        thread.start()
    }

    /// Waiting operations, and the bytes they hold.
    var waiting: (operations: Int, bytes: Int) {
        queue.withLock { ($0.foreground.count + $0.background.count, $0.bytes) }
    }

    var statistics: Statistics { statisticsBox.withLock { $0 } }

    /// Runs `body` in the next group and returns once it is committed.
    ///
    /// `body` may be run twice, so it must have no effects besides those on the connection.
    ///
    /// In a cancelled task, background operations are refused: whatever works in steps ends with the current one, so
    /// that a stop of the service does not wait for millions of rows.
    /// - Parameter bytes: about how much it holds in memory while it waits.
    /// - Throws: what `body` throws; `overloaded` when too much is waiting; `shutting_down`; the storage failures.
    func perform<T: Sendable>(
        _ priority: Priority = .foreground, bytes: Int = 0, _ persistence: Persistence = .durable,
        _ body: @escaping @Sendable (Connection) throws -> T
    ) async throws -> T {
        if priority == .background, Task.isCancelled { throw Failure.shuttingDown }
        return try await enqueued(priority, bytes: bytes, persistence, isInTransaction: true, body)
    }

    /// Runs `body` as a background operation outside any transaction, between two groups. Also in a cancelled task.
    /// - Throws: what `body` throws, SQLite's errors as the caller's failures; `shutting_down`.
    func performOutsideTransaction<T: Sendable>(
        _ body: @escaping @Sendable (Connection) throws -> T
    ) async throws -> T {
        try await enqueued(.background, bytes: 0, .withNext, isInTransaction: false, body)
    }

    private func enqueued<T: Sendable>(
        _ priority: Priority, bytes: Int, _ persistence: Persistence, isInTransaction: Bool,
        _ body: @escaping @Sendable (Connection) throws -> T
    ) async throws -> T {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<T, any Error>) in
            let operation = Operation(
                priority: priority, bytes: bytes, persistence: persistence, isInTransaction: isInTransaction,
                attempt: { connection in
                    do {
                        let value = try body(connection)
                        return Attempt(error: nil) { continuation.resume(returning: value) }
                    } catch {
                        return Attempt(error: error) { continuation.resume(throwing: error) }
                    }
                },
                refuse: { continuation.resume(throwing: $0) })
            enqueue(operation, priority)
        }
    }

    /// Whether the current operation should end its step and leave the rest to another operation. Operations of unknown
    /// length check it after each row or so, when they have done some of their work.
    var isStepOver: Bool {
        let now = microseconds()
        if now >= stepEnds.load(ordering: .relaxed) { return true }
        return now >= stepYields.load(ordering: .relaxed) && queue.withLock { !$0.foreground.isEmpty }
    }

    private func enqueue(_ operation: Operation, _ priority: Priority) {
        let refusal: Failure? = queue.withLock { queue in
            if queue.isClosed { return .shuttingDown }
            // Those outside transactions come one at a time, and end what others have begun.
            let fits =
                queue.foreground.count + queue.background.count < StorageLimits.maxQueuedWrites
                && (queue.bytes + operation.bytes <= StorageLimits.maxQueuedWriteBytes || queue.bytes == 0)
            guard fits || !operation.isInTransaction else { return .overloaded("Too many writes are waiting.") }
            switch priority {
            case .foreground: queue.foreground.append(operation)
            case .background: queue.background.append(operation)
            }
            queue.bytes += operation.bytes
            if !queue.isDraining {
                queue.isDraining = true
                thread.submit { _ in self.drain() }
            }
            return nil
        }
        if let refusal { operation.refuse(refusal) }
    }

    /// Writes the log back into the database, between two groups.
    ///
    /// - Parameter truncating: also waits a moment for readers and truncates the file.
    func checkpoint(truncating: Bool) async throws {
        try await betweenGroups { connection in
            if truncating { try connection.execute("PRAGMA busy_timeout = 50") }
            defer { if truncating { try? connection.execute("PRAGMA busy_timeout = 5000") } }
            _ = try self.snapshots.checkpoint { () throws(SQLiteError) in
                try connection.checkpoint(truncating ? .truncate : .passive)
            }
        }
    }

    /// Runs `body` outside any transaction, once the writer has nothing else to do; does nothing once the storage is
    /// closed.
    func betweenGroups(_ body: @escaping @Sendable (Connection) throws -> Void) async throws {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            thread.submit { _ in
                self.connection.withLock { connection in
                    do {
                        if let connection { try body(connection) }
                        continuation.resume()
                    } catch {
                        continuation.resume(throwing: storageFailure(error))
                    }
                }
            }
        }
    }

    /// Refuses new operations, finishes waiting ones, writes the log back and closes the connection.
    func close() async {
        queue.withLock { $0.isClosed = true }
        while queue.withLock({ $0.isDraining }) { try? await Task.sleep(for: .milliseconds(1)) }
        connection.withLock { connection in
            // Only saves the next start some work; failing loses nothing. No `PRAGMA optimize`: statistics of tables
            // that were small once would make SQLite scan them when they are large.
            _ = try? connection?.checkpoint(.truncate)
            connection = nil
        }
        try? await thread.shutdownGracefully()
    }

    // MARK: On the writer's thread

    private func drain() {
        connection.withLock { connection in
            guard let connection else { return }
            while let group = nextGroup() {
                let began = microseconds()
                if group[0].isInTransaction {
                    commit(group[...], on: connection)
                } else {
                    runAlone(group[0], on: connection)
                }
                let took = microseconds() - began
                queue.withLock { $0.share.add(took, isBackground: group[0].priority == .background) }
                checkpointIfLong(connection)
            }
        }
    }

    /// Writes the log back when it has grown by ``StorageLimits/checkpointPages``, after the group is answered. If a
    /// pooled reader is in the way, the rest is left for the next time.
    private func checkpointIfLong(_ connection: Connection) {
        let pages = connection.pagesInLog
        guard pages >= nextCheckpointPages.load(ordering: .relaxed) else {
            // The log was restarted.
            if pages < StorageLimits.checkpointPages {
                nextCheckpointPages.store(StorageLimits.checkpointPages, ordering: .relaxed)
            }
            return
        }
        do {
            let isComplete = try snapshots.checkpoint { () throws(SQLiteError) in try connection.checkpoint(.passive) }
            nextCheckpointPages.store((isComplete ? 0 : pages) + StorageLimits.checkpointPages, ordering: .relaxed)
        } catch {
            logger.warning("a checkpoint failed and will be retried", metadata: ["error": "\(error)"])
        }
    }

    private func nextGroup() -> [Operation]? {
        queue.withLock { queue in
            if queue.foreground.isEmpty || queue.share.isDue, let next = queue.background.popFirst() {
                queue.bytes -= next.bytes
                return [next]
            }
            var group: [Operation] = []
            var bytes = 0
            while group.count < StorageLimits.maxGroupOperations, let next = queue.foreground.first,
                bytes + next.bytes <= StorageLimits.maxGroupBytes || group.isEmpty
            {
                group.append(queue.foreground.removeFirst())
                bytes += next.bytes
            }
            queue.bytes -= bytes
            if group.isEmpty { queue.isDraining = false }
            return group.isEmpty ? nil : group
        }
    }

    private func runAlone(_ operation: Operation, on connection: Connection) {
        beginStep(operation.priority)
        let attempt = operation.attempt(connection)
        guard let error = attempt.error as? SQLiteError else { return attempt.reply() }
        operation.refuse(error.failure)
    }

    /// Commits a group, in more than one transaction if its time is up before it is done.
    private func commit(_ group: ArraySlice<Operation>, on connection: Connection) {
        var rest = group
        while !rest.isEmpty { rest = commitFront(of: rest, on: connection) }
    }

    /// - Returns: the operations left for another transaction.
    private func commitFront(of group: ArraySlice<Operation>, on connection: Connection) -> ArraySlice<Operation> {
        let started = monotonicMilliseconds()
        var attempts: [Attempt] = []
        do {
            try setSynchronous(for: group, on: connection)
            try connection.run("BEGIN IMMEDIATE")
            for operation in group {
                // A rollback of the whole transaction would make a copy of the database begin again.
                let isAlone = group.count == 1 && connection.copy == nil
                attempts.append(try attempt(operation, aloneIn: isAlone, on: connection))
                if monotonicMilliseconds() - started > StorageLimits.maxGroupMilliseconds { break }
            }
            let committing = ContinuousClock.now
            if connection.isInTransaction {
                try snapshots.commit { () throws(SQLiteError) in try connection.run("COMMIT") }
            }
            count(attempts.count, commit: ContinuousClock.now - committing)
            for attempt in attempts { attempt.reply() }
            return group.dropFirst(attempts.count)
        } catch {
            if connection.isInTransaction { try? connection.run("ROLLBACK") }
            if group.count > 1 {
                logger.warning(
                    "a group commit failed; trying its operations one by one", metadata: ["error": "\(error)"])
                for index in group.indices { commit(group[index...index], on: connection) }
            } else {
                logger.error("a write failed", metadata: ["error": "\(error)"])
                for operation in group { operation.refuse(storageFailure(error)) }
            }
            return []
        }
    }

    /// Runs one operation so that its failure undoes only itself.
    /// - Throws: when the whole transaction is lost.
    private func attempt(
        _ operation: Operation, aloneIn isAlone: Bool, on connection: Connection
    ) throws(SQLiteError) -> Attempt {
        beginStep(operation.priority)
        if !isAlone { try connection.run("SAVEPOINT operation") }
        let changesBefore = connection.totalChanges
        let attempt = operation.attempt(connection)
        count(changes: connection.totalChanges - changesBefore, operation.priority)
        if let error = attempt.error {
            if let error = error as? SQLiteError { logger.error("a write failed", metadata: ["error": "\(error)"]) }
            // SQLite rolls back by itself after some failures: https://sqlite.org/lang_transaction.html
            guard connection.isInTransaction else {
                throw error as? SQLiteError ?? SQLiteError(code: 1, message: "the transaction was lost: \(error)")
            }
            try connection.run(isAlone ? "ROLLBACK" : "ROLLBACK TO operation")
        }
        if !isAlone { try connection.run("RELEASE operation") }
        guard let error = attempt.error as? SQLiteError else { return attempt }
        return Attempt(error: error) { operation.refuse(error.failure) }
    }

    private func beginStep(_ priority: Priority) {
        let now = microseconds()
        switch priority {
        case .foreground:
            stepEnds.store(now + StorageLimits.foregroundStepMicroseconds, ordering: .relaxed)
            stepYields.store(.max, ordering: .relaxed)
        case .background:
            stepEnds.store(now + StorageLimits.backgroundStepMicroseconds, ordering: .relaxed)
            stepYields.store(now + queue.withLock { $0.share.credit }, ordering: .relaxed)
        }
    }

    /// A commit syncs the log only when an operation in the group needs it. The next synced commit makes everything
    /// before it durable too, because it syncs the same file.
    private func setSynchronous(for group: ArraySlice<Operation>, on connection: Connection) throws(SQLiteError) {
        let isDurable =
            fullSynchronous && group.contains { $0.priority == .foreground && $0.persistence == .durable }
        if isDurable {
            try connection.run("PRAGMA synchronous = FULL")
        } else {
            try connection.run("PRAGMA synchronous = NORMAL")
        }
    }

    private func count(changes: Int, _ priority: Priority) {
        statisticsBox.withLock { statistics in
            switch priority {
            case .foreground: statistics.mostForegroundChanges = max(statistics.mostForegroundChanges, changes)
            case .background: statistics.mostBackgroundChanges = max(statistics.mostBackgroundChanges, changes)
            }
        }
    }

    private func count(_ operations: Int, commit: Duration) {
        statisticsBox.withLock { statistics in
            statistics.operations += operations
            statistics.groups += 1
            statistics.largestGroup = max(statistics.largestGroup, operations)
            statistics.groupSizes.add(Double(operations))
            statistics.commitSeconds.add(commit.seconds)
        }
    }
}

/// How long background work may keep foreground operations waiting: a fixed share of the time those have taken.
struct BackgroundShare {
    /// Microseconds; never more than one step.
    private(set) var credit: Int64 = 0

    /// Whether a whole step is due although foreground operations wait.
    var isDue: Bool { credit >= StorageLimits.backgroundStepMicroseconds }

    mutating func add(_ microseconds: Int64, isBackground: Bool) {
        if isBackground {
            credit = max(0, credit - microseconds)
        } else {
            let earned = microseconds / StorageLimits.foregroundTimePerBackgroundTime
            credit = min(StorageLimits.backgroundStepMicroseconds, credit + earned)
        }
    }
}

/// The failure that a caller sees for an error of the engine.
func storageFailure(_ error: any Error) -> any Error {
    if let error = error as? SQLiteError { return error.failure }
    return error
}
