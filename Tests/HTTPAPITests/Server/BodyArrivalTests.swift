// Bodies that hardly arrive, on a connection whose clock moves by hand.

import Domain
import HTTPTypes
import NIOCore
import NIOEmbedded
import NIOHTTPTypes
import Testing

@testable import HTTPAPI

struct BodyArrivalTests {
    /// A connection with a request of whose JSON body a handler awaits the rest.
    private final class Connection {
        let channel: EmbeddedChannel

        init() throws {
            channel = EmbeddedChannel(handler: ConnectionHandler(stallTimeout: .hours(1)))
            try channel.connect(to: SocketAddress(ipAddress: "192.0.2.1", port: 1)).wait()
            try send(.head(HTTPRequest(method: .post, scheme: nil, authority: nil, path: "/v1/samples")))
            try arrive(1)
            awaitBody()
        }

        func send(_ part: HTTPRequestPart) throws { try channel.writeInbound(part) }

        func arrive(_ count: Int) throws { try send(.body(ByteBuffer(repeating: 0, count: count))) }

        func awaitBody() { channel.pipeline.triggerUserOutboundEvent(BodyAwaited(), promise: nil) }

        func pass(seconds: Int64) { channel.embeddedEventLoop.advanceTime(by: .seconds(seconds)) }

        /// Whether the handler is told that the body stalled.
        var isStalled: Bool {
            do {
                try channel.throwIfErrorCaught()
                return false
            } catch {
                return error is BodyStalled
            }
        }
    }

    private let window = Limits.bodyWindowSeconds
    private let enough = Limits.minBodyBytesPerSecond * Int(Limits.bodyWindowSeconds)

    @Test func aBodyThatStopsIsEnded() throws {
        let connection = try Connection()
        connection.channel.read()
        connection.pass(seconds: window - 1)
        #expect(!connection.isStalled)
        connection.pass(seconds: 1)
        #expect(connection.isStalled)
    }

    @Test func aBodyThatTricklesIsEnded() throws {
        let connection = try Connection()
        try connection.arrive(enough - 1)
        connection.channel.read()
        connection.pass(seconds: window)
        #expect(connection.isStalled)
    }

    @Test func aBodyThatKeepsComingIsNot() throws {
        let connection = try Connection()
        for _ in 0..<10 {
            try connection.arrive(enough)
            connection.channel.read()
            connection.pass(seconds: window)
            #expect(!connection.isStalled)
        }
        connection.pass(seconds: window)
        #expect(connection.isStalled)
    }

    /// The service has enough to do and does not read: no fault of the sender's.
    @Test func aBodyThatIsNotReadIsNot() throws {
        let connection = try Connection()
        connection.channel.pipeline.fireChannelReadComplete()
        connection.pass(seconds: 10 * window)
        #expect(!connection.isStalled)
        connection.channel.read()
        connection.pass(seconds: window)
        #expect(connection.isStalled)
    }

    @Test func aCompleteBodyIsNot() throws {
        let connection = try Connection()
        connection.channel.read()
        try connection.send(.end(nil))
        connection.pass(seconds: 10 * window)
        #expect(!connection.isStalled)
    }

    /// Nobody asked for the body of the next request, which may be a value that comes as slowly as it likes.
    @Test func theNextRequestIsNotWatched() throws {
        let connection = try Connection()
        connection.channel.read()
        try connection.send(.end(nil))
        try connection.send(
            .head(HTTPRequest(method: .put, scheme: nil, authority: nil, path: "/v1/cache/n/entries/k")))
        connection.awaitBody()
        connection.pass(seconds: 10 * window)
        #expect(!connection.isStalled)
    }
}
