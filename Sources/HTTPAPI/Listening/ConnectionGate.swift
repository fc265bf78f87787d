// Who may connect when the server has as many connections as it can hold: those that do nothing give way.

import Domain
import Logging
import NIOCore
import NIOSSL
import Synchronization

/// What a connection is doing, as far as giving way to others goes. Written by its handlers, read by the gate.
final class ConnectionActivity: Sendable {
    let channel: any Channel
    private let requests = Atomic(0)
    /// When it last had a request, or was opened.
    private let idleSince: Atomic<UInt64>
    /// When the body that is arriving began; 0 if none is.
    private let bodySince = Atomic<UInt64>(0)
    private let bodyBytes = Atomic(0)
    /// Since when the client has read nothing of an answer that is waiting for it; 0 if it reads.
    private let stalledSince = Atomic<UInt64>(0)
    /// What has arrived of a head that is not complete, and since when.
    private let headBytes = Atomic(0)
    private let headSince = Atomic<UInt64>(0)
    /// Whether it gives way for its head, and counts no more.
    private let isLeaving = Atomic(false)

    init(channel: any Channel, now: NIODeadline = .now()) {
        self.channel = channel
        idleSince = Atomic(now.uptimeNanoseconds)
    }

    func requestBegan() { requests.wrappingAdd(1, ordering: .relaxed) }

    func requestEnded(now: NIODeadline = .now()) {
        idleSince.store(now.uptimeNanoseconds, ordering: .relaxed)
        requests.wrappingSubtract(1, ordering: .relaxed)
    }

    func bodyBegan(now: NIODeadline = .now()) {
        bodyBytes.store(0, ordering: .relaxed)
        bodySince.store(now.uptimeNanoseconds, ordering: .relaxed)
    }

    func bodyArrived(_ count: Int) { bodyBytes.wrappingAdd(count, ordering: .relaxed) }

    func bodyEnded() { bodySince.store(0, ordering: .relaxed) }

    func stalled(since: NIODeadline?) { stalledSince.store(since?.uptimeNanoseconds ?? 0, ordering: .relaxed) }

    /// Notes how much has arrived of an incomplete head.
    /// - Returns: how much more that is than before.
    fileprivate func head(_ count: Int, now: NIODeadline) -> Int {
        let count = isLeaving.load(ordering: .relaxed) ? 0 : count
        let before = headBytes.exchange(count, ordering: .relaxed)
        if before == 0 { headSince.store(now.uptimeNanoseconds, ordering: .relaxed) }
        return count - before
    }

    /// Since when a long head has been arriving, and how much of it is there.
    fileprivate var head: (since: UInt64, bytes: Int) {
        (headSince.load(ordering: .relaxed), headBytes.load(ordering: .relaxed))
    }

    /// Who goes first; nil for a connection that does not give way.
    ///
    /// First those between two requests, of which one is idle the longest; then those whose request arrives more slowly
    /// than it may, or that do not read their answer. Everybody has a little time first.
    fileprivate func rank(now: NIODeadline) -> Rank? {
        let now = now.uptimeNanoseconds
        func age(_ since: UInt64) -> Double { since < now ? Double(now - since) / 1e9 : 0 }
        if requests.load(ordering: .relaxed) <= 0 {
            let idle = age(idleSince.load(ordering: .relaxed))
            return idle >= Limits.minIdleSeconds ? Rank(isIdle: true, seconds: idle) : nil
        }
        let body = bodySince.load(ordering: .relaxed)
        if body > 0, age(body) >= Limits.minSlowBodySeconds {
            let bytes = Double(bodyBytes.load(ordering: .relaxed))
            if bytes < age(body) * Double(Limits.minStreamedBytesPerSecond) {
                return Rank(isIdle: false, seconds: age(body))
            }
        }
        let stalled = stalledSince.load(ordering: .relaxed)
        if stalled > 0, age(stalled) >= Limits.minStalledSeconds { return Rank(isIdle: false, seconds: age(stalled)) }
        return nil
    }

