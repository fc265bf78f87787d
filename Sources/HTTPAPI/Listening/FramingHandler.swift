// HTTP/1: what RFC 9112 asks of a request's head beyond its syntax, HTTP/1.0, and the bytes around a body's chunks.

import Domain
import HTTPTypes
import NIOCore
import NIOHTTP1

/// A request that is answered with a problem by the connection, which then ends.
struct RefusedRequest: Error {
    let failure: Failure
}

/// The rules for the head of a request.
enum RequestHeadRules {
    /// Why a request cannot be understood; nil if it can.
    static func refusal(of head: HTTPRequestHead) -> Failure? {
        guard head.version == .http1_1 || head.version == .http1_0 else {
            return Failure(
                .httpVersionNotSupported,
                "The versions of HTTP spoken here are 1.1 and 1.0, and 2 over TLS, not \(head.version).")
        }
        // RFC 9112, section 3.2.
        let hosts = head.headers["Host"].count
        guard hosts <= 1 else { return Failure(.malformedRequest, "A request must have only one Host field.") }
        guard hosts == 1 || head.version == .http1_0 else {
            return Failure(.malformedRequest, "An HTTP/1.1 request must have a Host field.")
        }
        // RFC 9112, section 6.1: a sender that old does not know it, so the framing is faulty.
        if head.version == .http1_0, head.headers.contains(name: "Transfer-Encoding") {
            return Failure(.malformedRequest, "An HTTP/1.0 request cannot have a Transfer-Encoding.")
        }
        // The parser counts up to 64 bits, without a sign.
        if let length = head.headers.first(name: "Content-Length"), Int(length) == nil {
            return invalidLength
        }
        if case .RAW(let method) = head.method, HTTPRequest.Method(method) == nil { return unknownMethod }
        return nil
    }

    /// What is wrong with bytes that the parser refused.
    static func failure(of error: HTTPParserError) -> Failure {
        switch error {
        case .headerOverflow:
            Failure(.headersTooLarge, "The header fields are larger than \(Limits.maxHeaderBytes) bytes.")
        case .invalidMethod:
            Failure(.notSupported, "The request's method is not known here, if these bytes are HTTP at all.")
        case .invalidVersion:
            Failure(.httpVersionNotSupported, "The versions of HTTP spoken here are 1.1 and 1.0, and 2 over TLS.")
        case .invalidContentLength: invalidLength
        case .unexpectedContentLength:
            Failure(
                .malformedRequest,
                "A request must have one Content-Length, and none beside Transfer-Encoding.")
        case .invalidChunkSize: Failure(.malformedRequest, "The size of a chunk is not a hexadecimal number.")
        default: Failure(.malformedRequest, "The bytes on this connection are not an HTTP/1.1 request.")
        }
    }

    private static let invalidLength = Failure(
        .malformedRequest, "Content-Length must be a whole number of at most \(Int.max).")
    private static let unknownMethod = Failure(.notSupported, "The request's method is not known here.")
}

/// Bytes that a chunked body takes beyond its content: sizes, line ends, extensions. A sender could make a body of them
/// that never ends and never brings anything.
///
/// The account is that of Go's net/http: each part of the content allows for its own size twice and 16 bytes more.
struct ChunkOverhead {
    private var excessBytes = 0
    private var isInBody = false

    mutating func bodyBegins() {
        isInBody = true
        excessBytes = 0
    }

    mutating func bodyEnds() { isInBody = false }

    mutating func received(_ count: Int) { if isInBody { excessBytes += count } }

    mutating func delivered(_ count: Int) { if isInBody { excessBytes -= 3 * count + 16 } }

    var isTooMuch: Bool { isInBody && excessBytes > Limits.maxChunkOverheadBytes }
}

