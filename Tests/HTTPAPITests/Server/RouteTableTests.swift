// Where the handlers of routes run.

import Domain
import HTTPTypes
import Hummingbird
import HummingbirdCore
import HummingbirdTesting
import Logging
import NIOCore
import NIOEmbedded
import NIOPosix
import TestSupport
import Testing

@testable import HTTPAPI

struct RouteTableTests {
    @Test func whatComputesLongLeavesItsEventLoop() async throws {
        try await withAPI { api in try await checkPlaces(api.services) }
    }

    private func checkPlaces(_ services: Services) async throws {
        @Sendable func place(_ request: Request, _ context: APIContext) async throws -> Response {
            .json(.bool(MultiThreadedEventLoopGroup.currentEventLoop != nil))
        }
        let routes = RouteTable([
            Route(.get, "/short", scope: .open, place), Route(.get, "/long", scope: .open, computesLong: true, place),
            Route(.put, "/json", scope: .open, place), Route(.put, "/value", scope: .open, streamsBody: true, place),
        ])
        let router = Router(context: APIContext.self)
        routes.addRoutes(to: router, access: services.access, meter: RequestMeter(), bodies: BodyBudget())
        let application = Application(
            router: router, server: HTTPServerBuilder { EventLoopChannel(base: HTTP1Channel(responder: $0)) },
            configuration: ApplicationConfiguration(address: .hostname("127.0.0.1", port: 0)),
            logger: quietLogger)
        try await application.test(.live) { client in
            let onLoop = try await client.execute(uri: "/short", method: .get)
            #expect(try onLoop.json == .bool(true))
            let offLoop = try await client.execute(uri: "/long", method: .get)
            #expect(try offLoop.json == .bool(false))
            for (path, bytes, staysOnLoop) in [
                ("/json", 0, true), ("/json", Limits.maxShortBodyBytes, true),
                ("/json", Limits.maxShortBodyBytes + 1, false), ("/value", Limits.maxShortBodyBytes + 1, true),
            ] {
                let body = ByteBuffer(repeating: UInt8(ascii: "1"), count: bytes)
                let answer = try await client.execute(
                    uri: path, method: .put, headers: [.contentType: "application/json"], body: body)
                #expect(try answer.json == .bool(staysOnLoop), "\(path) with \(bytes) bytes")
            }
        }
    }

    @Test func aBodyOfUnknownLengthIsLong() async throws {
        let budget = BodyBudget(short: 0, long: 2_000_000)
        let route = Route(.put, "/json", scope: .open) { request, context in
            .json(try await request.jsonBody(context))
        }
        let context = APIContext(source: .init(channel: EmbeddedChannel(), logger: quietLogger))
        let head = HTTPRequest(
            method: .put, scheme: nil, authority: nil, path: "/json",
            headerFields: [.transferEncoding: "chunked", .contentType: "application/json"])
        let request = Request(head: head, body: RequestBody(buffer: ByteBuffer(string: "[1]")))
        let answer = try await route.answer(request, context, bodies: budget)
        #expect(answer.status == .ok)
    }

    /// Aggregates, and bodies of many samples or operations.
    @Test func theseComputeLong() async throws {
        try await withAPI { api in
            let long = Set(api.services.routes.routes.filter(\.computesLong).map { "\($0.method) \($0.path)" })
            #expect(
                long == [
                    "GET /v1/metrics/timings", "GET /v1/metrics/timeseries", "GET /v1/metrics/memory",
                    "GET /v1/metrics/cache", "GET /v1/metrics/comparison", "GET /v1/metrics/summary",
                    "POST /v1/samples", "POST /v1/cache/{namespace}/batch", "POST /v1/sql", "GET /v1/diagnostics",
                    "GET /metrics", "POST /v1/batch",
                ])
        }
    }
}
