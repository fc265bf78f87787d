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
/// It is cut off once it has read nothing for the idle timeout. A client whose JSON body hardly arrives is answered 408
/// (``BodyArrival``), and one that goes on sending a body that was answered long ago is cut off.
final class ConnectionHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private var unanswered = 0
    private var drainedBytes = 0
    private var owesContinue = false
    private var headersTooLarge = false
    private let stallTimeout: TimeAmount
    private var stall: Scheduled<Void>?
    private var window: Scheduled<Void>?
    private var arrival = BodyArrival()
    private let streamsBody: @Sendable (HTTPRequest) -> Bool

    /// - Parameters:
    ///   - stallTimeout: how long a client may read nothing of an answer that is waiting for it.
    ///   - streamsBody: whether a request's body is passed on as it arrives. Any other body is held in memory.
    init(stallTimeout: TimeAmount, streamsBody: @escaping @Sendable (HTTPRequest) -> Bool) {
        self.stallTimeout = stallTimeout
        self.streamsBody = streamsBody
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        stall?.cancel()
        stall = nil
        if !context.channel.isWritable {
            let channel = context.channel
            stall = context.eventLoop.scheduleTask(in: stallTimeout) { channel.close(promise: nil) }
        }
        context.fireChannelWritabilityChanged()
    }

    func handlerAdded(context: ChannelHandlerContext) {
        beginWindow(context)
    }

    private func beginWindow(_ context: ChannelHandlerContext) {
        window = context.eventLoop.assumeIsolated().scheduleTask(in: .seconds(Limits.bodyWindowSeconds)) {
            let hasStalled = self.arrival.windowEnds(streamsBody: self.streamsBody)
            self.beginWindow(context)
            if hasStalled { context.fireErrorCaught(BodyStalled()) }
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        stall?.cancel()
        window?.cancel()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            unanswered += 1
            drainedBytes = 0
            arrival.headArrived(head)
            owesContinue = Self.expectsContinue(head)
            sendContinueIfDue(context)
        case .body(let part):
            arrival.arrived(part.readableBytes)
            guard unanswered > 0 else { return drain(part, context) }
        case .end: arrival.bodyEnded()
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
        if case HTTPParserError.headerOverflow = error { headersTooLarge = true }
        context.fireErrorCaught(error)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch unwrapOutboundIn(data) {
        case .head(let head) where head.status == .badRequest && head.headerFields[.requestID] == nil:
            writeParseProblem(context, promise)
        case .end where unanswered > 0:
            unanswered -= 1
            context.write(data, promise: promise)
            sendContinueIfDue(context)
        default: context.write(data, promise: promise)
        }
    }

    private func writeParseProblem(_ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>?) {
        let failure =
            headersTooLarge
            ? Failure(.headersTooLarge, "The header fields are larger than \(Limits.maxHeaderBytes) bytes.")
            : Failure(.malformedRequest, "The bytes on this connection are not an HTTP/1.1 request.")
        let requestID = RequestMiddleware.ofFullLength(String(UInt64.random(in: .min ... .max), radix: 16))
        let body = ByteBuffer(bytes: Problem.json(failure, requestID: requestID).utf8)
        let head = HTTPResponse(
            status: Problem.kind(of: failure.code).status,
            headerFields: [
                .contentType: Problem.contentType, .contentLength: String(body.readableBytes), .connection: "close",
                .requestID: requestID,
            ])
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(body)), promise: promise)
    }
}
