// The pipelines of a connection: HTTP/1.1, HTTP/2, and TLS before one of them. docs/design/listeners.md.

import Domain
import HTTPTypes
import HummingbirdCore
import Logging
import NIOCore
import NIOHTTP1
import NIOHTTP2
import NIOHTTPTypes
import NIOHTTPTypesHTTP1
import NIOHTTPTypesHTTP2
import NIOSSL
import NIOTLS

/// What all connections have in common.
struct ConnectionOptions: Sendable {
    let responder: HTTPChannelHandler.Responder
    /// How long a connection may be idle, and a client may read nothing of its answer.
    let idleTimeout: TimeAmount
    /// Whether a request's body is passed on as it arrives.
    let streamsBody: @Sendable (HTTPRequest) -> Bool
    /// Whether a caller who waits for 100 Continue gets it.
    let isInvited: @Sendable (HTTPRequest, any Channel) -> Bool
    let gate: ConnectionGate
}

/// HTTP/1.1 and 1.0.
struct HTTP1Connection: ServerChildChannel, HTTPChannelHandler {
    let options: ConnectionOptions
    var isSecure = false

    var responder: Responder { options.responder }

    /// Parts of requests that wait to be read: one with a short body, which has three, never stops the next read.
    private static let waitingParts = NIOAsyncSequenceProducerBackPressureStrategies.HighLowWatermark(
        lowWatermark: 1, highWatermark: 4)

    func setup(
        channel: any Channel, logger: Logger
    ) -> EventLoopFuture<NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart>> {
        channel.eventLoop.makeCompletedFuture {
            let pipeline = channel.pipeline.syncOperations
            var limits = NIOHTTPDecoderLimitConfiguration()
            limits.maxHeaderFieldSize = Limits.maxHeaderBytes
            limits.maxHeaderListSize = Limits.maxHeaderBytes
            limits.maxHeaderFieldCount = Limits.maxHeaderFields
            let gate = options.gate
            let activity = gate.opened(channel)
            let framing = FramingHandler { gate.head($0, of: activity) }
            try pipeline.addHandler(WireHandler(framing: framing))
            try pipeline.configureHTTPServerPipeline(
                withPipeliningAssistance: false, withErrorHandling: false, withOutboundHeaderValidation: false,
                withEncoderConfiguration: .init(), withDecoderLimitConfiguration: limits)
            try pipeline.addHandler(framing)
            try pipeline.addHandler(HTTP1ToHTTPServerCodec(secure: isSecure))
            try pipeline.addHandler(
                ConnectionHandler(
                    stallTimeout: options.idleTimeout, streamsBody: options.streamsBody,
                    isInvited: options.isInvited, activity: activity))
            try pipeline.addHandler(
                HTTPConnectionStateHandler(idleTimeout: Duration(options.idleTimeout), logger: logger))
            return try NIOAsyncChannel(
                wrappingChannelSynchronously: channel,
                configuration: .init(backPressureStrategy: Self.waitingParts, isOutboundHalfClosureEnabled: true))
        }
    }

    func handle(value: NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart>, logger: Logger) async {
        await handleHTTP(asyncChannel: value, logger: logger)
    }
}

/// HTTP/2, each of whose streams is one request.
struct HTTP2Connection: ServerChildChannel, HTTPChannelHandler {
    typealias Stream = NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart>

    struct Value: ServerChildChannelValue {
        let streams: NIOHTTP2Handler.AsyncStreamMultiplexer<Stream>
        let channel: any Channel
    }

    let options: ConnectionOptions

    var responder: Responder { options.responder }

    /// nio-http2 itself bounds resets (200 in 30 s), control frames, CONTINUATION frames and empty frames.
    private static let configuration: NIOHTTP2Handler.Configuration = {
        var configuration = NIOHTTP2Handler.Configuration()
        configuration.connection.initialSettings = [
            HTTP2Setting(parameter: .maxConcurrentStreams, value: Limits.maxStreamsPerConnection),
            HTTP2Setting(parameter: .maxHeaderListSize, value: Limits.maxHeaderBytes),
        ]
        return configuration
    }()

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Value> {
        channel.eventLoop.makeCompletedFuture {
            let activity = options.gate.opened(channel)
            let pipeline = channel.pipeline.syncOperations
            let streams = try pipeline.configureAsyncHTTP2Pipeline(
                mode: .server,
                connectionManagerConfiguration: .init(
                    maxIdleTime: options.idleTimeout, maxAge: nil, maxGraceTime: nil, keepalive: nil),
                http2HandlerConfiguration: Self.configuration
            ) { stream in
                self.setup(stream: stream, activity: activity, logger: logger)
            }
            try pipeline.addHandler(ErrorCloser())
            return Value(streams: streams, channel: channel)
        }
    }

