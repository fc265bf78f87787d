// How the commands talk to a server: the one on this machine that the settings describe, or another by its URL.

import ArgumentParser
import Domain
import FoundationEssentials
import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL

/// The flags that say which server, and who asks.
struct ServerOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The server, such as https://cache.example.com (environment: REPRISE_URL; default: the one on this "
                + "machine that the settings describe).", valueName: "url"))
    var url: String?
    @Option(
        name: .customLong("token-file"),
        help: ArgumentHelp(
            "A file that contains the token (environment: REPRISE_TOKEN; default: admin_token, if the settings have it "
                + "and no URL is given).", valueName: "file"))
    var tokenFile: String?
    @Option(
        name: .customLong("ca-file"),
        help: ArgumentHelp("A PEM file of certificates to trust besides the system's.", valueName: "file"))
    var caFile: String?

    /// Whether a server was named, rather than left to the settings.
    var namesServer: Bool { namesServer(ProcessInfo.processInfo.environment) }

    func namesServer(_ environment: [String: String]) -> Bool {
        !(url ?? environment[Self.urlVariable] ?? "").isEmpty
    }

    /// The environment's variables that are not settings.
    static let urlVariable = "REPRISE_URL"
    static let tokenVariable = "REPRISE_TOKEN"
}

/// Sends requests to a server, each on a connection of its own.
///
/// HTTP/1.1 over TCP, TLS or a Unix domain socket. Redirects are not followed: the service sends none.
struct ServerClient: Sendable {
    /// The complete answer to a request.
    struct Answer: Sendable {
        let status: Int
        let headers: HTTPHeaders
        let body: [UInt8]

        /// The body's JSON; nil for anything else.
        var json: JSON? { try? JSON(parsing: body) }

        /// What a problem says for people; the status if it says nothing.
        var explanation: String { json?["detail"]?.stringValue ?? "status \(status)" }
    }

    enum Endpoint: Equatable {
        case tcp(host: String, port: Int)
        case unix(path: String)
    }

    /// How the server proves that it is the right one.
    enum Trust: Equatable {
        /// By a certificate for its name, from an authority of the system or of this file.
        case authorities(file: String?)
        /// By the first certificate of this file: the server on this machine, which speaks by whatever address.
        case certificate(file: String)
    }

    let endpoint: Endpoint
    /// nil for plain HTTP.
    let trust: Trust?
    /// What precedes the paths of all requests; of a URL such as https://example.com/reprise.
    let prefix: String
    private let token: String?

    private static let connectSeconds: Int64 = 5
    /// Longest silence of the server in the middle of a request. Making a backup takes longer.
    var silenceSeconds: Int64 = 60
    /// What to do if nobody answers, as the end of a sentence.
    private let hint: String
    /// Largest answer that is not streamed.
    private static let maxAnswerBytes = 64 * 1024 * 1024

    /// - Parameter database: of which it is known that a server has it open.
    /// - Throws: ``ExitMessage`` for a URL that cannot be used, or settings that do not tell the port.
    init(
        _ options: ServerOptions, settings: Settings, serving database: String? = nil,
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) throws(ExitMessage) {
        if options.namesServer(environment), let text = options.url ?? environment[ServerOptions.urlVariable] {
            let parts = try Self.parse(text)
            endpoint = parts.endpoint
            prefix = parts.prefix
            trust = parts.isSecure ? .authorities(file: options.caFile) : nil
        } else {
            let listening = try ListenSettings(settings)
            (endpoint, trust) = try Self.local(listening, caFile: options.caFile)
            prefix = ""
        }
        hint =
            database.map { ". A server has \($0) open, but not here: give this command its --port, or its --url" } ?? ""
        // Only the server on this machine may see its own admin token.
        let own = options.namesServer(environment) ? "" : settings.text(.adminToken)
        token = try Self.token(options, environment) ?? (own.isEmpty ? nil : own)
    }

    /// Sends one request and waits for all of its answer.
    /// - Parameter time: until when the answer must be complete; nil for as long as the server says something.
    /// - Throws: ``ExitMessage`` if there is no answer; an answer of any status is returned.
    func request(
        _ method: HTTPMethod, _ path: String, _ json: JSON? = nil, headers: HTTPHeaders = [:],
        within time: TimeAmount? = nil
    ) async throws(ExitMessage) -> Answer {
        try await exchange(method, path, json, headers, within: time) { head, parts in
            var body: [UInt8] = []
            while let part = try await parts.next() {
                guard body.count + part.readableBytes <= Self.maxAnswerBytes else {
                    throw Self.failed("the answer is larger than \(Self.maxAnswerBytes) bytes")
                }
                body += part.readableBytesView
            }
            return Answer(status: Int(head.status.code), headers: head.headers, body: body)
        }
    }

