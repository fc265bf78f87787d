// Bodies that hardly arrive, on a connection whose clock is moved by hand.

import Domain
import HTTPTypes
import NIOCore
import NIOEmbedded
import NIOHTTPTypes
import Testing

@testable import HTTPAPI

struct BodyArrivalTests {
    /// A connection on which the head and the first byte of a request have arrived.
    private final class Connection {
        let channel: EmbeddedChannel

        init(path: String = "/v1/samples") throws {
            channel = EmbeddedChannel(
                handler: ConnectionHandler(
                    stallTimeout: .hours(1), streamsBody: { $0.path == "/value" }, isInvited: { _, _ in true }))
            try channel.connect(to: SocketAddress(ipAddress: "192.0.2.1", port: 1)).wait()
            try begin(path)
            // The window in which a request begins does not count.
            endWindow()
        }

        func begin(_ path: String) throws {
            try channel.writeInbound(
                HTTPRequestPart.head(HTTPRequest(method: .post, scheme: nil, authority: nil, path: path)))
            try arrive(1)
        }

        func arrive(_ count: Int) throws {
            try channel.writeInbound(HTTPRequestPart.body(ByteBuffer(repeating: 0, count: count)))
            channel.read()
        }

        func end() throws { try channel.writeInbound(HTTPRequestPart.end(nil)) }

        func endWindow() { channel.embeddedEventLoop.advanceTime(by: .seconds(Limits.bodyWindowSeconds)) }

        /// Whether the handler was told that the body stalled, since this was last asked.
        var isStalled: Bool {
            do {
                try channel.throwIfErrorCaught()
                return false
            } catch {
                return error is BodyStalled
            }
        }
    }

    private let enough = Limits.minBodyBytesPerSecond * Int(Limits.bodyWindowSeconds)

    @Test func aBodyThatStopsIsEnded() throws {
        let connection = try Connection()
        #expect(!connection.isStalled)
        connection.endWindow()
        #expect(connection.isStalled)
    }

    @Test func aBodyThatTricklesIsEnded() throws {
        let connection = try Connection()
        try connection.arrive(enough - 1)
        connection.endWindow()
        #expect(connection.isStalled)
    }

    @Test func aBodyThatKeepsComingIsNot() throws {
        let connection = try Connection()
        for _ in 0..<10 {
            try connection.arrive(enough)
            connection.endWindow()
            #expect(!connection.isStalled)
        }
        connection.endWindow()
        #expect(connection.isStalled)
    }

    /// The service is busy and does not read, which is not the sender's fault.
    @Test func aBodyThatIsNotReadIsNot() throws {
        let connection = try Connection()
        connection.channel.pipeline.fireChannelReadComplete()
        for _ in 0..<10 { connection.endWindow() }
        #expect(!connection.isStalled)
        connection.channel.read()
        connection.endWindow()
        #expect(connection.isStalled)
    }

    @Test func aCompleteBodyIsNot() throws {
        let connection = try Connection()
        try connection.end()
        for _ in 0..<10 { connection.endWindow() }
        #expect(!connection.isStalled)
    }

    /// The next one has a window of its own.
    @Test func aBodyThatJustBeganIsNot() throws {
        let connection = try Connection()
        try connection.end()
        try connection.begin("/v1/samples")
        connection.endWindow()
        #expect(!connection.isStalled)
        connection.endWindow()
        #expect(connection.isStalled)
    }

    @Test func aValueThatIsPassedOnMayBeSlower() throws {
        let connection = try Connection(path: "/value")
        let enough = Limits.minStreamedBytesPerSecond * Int(Limits.bodyWindowSeconds)
        for _ in 0..<10 {
            try connection.arrive(enough)
            connection.endWindow()
            #expect(!connection.isStalled)
        }
        try connection.arrive(enough - 1)
        connection.endWindow()
        #expect(connection.isStalled)
    }

    @Test(arguments: ["/value", "/v1/samples"])
    func noBodyTakesForever(path: String) throws {
        let connection = try Connection(path: path)
        for _ in 0..<(Limits.maxBodySeconds / Limits.bodyWindowSeconds) {
            try connection.arrive(enough)
            connection.endWindow()
            #expect(!connection.isStalled)
        }
        try connection.arrive(enough)
        connection.endWindow()
        #expect(connection.isStalled)
        // The next one has as long.
        try connection.end()
        try connection.begin(path)
        connection.endWindow()
        try connection.arrive(enough)
        connection.endWindow()
        #expect(!connection.isStalled)
    }

    @Test func onlyValuesOfTheCacheArePassedOn() async throws {
        try await withAPI { api in
            let routes = api.services.routes
            func streams(_ method: HTTPRequest.Method, _ path: String) -> Bool {
                routes.streamsBody(HTTPRequest(method: method, scheme: nil, authority: nil, path: path))
            }
            #expect(streams(.put, "/v1/cache/n/entries/k"))
            #expect(streams(.put, "/v1/cache/n/entries/k%2Fl?x=/"))
            #expect(!streams(.put, "/v1/cache/n"))
            #expect(!streams(.post, "/v1/cache/n/entries/k"))
            #expect(!streams(.post, "/v1/samples"))
            #expect(routes.routes.filter(\.streamsBody).count == 1)
        }
    }

    /// After the answer, what the client still sends is read and dropped, up to a limit.
    @Test func anAnsweredBodyIsDrainedUpToALimit() throws {
        let connection = try Connection()
        connection.channel.write(HTTPResponsePart.head(HTTPResponse(status: .contentTooLarge)), promise: nil)
        connection.channel.write(HTTPResponsePart.end(nil), promise: nil)
        let part = 1024 * 1024
        for _ in 0..<Limits.maxDrainedBytes / part { try connection.arrive(part) }
        #expect(connection.channel.isActive)
        try connection.arrive(1)
        #expect(!connection.channel.isActive)
    }
}
