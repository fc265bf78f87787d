// The server: listens at several addresses and answers by one router. docs/design/listeners.md.

import Domain
import Glibc
import HTTPTypes
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import NIOExtras
import NIOHTTP1
import NIOPosix
import ServiceLifecycle
import Synchronization

/// Serves the API at all of its addresses until it is told to stop.
///
/// It takes the place of Hummingbird's `Application`, which has one address. Everything above a connection is
/// Hummingbird's: router, context, requests, bodies.
public struct APIServer: ApplicationProtocol {
    public typealias Responder = RouterResponder<APIContext>

    public let responder: Responder
    public let logger: Logger
    private let listeners: [Listener]
    private let options: @Sendable (@escaping HTTPChannelHandler.Responder) -> ConnectionOptions
    private let onListening: @Sendable ([String]) async -> Void

    init(
        responder: Responder, listeners: [Listener],
        options: @escaping @Sendable (@escaping HTTPChannelHandler.Responder) -> ConnectionOptions,
        onListening: @escaping @Sendable ([String]) async -> Void, logger: Logger
    ) {
        self.responder = responder
        self.listeners = listeners
        self.options = options
        self.onListening = onListening
        self.logger = logger
    }

    /// One plain connection, for tests that run Hummingbird's own server.
    public var server: HTTPServerBuilder {
        HTTPServerBuilder { EventLoopChannel(base: HTTP1Connection(options: options($0))) }
    }

    /// - Throws: ``ListenError`` if one of the addresses cannot be had.
    public func run() async throws {
        let date = CurrentDate()
        let options = options { request, writer, channel in
            try await respond(to: request, writer, channel, date)
        }
        var doors: [Door] = []
        do {
            for listener in listeners { doors.append(try await Door(listener, options, logger)) }
        } catch {
            for door in doors { await door.close() }
            throw error
        }
        let opened = doors
        await withGracefulShutdownHandler {
            await onListening(opened.map { $0.listener.url(boundTo: $0.server.channel) })
            await withDiscardingTaskGroup { group in
                for door in opened { group.addTask { await door.serve(logger) } }
            }
        } onGracefulShutdown: {
            for door in opened { door.quiescing.initiateShutdown(promise: nil) }
        }
        for door in opened { door.file?.remove() }
    }

    private func respond(
        to request: Request, _ writer: consuming ResponseWriter, _ channel: any Channel, _ date: CurrentDate
    ) async throws {
        var logger = logger
        // The context takes its id from here.
        logger[metadataKey: "hb.request.id"] = .stringConvertible(RequestID())
        var response: Response
        do {
            response = try await responder.respond(
                to: request, context: APIContext(source: .init(channel: channel, logger: logger)))
        } catch let error as HTTPParserError {
            throw error
        } catch {
            logger.error("a request failed", metadata: ["error": "\(error)"])
            response = Response(status: .internalServerError)
        }
        response.headers[.date] = date.httpDate
        do {
            try await writer.write(response: response.head, body: response.body)
        } catch is HTTPParserError {
            // Half an answer is written already, so there cannot be another.
            throw ChannelError.eof
        }
    }
}

/// An address that is being listened on.
private struct Door: Sendable {
    /// Serves one connection until it ends.
    typealias Work = @Sendable () async -> Void

    let listener: Listener
    let server: NIOAsyncChannel<Work, Never>
    let quiescing: ServerQuiescingHelper
    let file: SocketFile?

    /// - Throws: ``ListenError``.
    init(_ listener: Listener, _ options: ConnectionOptions, _ logger: Logger) async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let quiescing = ServerQuiescingHelper(group: group)
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(ChannelOptions.backlog, value: Int32(Limits.acceptBacklog))
            .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(AcceptHandler(gate: options.gate, logger: logger))
                    try pipeline.addHandler(quiescing.makeServerChannelHandler(channel: channel))
                }
            }
            .childChannelOption(ChannelOptions.allowRemoteHalfClosure, value: true)
        let setup: @Sendable (any Channel) -> EventLoopFuture<Work> =
            if let certificate = listener.certificate {
                Self.setup(SecureConnection(certificate: certificate, options: options), logger)
            } else {
                Self.setup(HTTP1Connection(options: options), logger)
            }
        switch listener.address {
        case .tcp(let host, let port):
            do {
                server = try await bootstrap
                    // Connections inherit it. Otherwise the system takes megabytes for each client that reads nothing.
                    .serverChannelOption(Self.maxUnsentBytes, value: SocketOptionValue(Limits.maxUnsentBytes))
                    .bind(host: host, port: port, childChannelInitializer: setup)
            } catch {
                throw ListenError(
                    "cannot listen on \(host):\(port): \(Self.reason(error)). Is another program using the port? "
                        + "Choose another port, or 0 for a free one.")
            }
            file = nil
        case .unix(let path):
            let file = try SocketFile(path: path, backlog: CInt(Limits.acceptBacklog))
            do {
                server = try await bootstrap.bind(file.descriptor, childChannelInitializer: setup)
            } catch {
                file.remove()
                throw ListenError("cannot listen on unix:\(path): \(Self.reason(error))")
            }
            self.file = file
        }
        self.listener = listener
        self.quiescing = quiescing
    }

    /// `TCP_NOTSENT_LOWAT`, which glibc does not declare for Swift (include/uapi/linux/tcp.h).
    private static let maxUnsentBytes = ChannelOptions.Types.SocketOption(level: .tcp, name: .init(rawValue: 25))

    private static func setup(
        _ connection: some ServerChildChannel, _ logger: Logger
    ) -> @Sendable (any Channel) -> EventLoopFuture<Work> {
        let connection = EventLoopChannel(base: connection)
        return { channel in
            connection.setup(channel: channel, logger: logger).map { value in
                { await connection.handle(value: value, logger: logger) }
            }
        }
    }

    private static func reason(_ error: any Error) -> String {
        (error as? IOError).map { String(cString: strerror($0.errnoCode)) } ?? "\(error)"
    }

    /// Accepts connections until the listener is closed, then waits for them.
    func serve(_ logger: Logger) async {
        await withDiscardingTaskGroup { group in
            do {
                try await server.executeThenClose { connections in
                    for try await work in connections { group.addTask { await work() } }
                }
            } catch {
                logger.error(
                    "stopped listening",
                    metadata: ["address": "\(listener.url(boundTo: server.channel))", "error": "\(error)"])
            }
        }
    }

    func close() async {
        try? await server.executeThenClose { _ in }
        file?.remove()
    }
}

/// The current time as the `Date` field has it, formatted once a second.
private final class CurrentDate: Sendable {
    private let latest = Mutex((second: Int64.min, text: ""))

    var httpDate: String {
        let now = WallClock.system.now()
        let second = now.milliseconds / 1000
        return latest.withLock { latest in
            if latest.second != second { latest = (second, now.httpDate) }
            return latest.text
        }
    }
}