    /// Fetches something large.
    /// - Parameters:
    ///   - write: takes each part; it is not asked for the next before it returns.
    ///   - progress: told the bytes received and, if the server said so, how many there are, after each part.
    /// - Returns: the answer, with its body only if the status is not 200.
    /// - Throws: ``ExitMessage`` if there is no complete answer.
    func download(
        _ path: String, to write: @Sendable ([UInt8]) throws(ExitMessage) -> Void,
        progress: @Sendable (Int, Int?) -> Void = { _, _ in }
    ) async throws(ExitMessage) -> Answer {
        try await exchange(.GET, path, nil, [:]) { head, parts in
            guard head.status == .ok else {
                var body: [UInt8] = []
                while let part = try await parts.next(), body.count < Self.maxAnswerBytes {
                    body += part.readableBytesView
                }
                return Answer(status: Int(head.status.code), headers: head.headers, body: body)
            }
            let total = head.headers.first(name: "Content-Length").flatMap { Int($0) }
            var received = 0
            while let part = try await parts.next() {
                try write(Array(part.readableBytesView))
                received += part.readableBytes
                progress(received, total)
            }
            return Answer(status: Int(head.status.code), headers: head.headers, body: [])
        }
    }

    /// Where the server is, for messages.
    var description: String {
        switch endpoint {
        case .tcp(let host, let port):
            "\(trust == nil ? "http" : "https")://\(host.contains(":") ? "[\(host)]" : host):\(port)\(prefix)"
        case .unix(let path): "unix:\(path)"
        }
    }

    // MARK: Where

