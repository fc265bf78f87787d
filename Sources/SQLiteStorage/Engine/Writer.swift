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

    /// What an operation does to the space that the database takes.
    enum Growth {
        /// May need more. Refused with `storage_full` while the disk is full.
        case growing
        /// Needs none afterwards: it removes rows, or changes them where they are. Also runs on a full disk, in the
        /// space kept in reserve.
        case shrinking
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
        let growth: Growth
        let attempt: @Sendable (Connection) -> Attempt
        let refuse: @Sendable (any Error) -> Void
    }

    /// An operation that was run. `reply` is called once its transaction is committed.
    private struct Attempt {
        let error: (any Error)?
        let reply: () -> Void
    }

    typealias RoomMaker = @Sendable (_ pages: Int, Connection) throws -> @Sendable (_ isCommitted: Bool) -> Void

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
    private let space: DiskSpace
    private let files: DatabaseFiles
    /// Whether the files were not in place when they were last looked for, so that only changes are logged.
    private let areFilesGone = Atomic(false)
    private let filesCheckedAt = Atomic<Int64>(0)
    /// Whether a shrinking operation was committed while the disk was full.
    private let hasShrunk = Atomic(false)
    /// The limit of the database's size that is to be held.
    private let limit = Mutex<DatabaseLimit?>(nil)
    /// Frees pages for what is written, in a transaction; what it returns is called after that.
    private let roomMaker = Mutex<RoomMaker?>(nil)
    /// The limit that SQLite has been told. Used on the writer's thread only.
    private let heldPages = Atomic(StorageLimits.maxDatabasePages)
    private let limitLoggedAt = Atomic<Int64>(.min)
    /// Writes refused because of the limit.
    let limitRefusals = Atomic(0)
    private let microseconds: @Sendable () -> Int64
    /// When the current operation must end its step, and when it must do so if a foreground operation is waiting.
    private let stepEnds = Atomic<Int64>(.max)
    private let stepYields = Atomic<Int64>(.max)
    private let nextCheckpointPages = Atomic(StorageLimits.checkpointPages)
    private let logger: Logger

    /// - Parameters:
    ///   - connection: a configured connection in mode `.writer`.
    ///   - snapshots: notified of each commit, and told to end for a checkpoint.
    ///   - space: says whether the database may grow.
    ///   - files: of `connection`; nothing is written while they are not in place.
    ///   - microseconds: a clock that never steps.
    init(
        connection: sending Connection, isDurable: Bool, snapshots: Snapshots, space: DiskSpace, files: DatabaseFiles,
        logger: Logger,
        microseconds: @escaping @Sendable () -> Int64 = monotonicMicroseconds
    ) {
        self.connection = Mutex(connection)
        self.fullSynchronous = isDurable
        self.snapshots = snapshots
        self.space = space
        self.files = files
        self.logger = logger
        self.microseconds = microseconds
        thread.start()
    }

    /// Waiting operations, and the bytes they hold.
    var waiting: (operations: Int, bytes: Int) {
        queue.withLock { ($0.foreground.count + $0.background.count, $0.bytes) }
    }

    var statistics: Statistics { statisticsBox.withLock { $0 } }

    /// What is written together with each foreground operation of the current task that changes something: both are
    /// committed, or neither is.
    @TaskLocal static var companion: (@Sendable (Connection) throws -> Void)?

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
        _ growth: Growth = .growing, _ body: @escaping @Sendable (Connection) throws -> T
    ) async throws -> T {
        if priority == .background, Task.isCancelled { throw Failure.shuttingDown }
        // Without a turn on the writer's thread, so that refusals cost next to nothing.
        if growth == .growing, space.isShort { throw space.refusal() }
        guard priority == .foreground, let companion = Self.companion else {
            return try await enqueued(priority, bytes: bytes, persistence, growth, isInTransaction: true, body)
        }
        // What it writes is less than a page.
        return try await enqueued(
            priority, bytes: bytes + Connection.pageBytes, persistence, growth, isInTransaction: true
        ) { connection in
            let changesBefore = connection.totalChanges
            let value = try body(connection)
            if connection.totalChanges > changesBefore { try companion(connection) }
            return value
        }
    }

    /// Runs `body` as a background operation outside any transaction, between two groups. Also in a cancelled task.
    /// - Throws: what `body` throws, SQLite's errors as the caller's failures; `shutting_down`.
    func performOutsideTransaction<T: Sendable>(
        _ body: @escaping @Sendable (Connection) throws -> T
    ) async throws -> T {
        try await enqueued(.background, bytes: 0, .withNext, .shrinking, isInTransaction: false, body)
    }

    private func enqueued<T: Sendable>(
        _ priority: Priority, bytes: Int, _ persistence: Persistence, _ growth: Growth, isInTransaction: Bool,
        _ body: @escaping @Sendable (Connection) throws -> T
    ) async throws -> T {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<T, any Error>) in
            let operation = Operation(
                priority: priority, bytes: bytes, persistence: persistence, isInTransaction: isInTransaction,
                growth: growth,
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
            if truncating { try self.truncateLog(connection) } else { _ = try self.checkpoint(.passive, connection) }
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
        // On a full disk, so that the log fits into the reserve.
        let isLong = space.isShort && pages >= StorageLimits.fullDiskCheckpointPages
        guard isLong || pages >= nextCheckpointPages.load(ordering: .relaxed) else {
            // The log was restarted.
            if pages < StorageLimits.checkpointPages {
                nextCheckpointPages.store(StorageLimits.checkpointPages, ordering: .relaxed)
            }
            return
        }
        do {
            let isComplete = try checkpoint(.passive, connection)
            nextCheckpointPages.store((isComplete ? 0 : pages) + StorageLimits.checkpointPages, ordering: .relaxed)
        } catch {
            logger.warning("a checkpoint failed and will be retried", metadata: ["error": "\(error)"])
        }
    }

    /// Writes the log back, which may make the database's file larger: if there is no space for that, in the reserve,
    /// but only if something was removed, because otherwise it would be used up in vain.
    /// - Returns: whether the whole log is written back. False, without an error, on a disk that is too full.
    private func checkpoint(_ mode: Connection.CheckpointMode, _ connection: Connection) throws(SQLiteError) -> Bool {
        while true {
            do {
                return try snapshots.checkpoint { () throws(SQLiteError) in try connection.checkpoint(mode) }
            } catch let error where error.isOfFullDisk {
                space.begin()
                guard hasShrunk.load(ordering: .relaxed), space.giveUpReserve() else { return false }
            }
        }
    }

    /// Writes the log back, waits a moment for readers, and gives its space back to the file system.
    private func truncateLog(_ connection: Connection) throws(SQLiteError) {
        try connection.execute("PRAGMA busy_timeout = 50")
        defer { try? connection.execute("PRAGMA busy_timeout = 5000") }
        _ = try checkpoint(.truncate, connection)
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
        guard areFilesInPlace(for: group) else {
            for operation in group { operation.refuse(Failure.databaseReplaced) }
            return
        }
        if group.contains(where: { $0.growth == .growing }), !hasRoom(for: group, connection) {
            guard group.count == 1 else { return commitSingly(group, on: connection) }
            return refuse(group.first!, connection)
        }
        if group.contains(where: { $0.growth == .growing }), let obstacle = obstacle(to: group, connection) {
            guard group.count == 1 else { return commitSingly(group, on: connection) }
            return refuse(group.first!, because: obstacle)
        }
        while !rest.isEmpty { rest = commitFront(of: rest, on: connection) }
    }

    /// Asks the file system whether the files are still those that were opened.
    var areFilesInPlace: Bool { files.areInPlace }

    private func areFilesInPlace(for group: ArraySlice<Operation>) -> Bool {
        let now = monotonicMilliseconds()
        if !mustSync(group), now - filesCheckedAt.load(ordering: .relaxed) < StorageLimits.checkMilliseconds {
            return !areFilesGone.load(ordering: .relaxed)
        }
        filesCheckedAt.store(now, ordering: .relaxed)
        let areInPlace = files.areInPlace
        if areFilesGone.exchange(!areInPlace, ordering: .relaxed) == areInPlace {
            if areInPlace {
                logger.notice("the database's files are back in place: writes are accepted")
            } else {
                logger.critical("the database's file or its log was removed, moved or replaced: writes are refused")
            }
        }
        return areInPlace
    }

    /// - Returns: the operations left for another transaction.
    private func commitFront(of group: ArraySlice<Operation>, on connection: Connection) -> ArraySlice<Operation> {
        do {
            return group.dropFirst(try transact(group, on: connection))
        } catch let error where error.isOfFullDisk {
            commitOnFullDisk(group, on: connection)
        } catch {
            if group.count > 1 {
                logger.warning(
                    "a group commit failed; trying its operations one by one", metadata: ["error": "\(error)"])
                commitSingly(group, on: connection)
            } else {
                logger.error("a write failed", metadata: ["error": "\(error)"])
                for operation in group { operation.refuse(storageFailure(error)) }
            }
        }
        return []
    }

    // MARK: Under a limit

    /// Holds a limit from the next group on.
    func setLimit(_ limit: DatabaseLimit?) { self.limit.withLock { $0 = limit } }

    /// Calls `maker` when there is no room under the limit.
    func makeRoom(_ maker: @escaping RoomMaker) { roomMaker.withLock { $0 = maker } }

    /// Why a group of writes does not fit under the limit, after as much as necessary was evicted; nil if it fits.
    private func obstacle(to group: ArraySlice<Operation>, _ connection: Connection) -> DatabaseLimit.Obstacle? {
        let limit = limit.withLock { $0 }
        do {
            try hold(limit, connection)
            guard let limit else { return nil }
            let bytes = group.reduce(0) { $0 + $1.bytes }
            let pages = DatabaseLimit.pages(of: group.count, bytes: bytes)
            let excess = try connection.pages() + pages - limit.growingPages
            if try connection.freePages() < excess {
                // Some more, so that this need not be done for each group.
                let couldGoOn = try relieve(excess + limit.pages / 64, under: limit, on: connection)
                guard try connection.freePages() >= excess else { return couldGoOn ? .data(limit) : .log(limit) }
            }
            let logBytes = DatabaseLimit.logBytes(of: group.count, bytes: bytes)
            return try hasLogRoom(for: logBytes, under: limit, connection) ? nil : .log(limit)
        } catch {
            logger.warning("no room could be made under max_database_bytes", metadata: ["error": "\(error)"])
            return limit.map { .data($0) }
        }
    }

    /// Lets SQLite hold the limit itself, in case an estimate is too low. A database that is larger, because the limit
    /// was lowered, gets some pages more, which removals may need before they free others.
    private func hold(_ limit: DatabaseLimit?, _ connection: Connection) throws(SQLiteError) {
        var pages = limit?.pages ?? StorageLimits.maxDatabasePages
        if limit != nil, case let present = try connection.pages(), present > pages {
            pages = present + StorageLimits.spareLimitedPages
        }
        guard heldPages.exchange(pages, ordering: .relaxed) != pages else { return }
        try connection.execute("PRAGMA max_page_count = \(pages)")
    }

    private func hasLogRoom(for bytes: Int, under limit: DatabaseLimit, _ connection: Connection) throws -> Bool {
        if connection.logBytes(with: bytes) > limit.logBytes { try truncateLog(connection) }
        return connection.logBytes(with: bytes) <= limit.logBytes
    }

    /// Evicts entries until this many pages are free, in transactions of their own.
    /// - Returns: false if there was no room in the log to go on.
    private func relieve(_ pages: Int, under limit: DatabaseLimit, on connection: Connection) throws -> Bool {
        guard let maker = roomMaker.withLock({ $0 }) else { return true }
        while true {
            let before = try connection.freePages()
            guard before < pages else { return true }
            guard try hasLogRoom(for: StorageLimits.reliefLogBytes, under: limit, connection) else { return false }
            try connection.execute("PRAGMA synchronous = NORMAL")
            try connection.run("BEGIN IMMEDIATE")
            var finish: @Sendable (Bool) -> Void = { _ in }
            do {
                finish = try maker(pages, connection)
                try snapshots.commit { () throws(SQLiteError) in
                    try connection.run("COMMIT")
                }
                finish(true)
            } catch {
                finish(false)
                guard connection.isInTransaction else { throw error }
                try? connection.run("ROLLBACK")
                throw error
            }
            if try connection.freePages() <= before { return true }
        }
    }

    private func refuse(_ operation: Operation, because obstacle: DatabaseLimit.Obstacle) {
        let now = monotonicMilliseconds()
        let last = limitLoggedAt.load(ordering: .relaxed)
        if last == .min || now - last >= StorageLimits.shortageReminderMilliseconds {
            limitLoggedAt.store(now, ordering: .relaxed)
            logger.error("\(obstacle.summary)", metadata: ["max_database_bytes": "\(obstacle.limit.bytes)"])
        }
        limitRefusals.wrappingAdd(1, ordering: .relaxed)
        operation.refuse(obstacle.failure)
    }

    private func commitSingly(_ group: ArraySlice<Operation>, on connection: Connection) {
        for index in group.indices { commit(group[index...index], on: connection) }
    }

    /// Runs operations in one transaction until their time is up, commits it and answers them.
    /// - Returns: how many were run.
    /// - Throws: when nothing of it was stored, and nobody is answered.
    private func transact(_ group: ArraySlice<Operation>, on connection: Connection) throws(SQLiteError) -> Int {
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
        } catch {
            if connection.isInTransaction { try? connection.run("ROLLBACK") }
            throw error
        }
        for attempt in attempts { attempt.reply() }
        if space.isShort { hasShrunk.store(true, ordering: .relaxed) }
        return attempts.count
    }

    // MARK: On a full disk

    /// Whether the disk has space for a group of writes: for their pages in the log, for the same pages in the
    /// database, and for what is in the log already and will make the database's file larger.
    private func hasRoom(for group: ArraySlice<Operation>, _ connection: Connection) -> Bool {
        if space.isShort { return false }
        let bytes = 2 * group.reduce(0) { $0 + $1.bytes }
        if space.hasRoom(for: bytes + connection.pagesInLog * Connection.pageBytes) { return true }
        // Most pages in the log are in the database's file already, and need no space there.
        if space.hasRoom(for: bytes + connection.bytesBeyondFile) { return true }
        do { try truncateLog(connection) } catch {
            logger.warning("a checkpoint failed and will be retried", metadata: ["error": "\(error)"])
        }
        return space.hasRoom(for: bytes + connection.bytesBeyondFile)
    }

    /// Refuses a growing operation for which there is no space. The disk is full unless only a large one does not fit.
    private func refuse(_ operation: Operation, _ connection: Connection) {
        let most = StorageLimits.mostBytesOfSmallWrite
        if operation.bytes <= most || !space.hasRoom(for: connection.bytesBeyondFile + 2 * most) { space.begin() }
        operation.refuse(space.refusal())
    }

    /// Runs the operations of a transaction that did not fit on the disk: each by itself, those that only remove in the
    /// reserve.
    private func commitOnFullDisk(_ group: ArraySlice<Operation>, on connection: Connection) {
        // The pages that did not fit are still in the file of the log.
        try? truncateLog(connection)
        guard group.count == 1, let operation = group.first else { return commitSingly(group, on: connection) }
        if let limit = limit.withLock({ $0 }), operation.growth == .growing {
            let pages = (try? connection.pages()) ?? 0
            if pages + DatabaseLimit.pages(of: 1, bytes: operation.bytes) > limit.growingPages {
                return refuse(operation, because: .data(limit))
            }
        }
        guard operation.growth == .shrinking else { return refuse(operation, connection) }
        space.begin()
        do {
            try transactInReserve(operation, on: connection)
        } catch {
            logger.error("a write failed", metadata: ["error": "\(error)"])
            operation.refuse(storageFailure(error))
        }
    }

    private func transactInReserve(_ operation: Operation, on connection: Connection) throws(SQLiteError) {
        while true {
            do {
                _ = try transact([operation], on: connection)
                return
            } catch let error where error.isOfFullDisk && space.giveUpReserve() {
                // Once more, in what was given up.
            }
        }
    }

    /// Accepts growing writes again if there is space for them: called once a second while there is none.
    func restoreSpace() async throws {
        try await betweenGroups { connection in
            try self.truncateLog(connection)
            if self.space.restore(besides: connection.bytesBeyondFile) {
                self.hasShrunk.store(false, ordering: .relaxed)
            }
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
            if let error = error as? SQLiteError {
                // What it was not able to write may be in the way of the others, too.
                if error.isOfFullDisk { throw error }
                logger.error("a write failed", metadata: ["error": "\(error)"])
            }
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

    private func mustSync(_ group: ArraySlice<Operation>) -> Bool {
        fullSynchronous && group.contains { $0.priority == .foreground && $0.persistence == .durable }
    }

    /// A commit syncs the log only when an operation in the group needs it. The next synced commit makes everything
    /// before it durable too, because it syncs the same file.
    private func setSynchronous(for group: ArraySlice<Operation>, on connection: Connection) throws(SQLiteError) {
        if mustSync(group) {
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