/// Refuses requests against ``RequestHeadRules``, and answers HTTP/1.0 as it understands: without chunks, and with an
/// end of the connection unless the request asked for none and the length is known.
final class FramingHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    private struct Exchange {
        let isVersion10: Bool
        let keepsAlive: Bool
        let isHead: Bool
    }

    /// Those not answered yet, in order.
    private var exchanges = CircularBuffer<Exchange>(initialCapacity: 1)
    private var isRefused = false
    private var closesAfterAnswer = false
    private var isInHead = true
    private var sawPart = false
    private var headBytes = 0
    private let onHead: (Int) -> Void
    var overhead = ChunkOverhead()

    /// - Parameter onHead: told how many bytes have arrived of a head that is not complete, and 0 when it is.
    init(onHead: @escaping (Int) -> Void = { _ in }) { self.onHead = onHead }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        sawPart = true
        guard !isRefused else { return }
        switch unwrapInboundIn(data) {
        case .head(var head):
            isInHead = false
            if let failure = RequestHeadRules.refusal(of: head) { return refuse(failure, context) }
            let exchange = Exchange(
                isVersion10: head.version == .http1_0, keepsAlive: head.isKeepAlive, isHead: head.method == .HEAD)
            exchanges.append(exchange)
            if head.headers.contains(name: "Transfer-Encoding") { overhead.bodyBegins() }
            // The one spelling after which the connection is ended.
            if !exchange.keepsAlive { head.headers.replaceOrAdd(name: "Connection", value: "close") }
            // RFC 9110, section 10.1.1: to be ignored.
            if exchange.isVersion10 { head.headers.remove(name: "Expect") }
            context.fireChannelRead(wrapInboundOut(.head(head)))
        case .body(let part):
            overhead.delivered(part.readableBytes)
            context.fireChannelRead(data)
        case .end:
            overhead.bodyEnds()
            isInHead = true
            context.fireChannelRead(data)
        }
    }

    /// To be called after `count` bytes have passed through the parser.
    func parsed(_ count: Int, _ context: ChannelHandlerContext) {
        let before = headBytes
        // What follows a complete part in the same bytes is not counted: it is at most what is read at once.
        headBytes = isInHead && !sawPart ? headBytes + count : 0
        sawPart = false
        if headBytes > Limits.maxShortHeadBytes { onHead(headBytes) } else if before > 0 { onHead(0) }
        guard overhead.isTooMuch, !isRefused else { return }
        isRefused = true
        let failure = Failure(
            .malformedRequest,
            "The chunks of the body have more than \(Limits.maxChunkOverheadBytes) bytes of extensions or are tiny.")
        context.fireErrorCaught(RefusedRequest(failure: failure))
    }

    private func refuse(_ failure: Failure, _ context: ChannelHandlerContext) {
        isRefused = true
        context.fireErrorCaught(RefusedRequest(failure: failure))
    }

    func handlerRemoved(context: ChannelHandlerContext) { onHead(0) }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch unwrapOutboundIn(data) {
        case .head(var head):
            guard let exchange = exchanges.first else { return context.write(data, promise: promise) }
            if head.status.code < 200 {
                // HTTP/1.0 has no interim answers.
                guard !exchange.isVersion10 else { return promise?.succeed() ?? () }
                return context.write(data, promise: promise)
            }
            complete(&head, exchange)
            context.write(wrapOutboundOut(.head(head)), promise: promise)
        case .body: context.write(data, promise: promise)
        case .end:
            if !exchanges.isEmpty { exchanges.removeFirst() }
            guard closesAfterAnswer else { return context.write(data, promise: promise) }
            let channel = context.channel
            context.writeAndFlush(data).whenComplete { result in
                promise?.completeWith(result)
                channel.close(mode: .output, promise: nil)
            }
        }
    }

    private func complete(_ head: inout HTTPResponseHead, _ exchange: Exchange) {
        if exchange.isVersion10 {
            // The encoder does not send chunks in this version.
            head.version = .http1_0
            let isFramed =
                exchange.isHead || head.headers.contains(name: "Content-Length") || head.status == .noContent
                || head.status == .notModified
            let keepsAlive = exchange.keepsAlive && isFramed && head.isKeepAlive(orAsked: true)
            head.headers.replaceOrAdd(name: "Connection", value: keepsAlive ? "keep-alive" : "close")
            closesAfterAnswer = !keepsAlive
        } else if !exchange.keepsAlive {
            head.headers.replaceOrAdd(name: "Connection", value: "close")
        }
    }
}

extension HTTPResponseHead {
    /// Whether the answer itself does not end the connection.
    fileprivate func isKeepAlive(orAsked asked: Bool) -> Bool {
        headers[canonicalForm: "Connection"].contains { $0.lowercased() == "close" } ? false : asked
    }
}

/// Counts what arrives before it is parsed.
final class WireHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let framing: FramingHandler

    init(framing: FramingHandler) { self.framing = framing }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let count = unwrapInboundIn(data).readableBytes
        framing.overhead.received(count)
        context.fireChannelRead(data)
        framing.parsed(count, context)
    }
}