    /// Closes the connection at once. Over TLS, a client could otherwise delay the end by not agreeing to it.
    /// - Parameter isUrgent: whether that must happen before its event loop reads more for others, if possible.
    fileprivate func giveWay(isUrgent: Bool = false) {
        let channel = channel
        @Sendable func close() {
            if let secure = try? channel.pipeline.syncOperations.context(handlerType: NIOSSLServerHandler.self) {
                secure.close(promise: nil)
            } else {
                channel.close(promise: nil)
            }
        }
        if isUrgent, channel.eventLoop.inEventLoop { close() } else { channel.eventLoop.execute { close() } }
    }

    /// - Returns: how many bytes of a head it held.
    fileprivate func leave() -> Int {
        isLeaving.store(true, ordering: .relaxed)
        return headBytes.exchange(0, ordering: .relaxed)
    }

    fileprivate struct Rank: Comparable {
        let isIdle: Bool
        let seconds: Double

        static func < (one: Rank, other: Rank) -> Bool {
            one.isIdle == other.isIdle ? one.seconds < other.seconds : other.isIdle
        }
    }
}

/// Bounds the connections of all listeners together.
final class ConnectionGate: Sendable {
    private struct State {
        var connections: [ObjectIdentifier: ConnectionActivity] = [:]
        /// Those that give way, until they are closed.
        var leaving: Set<ObjectIdentifier> = []
        var streams = 0
        /// Most connections since there were few.
        var peak = 0
        /// When an event that can come thousands of times a second was last logged.
        var reportedAt: ContinuousClock.Instant?

        /// - Returns: whether most of a burst is over.
        mutating func closed(_ id: ObjectIdentifier) -> Bool {
            connections[id] = nil
            leaving.remove(id)
            guard peak >= Limits.burstConnections, connections.count <= peak / 4 else { return false }
            peak = connections.count
            return true
        }
    }

    let limit: Int
    private let state = Mutex(State())
    private let heldHeadBytes = Atomic(0)
    private let afterBurst: @Sendable () -> Void

    /// - Parameter afterBurst: called on an event loop when most of many connections have closed.
    init(limit: Int, afterBurst: @escaping @Sendable () -> Void = {}) {
        self.limit = limit
        self.afterBurst = afterBurst
    }

    var count: Int { state.withLock { $0.connections.count } }

    /// A connection has been accepted; counted until it closes.
    @discardableResult
    func opened(_ channel: any Channel) -> ConnectionActivity {
        let id = ObjectIdentifier(channel)
        let (activity, isNew) = state.withLock { state in
            if let known = state.connections[id] { return (known, false) }
            let activity = ConnectionActivity(channel: channel)
            state.connections[id] = activity
            state.peak = max(state.peak, state.connections.count)
            return (activity, true)
        }
        if isNew {
            channel.closeFuture.whenComplete { [weak self] _ in
                guard let self, self.state.withLock({ $0.closed(id) }) else { return }
                self.afterBurst()
            }
        }
        return activity
    }

    /// A client opens a stream on an HTTP/2 connection; counted until it closes.
    /// - Throws: ``TooManyStreams``, which refuses it.
    func opened(stream: any Channel) throws(TooManyStreams) {
        try state.withLock { state throws(TooManyStreams) in
            guard state.streams < limit else { throw TooManyStreams() }
            state.streams += 1
        }
        stream.closeFuture.whenComplete { [weak self] _ in self?.state.withLock { $0.streams -= 1 } }
    }

    /// Notes how much has arrived of a head that is not complete; 0 when it is.
    ///
    /// Incomplete heads are held in memory. When they are too many bytes, those that began first give way, however
    /// shortly ago that was: an honest head of that size is complete in an instant.
    func head(_ count: Int, of activity: ConnectionActivity, now: NIODeadline = .now()) {
        let change = activity.head(count, now: now)
        guard change != 0 else { return }
        let held = heldHeadBytes.add(change, ordering: .relaxed).newValue
        if change > 0, held > Limits.maxHeldHeadBytes { dropHeads(of: held) }
    }

