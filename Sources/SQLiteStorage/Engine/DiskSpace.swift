// Whether the database may grow, and the space kept in reserve for when the disk is full. docs/design/full-disk.md.

import Domain
import Glibc
import Logging
import Synchronization

/// What the file system of the database has left, and what is done when that is not enough.
///
/// Removing rows needs space too, because every change is written to the log first. So a file beside the database holds
/// some space for as long as there is enough. When there is not, *growing* writes are refused, and what is left belongs
/// to *shrinking* ones: they use up the rest of the disk, then the space of that file, part by part. Once there is room
/// for the file again and a margin, growing writes are accepted again.
///
/// Everything but ``isShort``, ``refusal()`` and ``figures`` is called on the writer's thread.
final class DiskSpace: Sendable {
    /// What the file system says.
    struct Volume: Sendable {
        /// Bytes that this process may still use on the file system of a path; nil if it does not say.
        var freeBytes: @Sendable (String) -> Int?
        /// Gives a file exactly this many bytes of real disk space, creating it if needed.
        /// - Returns: whether that succeeded; if not, the file is as it was.
        var allocate: @Sendable (String, Int) -> Bool
        /// Shortens a file.
        var shorten: @Sendable (String, Int) -> Void
        /// How long an answer of ``freeBytes`` that is far from the limit is believed.
        var trustMilliseconds = StorageLimits.checkMilliseconds
    }

    struct Figures: Sendable, Equatable {
        var isShort = false
        var freeBytes: Int?
        var reserveBytes = 0
        var refusedWrites = 0
    }

    private struct State {
        /// What the reserve holds.
        var reserveBytes: Int
        var shortSince: Int64?
        /// When a line about a shortage was last logged, and whether one was about the present shortage: a disk that is
        /// full again and again must not fill the log.
        var loggedAt: Int64?
        var isLogged = false
        var refusedWhenLogged = 0
        /// The last answer of the file system, when it was given, and what may have been used since.
        var known: (freeBytes: Int, at: Int64, used: Int)?

        /// Whether a line may be logged now, which then counts as logged.
        mutating func isLogDue(_ now: Int64, _ refused: Int) -> Bool {
            if let loggedAt, now - loggedAt < StorageLimits.shortageReminderMilliseconds { return false }
            (loggedAt, isLogged, refusedWhenLogged) = (now, true, refused)
            return true
        }
    }

    private let database: String
    private let volume: Volume
    private let milliseconds: @Sendable () -> Int64
    private let logger: Logger
    private let state: Mutex<State>
    private let short = Atomic(false)
    private let refused = Atomic(0)

    private var reserve: String { database + ".reserve" }

    /// - Parameter milliseconds: a clock that never steps.
    init(
        database: String, logger: Logger, volume: Volume = .system,
        milliseconds: @escaping @Sendable () -> Int64 = monotonicMilliseconds
    ) {
        self.database = database
        self.logger = logger
        self.volume = volume
        self.milliseconds = milliseconds
        state = Mutex(State(reserveBytes: Self.size(of: database + ".reserve")))
    }

    /// Whether growing writes are refused.
    var isShort: Bool { short.load(ordering: .relaxed) }

    var figures: Figures {
        Figures(
            isShort: isShort, freeBytes: volume.freeBytes(database),
            reserveBytes: state.withLock { $0.reserveBytes },
            refusedWrites: refused.load(ordering: .relaxed))
    }

    /// Counts a growing write that is refused.
    /// - Returns: the failure for its caller.
    func refusal() -> Failure {
        refused.wrappingAdd(1, ordering: .relaxed)
        return .storageFull
    }

    /// Makes the reserve, or keeps the one that is there; without room for it, the shortage begins.
    func start() {
        if !restore(besides: 0) { begin() }
    }

    /// Whether a write may take this many bytes. A file system that does not say how much is left is believed to have
    /// enough until it fails.
    ///
    /// The file system is asked for each write only when not much is left.
    func hasRoom(for bytes: Int) -> Bool {
        let now = milliseconds()
        let isAmple = state.withLock { state in
            guard let known = state.known, now - known.at < volume.trustMilliseconds,
                known.freeBytes - known.used - bytes >= StorageLimits.ampleFreeBytes
            else { return false }
            state.known!.used += bytes
            return true
        }
        if isAmple { return true }
        guard let free = volume.freeBytes(database) else { return true }
        state.withLock { $0.known = (free, now, bytes) }
        return free >= bytes + StorageLimits.minFreeBytes
    }

