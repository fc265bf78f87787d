// reprise health: asks a running server whether it is ready. For containers, whose images have no HTTP client.

import ArgumentParser
import Domain
import NIOCore
import NIOHTTP1
import NIOPosix

struct HealthCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "health",
        abstract: "Checks whether the server on this machine is ready: exit code 0 if it is, 1 if not.",
        discussion: """
            Looks for the server where the settings say it listens. Made for HEALTHCHECK of a container:

                HEALTHCHECK CMD ["reprise", "health"]
            """)

    @OptionGroup var options: SettingsOptions

    /// Longest time to wait for the answer, in seconds.
    private static let deadlineSeconds: Int64 = 5

    func run() async throws {
        do {
            let settings = try await options.load()
            let host = Self.reachable(settings.text(.host))
            let status = try await Self.readiness(host: host, port: settings.integer(.port))
            guard status == 200 else {
                throw ExitMessage(message: "the server is not ready: \(status)", code: ExitMessage.failed)
            }
            announce("ready\n")
        } catch let error as ExitMessage {
            error.exit()
        }
    }

    /// The address to connect to, given the one to listen on.
    private static func reachable(_ host: String) -> String {
        switch host {
        case "0.0.0.0": "127.0.0.1"
        case "::": "::1"
        default: host
        }
    }

    private static func readiness(host: String, port: Int) async throws(ExitMessage) -> Int {
        do {
            let answer = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: Int.self)
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.seconds(deadlineSeconds))
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        try channel.pipeline.syncOperations.addHandler(StatusReader(answer: answer))
                    }
                }
                .connect(host: host, port: port).get()
            channel.eventLoop.scheduleTask(in: .seconds(deadlineSeconds)) { channel.close(promise: nil) }
            let head = HTTPRequestHead(
                version: .http1_1, method: .GET, uri: "/health/ready",
                headers: ["Host": "\(host):\(port)", "Connection": "close"])
            channel.write(HTTPClientRequestPart.head(head), promise: nil)
            try await channel.writeAndFlush(HTTPClientRequestPart.end(nil))
            return try await answer.futureResult.get()
        } catch {
            throw ExitMessage(message: "no answer from \(host):\(port): \(error)", code: ExitMessage.failed)
        }
    }
}

/// Reports the status of the only answer on its connection.
private final class StatusReader: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart

    private let answer: EventLoopPromise<Int>

    init(answer: EventLoopPromise<Int>) { self.answer = answer }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if case .head(let head) = unwrapInboundIn(data) { answer.succeed(Int(head.status.code)) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        answer.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { answer.fail(ChannelError.eof) }
}
