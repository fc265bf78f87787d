// What must be decided on the connection, below any request: "100 Continue", bytes that are not HTTP, clients that
// stall.

import Domain
import HTTPTypes
import NIOCore
import NIOHTTP1
import NIOHTTPTypes

/// Answers `Expect: 100-continue`, and turns the bare 400 of a request that could not be parsed into a problem.
///
/// The order of responses on a connection is the order of its requests, so a 100 waits until the responses before it
/// are written. A request whose announced length is above any limit gets no 100: its sender is answered 413 instead of
/// being invited to send it.
///
/// A client that stops reading in the middle of an answer would hold its connection, and the value it reads, forever.
/// It is cut off once it has taken nothing for the idle timeout; one that reads slowly but steadily is not. A client
/// whose body hardly arrives is answered 408 (``BodyArrival``), and one that goes on sending a body that was answered
/// long ago is cut off.
final class ConnectionHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private var unanswered = 0
    private var drainedBytes = 0
    private var owesContinue = false
    private var refusal: Failure?
    private let stallTimeout: TimeAmount
    private var stall: Scheduled<Void>?
    private var window: Scheduled<Void>?
    private var arrival = BodyArrival()
    private let streamsBody: @Sendable (HTTPRequest) -> Bool
    private let activity: ConnectionActivity?
    private let isStream: Bool
    private let isInvited: @Sendable (HTTPRequest, any Channel) -> Bool

    /// - Parameters:
    ///   - stallTimeout: how long a client may read nothing of an answer that is waiting for it.
    ///   - streamsBody: whether a request's body is passed on as it arrives. Any other body is held in memory.
    ///   - isInvited: whether a caller who waits for 100 Continue gets it: not if its request will be refused.
    ///   - activity: where to note what the connection is doing.
    ///   - isStream: whether this is a stream of an HTTP/2 connection rather than a connection.
    init(
        stallTimeout: TimeAmount, streamsBody: @escaping @Sendable (HTTPRequest) -> Bool,
        isInvited: @escaping @Sendable (HTTPRequest, any Channel) -> Bool,
        activity: ConnectionActivity? = nil, isStream: Bool = false
    ) {
        self.stallTimeout = stallTimeout
        self.streamsBody = streamsBody
        self.isInvited = isInvited
        self.activity = activity
        self.isStream = isStream
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        stall?.cancel()
        stall = nil
        if context.channel.isWritable {
            activity?.stalled(since: nil)
        } else {
            activity?.stalled(since: .now())
            watchReader(context)
        }
        context.fireChannelWritabilityChanged()
    }

    /// The channel becomes writable again only when the kernel's buffer, which may hold megabytes, has emptied by a
    /// third; so what counts is what the client's machine has acknowledged.
    private func watchReader(_ context: ChannelHandlerContext) {
        // A stream that waits on a connection that would take more has a client that does not read it.
        let connection = isStream ? context.channel.parent : context.channel
        guard let connection, !connection.isWritable else { return scheduleStall(context, nil, seen: nil) }
        SentBytes.acknowledged(by: connection).assumeIsolated().whenComplete { result in
            // Perhaps it has been read in the meantime.
            guard !context.channel.isWritable else { return }
            self.scheduleStall(context, connection, seen: try? result.get())
        }
    }

    private func scheduleStall(_ context: ChannelHandlerContext, _ connection: (any Channel)?, seen: UInt64?) {
        stall = context.eventLoop.assumeIsolated().scheduleTask(in: stallTimeout) {
            guard let connection, let seen else { return context.close(promise: nil) }
            SentBytes.acknowledged(by: connection).assumeIsolated().whenComplete { result in
                guard let now = try? result.get(), now != seen else { return context.close(promise: nil) }
                guard !context.channel.isWritable else { return }
                self.activity?.stalled(since: .now())
                self.scheduleStall(context, connection, seen: now)
            }
        }
    }

    func handlerAdded(context: ChannelHandlerContext) {
        beginWindow(context)
    }

    private func beginWindow(_ context: ChannelHandlerContext) {
        window = context.eventLoop.assumeIsolated().scheduleTask(in: .seconds(Limits.bodyWindowSeconds)) {
            let stalled = self.arrival.windowEnds(streamsBody: self.streamsBody)
            self.beginWindow(context)
            if let stalled { context.fireErrorCaught(stalled) }
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        stall?.cancel()
        window?.cancel()
        // Those that nobody answered.
        for _ in 0..<unanswered { activity?.requestEnded() }
        activity?.bodyEnded()
        activity?.stalled(since: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            unanswered += 1
            drainedBytes = 0
            activity?.requestBegan()
            activity?.bodyBegan()
            arrival.headArrived(head)
            owesContinue = Self.expectsContinue(head) && isInvited(head, context.channel)
            sendContinueIfDue(context)
        case .body(let part):
            arrival.arrived(part.readableBytes)
            activity?.bodyArrived(part.readableBytes)
            guard unanswered > 0 else { return drain(part, context) }
        case .end:
            activity?.bodyEnded()
            arrival.bodyEnded()
        }
        context.fireChannelRead(data)
    }

    /// A client may send the rest of a body after its request was answered, for example with 413, and many read the
    /// answer only then. Up to a limit it is read and dropped.
    private func drain(_ part: ByteBuffer, _ context: ChannelHandlerContext) {
        drainedBytes += part.readableBytes
        if drainedBytes > Limits.maxDrainedBytes { context.close(promise: nil) }
    }

    func read(context: ChannelHandlerContext) {
        arrival.isReading = true
        context.read()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        arrival.isReading = false
        context.fireChannelReadComplete()
    }

    private static func expectsContinue(_ head: HTTPRequest) -> Bool {
        guard let expect = head.headerFields[.expect], expect.lowercased() == "100-continue" else { return false }
        return head.headerFields[.contentLength].flatMap { Int($0) } ?? 0 <= Limits.maxEntryBytesCeiling
    }

    private func sendContinueIfDue(_ context: ChannelHandlerContext) {
        guard owesContinue, unanswered == 1 else { return }
        owesContinue = false
        context.writeAndFlush(wrapOutboundOut(.head(HTTPResponse(status: .continue))), promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error {
        case let refused as RefusedRequest:
            refusal = refused.failure
            // The one error after which Hummingbird still answers.
            context.fireErrorCaught(HTTPParserError.unknown)
        case let error as HTTPParserError:
            refusal = refusal ?? RequestHeadRules.failure(of: error)
            context.fireErrorCaught(error)
        default: context.fireErrorCaught(error)
        }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch unwrapOutboundIn(data) {
        case .head(let head) where head.status == .badRequest && head.headerFields[.requestID] == nil:
            writeParseProblem(context, promise)
        case .head(var head) where isStream && head.headerFields[.connection] != nil:
            // HTTP/2 forbids it: a stream has no connection of its own.
            head.headerFields[.connection] = nil
            context.write(wrapOutboundOut(.head(head)), promise: promise)
        case .end where unanswered > 0:
            unanswered -= 1
            activity?.requestEnded()
            context.write(data, promise: promise)
            sendContinueIfDue(context)
        default: context.write(data, promise: promise)
        }
    }

    private func writeParseProblem(_ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>?) {
        let failure = refusal ?? RequestHeadRules.failure(of: .unknown)
        let requestID = RequestMiddleware.randomID()
        let body = ByteBuffer(bytes: Problem.json(failure, requestID: requestID).utf8)
        let head = HTTPResponse(
            status: Problem.kind(of: failure.code).status,
            headerFields: [
                .contentType: Problem.contentType, .cacheControl: "no-store",
                .contentLength: String(body.readableBytes), .connection: "close", .requestID: requestID,
                .date: WallClock.system.now().httpDate,
            ])
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(body)), promise: promise)
    }
}