    /// Refuses growing writes from now on.
    func begin() {
        let now = milliseconds()
        let mustLog = state.withLock { state in
            guard state.shortSince == nil else { return false }
            state.shortSince = now
            return state.isLogDue(now, refused.load(ordering: .relaxed))
        }
        short.store(true, ordering: .relaxed)
        guard mustLog else { return }
        logger.error("the disk is full: writes are refused, except those that remove something", metadata: metadata())
    }

    /// Gives up a part of the reserve for shrinking writes. Only a part, because anybody may take it.
    /// - Returns: whether there was one.
    func giveUpReserve() -> Bool {
        let left: Int? = state.withLock { state in
            guard state.reserveBytes > 0 else { return nil }
            state.reserveBytes = max(0, state.reserveBytes - StorageLimits.reservePartBytes)
            return state.reserveBytes
        }
        guard let left else { return false }
        volume.shorten(reserve, left)
        return true
    }

    /// Ends the shortage if there is room for the reserve and a margin; otherwise logs once a minute that it goes on.
    /// - Parameter bytes: what the log will still take of the database's file system.
    /// - Returns: whether growing writes are accepted.
    @discardableResult
    func restore(besides bytes: Int) -> Bool {
        let missing = max(0, StorageLimits.reserveBytes - state.withLock { $0.reserveBytes })
        let wanted = missing + bytes + StorageLimits.reserveMarginBytes
        guard volume.freeBytes(database).map({ $0 >= wanted }) ?? true,
            missing == 0 || volume.allocate(reserve, StorageLimits.reserveBytes)
        else {
            remind()
            return false
        }
        let since = state.withLock { state in
            defer { (state.shortSince, state.isLogged) = (nil, false) }
            state.reserveBytes = StorageLimits.reserveBytes
            return state.isLogged ? state.shortSince : nil
        }
        short.store(false, ordering: .relaxed)
        if let since {
            var metadata = metadata()
            metadata["seconds"] = "\((milliseconds() - since) / 1000)"
            logger.notice("there is space on the disk again: writes are accepted", metadata: metadata)
        }
        return true
    }

    private func remind() {
        let now = milliseconds()
        let refusedNow = refused.load(ordering: .relaxed)
        let refusedSince: Int? = state.withLock { state in
            let before = state.refusedWhenLogged
            guard state.shortSince != nil, state.isLogDue(now, refusedNow) else { return nil }
            return refusedNow - before
        }
        guard let refusedSince else { return }
        var metadata = metadata()
        metadata["refused_since"] = "\(refusedSince)"
        logger.error("the disk is still full", metadata: metadata)
    }

    private func metadata() -> Logger.Metadata {
        [
            "database": "\(database)", "free_bytes": "\(volume.freeBytes(database).map { "\($0)" } ?? "unknown")",
            "refused_writes": "\(refused.load(ordering: .relaxed))",
        ]
    }

    /// Bytes that a file really takes on the disk, but not more than its size.
    private static func size(of path: String) -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? min(Int(status.st_blocks) * 512, Int(status.st_size)) : 0
    }
}

extension DiskSpace.Volume {
    static let system = Self(
        freeBytes: { path in
            let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
            return FreeSpace.bytes(at: folder)
        },
        allocate: { path, bytes in
            guard (try? PrivateFile.createIfMissing(path)) != nil else { return false }
            let descriptor = open(path, O_RDWR | O_CLOEXEC)
            guard descriptor >= 0 else { return false }
            defer { close(descriptor) }
            var status = stat()
            guard fstat(descriptor, &status) == 0 else { return false }
            if posix_fallocate(descriptor, 0, off_t(bytes)) == 0, ftruncate(descriptor, off_t(bytes)) == 0 {
                return true
            }
            ftruncate(descriptor, status.st_size)
            return false
        },
        shorten: { path, bytes in truncate(path, off_t(bytes)) })
}

extension Failure {
    static let storageFull = Failure(
        .storageFull,
        "The disk is full: nothing was stored. Free space on the disk of the database, or delete entries, sessions or "
            + "namespaces, which also works on a full disk. The service notices by itself.")
}