    /// The parts of `http://host:port/prefix`, `https://…` or `unix:/path`.
    private static func parse(
        _ text: String
    ) throws(ExitMessage) -> (endpoint: Endpoint, isSecure: Bool, prefix: String) {
        let wrong = ExitMessage(
            message: "'\(text)' is not a server's URL. Use http://HOST:PORT, https://HOST:PORT or unix:PATH.",
            code: ExitMessage.wrongConfiguration)
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            guard !path.isEmpty else { throw wrong }
            return (.unix(path: path), false, "")
        }
        guard let url = URL(string: text), let host = url.host(), !host.isEmpty, url.user() == nil,
            url.query() == nil, url.fragment() == nil
        else { throw wrong }
        var prefix = url.path(percentEncoded: true)
        while prefix.hasSuffix("/") { prefix.removeLast() }
        // Of an IPv6 address without its brackets.
        let name = String(host.filter { $0 != "[" && $0 != "]" })
        switch url.scheme?.lowercased() {
        case "http": return (.tcp(host: name, port: url.port ?? 80), false, prefix)
        case "https": return (.tcp(host: name, port: url.port ?? 443), true, prefix)
        default: throw wrong
        }
    }

    /// The server on this machine: over its socket if there is one that this user may open, else by HTTP, else HTTPS.
    private static func local(
        _ listening: ListenSettings, caFile: String?
    ) throws(ExitMessage) -> (Endpoint, Trust?) {
        if let path = listening.unixSocket, access(path, R_OK | W_OK) == 0 { return (.unix(path: path), nil) }
        let host =
            switch listening.host {
            case "0.0.0.0": "127.0.0.1"
            case "::": "::1"
            default: listening.host
            }
        if let port = listening.httpPort, port > 0 { return (.tcp(host: host, port: port), nil) }
        if let port = listening.httpsPort, port > 0, let files = listening.certificate {
            return (
                .tcp(host: host, port: port),
                caFile.map { .authorities(file: $0) } ?? .certificate(file: files.certificate)
            )
        }
        throw ExitMessage(
            message: "port 0 does not tell where the server listens. Say it with --url, or set unix_socket.",
            code: ExitMessage.wrongConfiguration)
    }

    private static func token(
        _ options: ServerOptions, _ environment: [String: String]
    ) throws(ExitMessage) -> String? {
        guard let path = options.tokenFile else {
            return environment[ServerOptions.tokenVariable].flatMap { $0.isEmpty ? nil : $0 }
        }
        return try SecretFile.read(path, namedBy: "--token-file")
    }

    // MARK: How

    /// The parts of an answer's body, one after the other.
    private struct Parts {
        var iterator: NIOAsyncChannelInboundStream<HTTPClientResponsePart>.AsyncIterator

        mutating func next() async throws -> ByteBuffer? {
            guard let part = try await iterator.next() else { throw ChannelError.eof }
            if case .body(let bytes) = part { return bytes }
            return nil
        }
    }

    private func exchange<Result: Sendable>(
        _ method: HTTPMethod, _ path: String, _ json: JSON?, _ headers: HTTPHeaders,
        within time: TimeAmount? = nil, _ read: (HTTPResponseHead, inout Parts) async throws -> Result
    ) async throws(ExitMessage) -> Result {
        let security = try security()
        do {
            let channel = try await connect(security)
            let deadline = time.map { time in
                channel.channel.eventLoop.scheduleTask(in: time) { [channel = channel.channel] in
                    channel.close(promise: nil)
                }
            }
            defer { deadline?.cancel() }
            return try await channel.executeThenClose { inbound, outbound in
                let body = json.map { ByteBuffer(bytes: $0.utf8) }
                let head = head(method, path, headers, bodyBytes: body?.readableBytes)
                var request: [HTTPClientRequestPart] = [.head(head)]
                if let body { request.append(.body(.byteBuffer(body))) }
                request.append(.end(nil))
                // Who is refused may be answered before all of it is sent.
                try? await outbound.write(contentsOf: request)
                var parts = Parts(iterator: inbound.makeAsyncIterator())
                while let part = try await parts.iterator.next() {
                    // Interim answers have no body.
                    if case .head(let head) = part, head.status.code >= 200 { return try await read(head, &parts) }
                }
                throw ChannelError.eof
            }
        } catch let error as ExitMessage {
            throw error
        } catch {
            throw Self.failed("no answer from \(description): \(Self.explain(error))\(hint)")
        }
    }

    private func head(
        _ method: HTTPMethod, _ path: String, _ more: HTTPHeaders, bodyBytes: Int?
    ) -> HTTPRequestHead {
        var headers = more
        let host =
            switch endpoint {
            case .tcp(let host, let port): "\(host.contains(":") ? "[\(host)]" : host):\(port)"
            case .unix: "localhost"
            }
        headers.add(name: "Host", value: host)
        headers.add(name: "Connection", value: "close")
        if let bodyBytes {
            headers.add(name: "Content-Type", value: "application/json")
            headers.add(name: "Content-Length", value: String(bodyBytes))
        } else if method != .GET {
            // Without it, an empty body would be announced as a chunked one.
            headers.add(name: "Content-Length", value: "0")
        }
        if let token { headers.add(name: "Authorization", value: "Bearer \(token)") }
        return HTTPRequestHead(version: .http1_1, method: method, uri: prefix + path, headers: headers)
    }

    private func connect(
        _ security: Security?
    ) async throws -> NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart> {
        let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(.seconds(Self.connectSeconds))
        let setup:
            @Sendable (any Channel) -> EventLoopFuture<
                NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>
            > = { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let security { try pipeline.addHandler(security.handler()) }
                    try pipeline.addHandler(IdleStateHandler(readTimeout: .seconds(silenceSeconds)))
                    try pipeline.addHandler(SilenceCloser())
                    try pipeline.addHTTPClientHandlers()
                    return try NIOAsyncChannel(wrappingChannelSynchronously: channel)
                }
            }
        switch endpoint {
        case .tcp(let host, let port):
            return try await bootstrap.connect(host: host, port: port, channelInitializer: setup)
        case .unix(let path):
            return try await bootstrap.connect(unixDomainSocketPath: path, channelInitializer: setup)
        }
    }

    /// How a connection is secured.
    private struct Security: Sendable {
        let context: NIOSSLContext
        /// The name that the certificate must be for; nil if it must be ``pinned``.
        let name: String?
        let pinned: NIOSSLCertificate?

        func handler() throws -> NIOSSLClientHandler {
            guard let pinned else {
                return try NIOSSLClientHandler(context: context, serverHostname: name)
            }
            // The certificate itself, whoever issued it and for whatever name: it is read from the server's own file.
            return try NIOSSLClientHandler(
                context: context, serverHostname: nil,
                customVerificationCallback: { certificates, promise in
                    promise.succeed(certificates.first == pinned ? .certificateVerified : .failed)
                })
        }
    }

    private func security() throws(ExitMessage) -> Security? {
        guard let trust, case .tcp(let host, _) = endpoint else { return nil }
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.applicationProtocols = ["http/1.1"]
        let file: String?
        do {
            switch trust {
            case .certificate(let path):
                file = path
                let pinned = try NIOSSLCertificate.fromPEMFile(path).first
                configuration.certificateVerification = .noHostnameVerification
                return Security(context: try NIOSSLContext(configuration: configuration), name: nil, pinned: pinned)
            case .authorities(let path):
                file = path
                if let path {
                    configuration.additionalTrustRoots = [.certificates(try NIOSSLCertificate.fromPEMFile(path))]
                }
                // An address is compared with the certificate's by NIOSSL; it cannot be asked for by name.
                let isAddress = (try? SocketAddress(ipAddress: host, port: 0)) != nil
                return Security(
                    context: try NIOSSLContext(configuration: configuration), name: isAddress ? nil : host,
                    pinned: nil)
            }
        } catch {
            throw ExitMessage(
                message: "\(file ?? "the system's certificates") cannot be read as certificates in PEM format.",
                code: ExitMessage.wrongConfiguration)
        }
    }

    private static func explain(_ error: any Error) -> String {
        switch error {
        case let error as IOError: String(cString: strerror(error.errnoCode))
        case let error as NIOConnectionError:
            (error.connectionErrors.first?.error as? IOError).map { String(cString: strerror($0.errnoCode)) }
                ?? "the host is not known"
        case is ChannelError: "the connection was closed before the answer was complete"
        case is NIOSSLError, is BoringSSLError, is NIOSSLExtraError:
            "the server's certificate is not trusted, or it does not speak TLS. Name its authority with --ca-file."
        default: "\(error)"
        }
    }

    private static func failed(_ message: String) -> ExitMessage {
        ExitMessage(message: message, code: ExitMessage.failed)
    }
}

/// Ends a connection whose server says nothing.
private final class SilenceCloser: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent { context.close(promise: nil) }
        context.fireUserInboundEventTriggered(event)
    }
}