    private func setup(
        stream: any Channel, activity: ConnectionActivity, logger: Logger
    ) -> EventLoopFuture<Stream> {
        stream.eventLoop.makeCompletedFuture {
            try options.gate.opened(stream: stream)
            let pipeline = stream.pipeline.syncOperations
            try pipeline.addHandler(HTTP2FramePayloadToHTTPServerCodec())
            try pipeline.addHandler(
                ConnectionHandler(
                    stallTimeout: options.idleTimeout, streamsBody: options.streamsBody,
                    isInvited: options.isInvited, activity: activity, isStream: true))
            try pipeline.addHandler(
                HTTPConnectionStateHandler(idleTimeout: Duration(options.idleTimeout), logger: logger))
            return try NIOAsyncChannel(wrappingChannelSynchronously: stream)
        }
    }

    func handle(value: Value, logger: Logger) async {
        do {
            try await withThrowingDiscardingTaskGroup { group in
                for try await stream in value.streams.inbound {
                    group.addTask { await handleHTTP(asyncChannel: stream, logger: logger) }
                }
            }
        } catch {
            logger.debug("an HTTP/2 connection ended", metadata: ["error": "\(error)"])
        }
    }
}

/// TLS, and then the protocol that the client chose.
struct SecureConnection: ServerChildChannel {
    struct Value: ServerChildChannelValue {
        let negotiated: EventLoopFuture<Negotiated>
        let channel: any Channel
    }

    enum Negotiated: Sendable {
        case http1(HTTP1Connection.Value)
        case http2(HTTP2Connection.Value)
    }

    let certificate: ServerCertificate
    private let http1: HTTP1Connection
    private let http2: HTTP2Connection

    init(certificate: ServerCertificate, options: ConnectionOptions) {
        self.certificate = certificate
        http1 = HTTP1Connection(options: options, isSecure: true)
        http2 = HTTP2Connection(options: options)
    }

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Value> {
        channel.eventLoop.makeCompletedFuture {
            let pipeline = channel.pipeline.syncOperations
            try pipeline.addHandler(PlainRequestRefusal())
            try pipeline.addHandler(NIOSSLServerHandler(context: certificate.context))
            let negotiation = NIOTypedApplicationProtocolNegotiationHandler<Negotiated> { result, channel in
                switch result {
                case .negotiated("h2"): http2.setup(channel: channel, logger: logger).map { .http2($0) }
                // Clients that do not negotiate speak HTTP/1.1.
                default: http1.setup(channel: channel, logger: logger).map { .http1($0) }
                }
            }
            try pipeline.addHandler(HandshakeDeadline())
            try pipeline.addHandler(negotiation)
            return Value(negotiated: negotiation.protocolNegotiationResult, channel: channel)
        }
    }

    func handle(value: Value, logger: Logger) async {
        do {
            switch try await value.negotiated.get() {
            case .http1(let connection): await http1.handle(value: connection, logger: logger)
            case .http2(let connection): await http2.handle(value: connection, logger: logger)
            }
        } catch {
            logger.debug("a TLS handshake failed", metadata: ["error": "\(error)"])
            value.channel.close(promise: nil)
        }
    }
}

/// Closes a connection whose TLS handshake takes too long or fails.
private final class HandshakeDeadline: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = NIOAny

    private var deadline: Scheduled<Void>?

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        deadline = context.eventLoop.scheduleTask(in: .seconds(Limits.handshakeSeconds)) {
            channel.close(promise: nil)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted = event as? TLSUserEvent {
            deadline?.cancel()
            deadline = nil
        }
        // The server stops, and there is no request to wait for.
        if event is ChannelShouldQuiesceEvent, deadline != nil { context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.fireErrorCaught(error)
        // A client that ends without close_notify has ended nevertheless.
        if case .uncleanShutdown = error as? NIOSSLError { return }
        if error is NIOSSLError || error is BoringSSLError { context.close(promise: nil) }
    }

    func handlerRemoved(context: ChannelHandlerContext) { deadline?.cancel() }
}

/// Closes an HTTP/2 connection on which something is wrong that concerns all of its streams.
private final class ErrorCloser: ChannelInboundHandler {
    typealias InboundIn = NIOAny

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

extension Duration {
    init(_ amount: TimeAmount) { self = .nanoseconds(amount.nanoseconds) }
}