    /// Closes connections until those that are left hold three quarters of what they may.
    private func dropHeads(of held: Int) {
        let holders = state.withLock { state in
            state.connections.values.map { ($0, $0.head) }.filter { $0.1.bytes > 0 }
        }
        var excess = held - Limits.maxHeldHeadBytes / 4 * 3
        for (activity, _) in holders.sorted(by: { $0.1.since < $1.1.since }) where excess > 0 {
            let bytes = activity.leave()
            heldHeadBytes.subtract(bytes, ordering: .relaxed)
            excess -= bytes
            activity.giveWay(isUrgent: true)
        }
    }

    /// Closes some of the connections that give way.
    /// - Returns: how many are about to be closed.
    @discardableResult
    func makeRoom(now: NIODeadline = .now()) -> Int {
        let (first, leaving) = state.withLock { state in
            guard state.leaving.isEmpty else { return ([ConnectionActivity](), state.leaving.count) }
            let ranked = state.connections.values.compactMap { activity in
                activity.rank(now: now).map { (activity, $0) }
            }
            let first = ranked.sorted { $0.1 > $1.1 }.prefix(Limits.connectionsThatGiveWay).map(\.0)
            state.leaving = Set(first.map { ObjectIdentifier($0.channel) })
            return (first, first.count)
        }
        for activity in first { activity.giveWay() }
        return leaving
    }

    /// Whether an event that can come thousands of times a second should be logged now: once a minute.
    fileprivate func shouldReport() -> Bool {
        state.withLock { state in
            let now = ContinuousClock.now
            if let last = state.reportedAt, now - last < .seconds(60) { return false }
            state.reportedAt = now
            return true
        }
    }
}

/// There are as many streams on all HTTP/2 connections as there may be connections.
struct TooManyStreams: Error {}

/// Stops accepting when the gate is full, until somebody has given way or left.
final class AcceptHandler: ChannelDuplexHandler {
    typealias InboundIn = any Channel
    typealias InboundOut = any Channel
    typealias OutboundIn = Never

    private let gate: ConnectionGate
    private let logger: Logger
    private var waiting: Scheduled<Void>?
    private var isPaused = false

    init(gate: ConnectionGate, logger: Logger) {
        self.gate = gate
        self.logger = logger
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        gate.opened(unwrapInboundIn(data))
        context.fireChannelRead(data)
    }

    func read(context: ChannelHandlerContext) {
        guard waiting == nil else { return }
        if gate.count < gate.limit {
            guard isPaused else { return context.read() }
            isPaused = false
            // Reads by itself.
            try? context.channel.syncOptions?.setOption(.autoRead, value: true)
            return
        }
        // Those that give way close soon. Without any, those that finish by themselves are waited for.
        wait(gate.makeRoom() > 0 ? .milliseconds(1) : .milliseconds(20), context)
    }

    private func wait(_ delay: TimeAmount, _ context: ChannelHandlerContext) {
        waiting = context.eventLoop.assumeIsolated().scheduleTask(in: delay) {
            self.waiting = nil
            self.read(context: context)
        }
    }

    /// `accept` failed, as it does without free descriptors.
    ///
    /// NIO goes on watching a socket whose `accept` failed, and its `AcceptBackoffHandler` delays only reads that are
    /// asked for, so it would try again without a pause. It stops watching when `autoRead` is turned off.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard error is IOError else { return context.fireErrorCaught(error) }
        let given = gate.makeRoom()
        if waiting == nil {
            isPaused = true
            try? context.channel.syncOptions?.setOption(.autoRead, value: false)
            wait(given > 0 ? .milliseconds(20) : .seconds(1), context)
        }
        if gate.shouldReport() {
            logger.warning(
                "cannot accept connections: raise the limit of open files",
                metadata: [
                    "error": "\(error)", "connections": "\(gate.count)", "idle_connections_closed": "\(given)",
                ])
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) { waiting?.cancel() }
}
