// Where the handlers of routes run.

import Domain
import HTTPTypes
import Hummingbird
import HummingbirdCore
import HummingbirdTesting
import Logging
import NIOCore
import NIOPosix
import TestSupport
import Testing

@testable import HTTPAPI

struct RouteTableTests {
    @Test func whatComputesLongLeavesItsEventLoop() async throws {
        @Sendable func place(_ request: Request, _ context: APIContext) async throws -> Response {
            .json(.bool(MultiThreadedEventLoopGroup.currentEventLoop != nil))
        }
        let routes = RouteTable([
            Route(.get, "/short", place), Route(.get, "/long", computesLong: true, place),
        ])
        let router = Router(context: APIContext.self)
        routes.addRoutes(to: router, meter: RequestMeter())
        let application = Application(
            router: router, server: HTTPServerBuilder { EventLoopChannel(base: HTTP1Channel(responder: $0)) },
            configuration: ApplicationConfiguration(address: .hostname("127.0.0.1", port: 0)),
            logger: quietLogger)
        try await application.test(.live) { client in
            let onLoop = try await client.execute(uri: "/short", method: .get)
            #expect(try onLoop.json == .bool(true))
            let offLoop = try await client.execute(uri: "/long", method: .get)
            #expect(try offLoop.json == .bool(false))
        }
    }

    /// Aggregates, and bodies of many samples or operations.
    @Test func theseComputeLong() async throws {
        try await withAPI { api in
            let long = Set(api.services.routes.routes.filter(\.computesLong).map { "\($0.method) \($0.path)" })
            #expect(
                long == [
                    "GET /v1/metrics/timings", "GET /v1/metrics/timeseries", "GET /v1/metrics/memory",
                    "GET /v1/metrics/cache", "GET /v1/metrics/comparison", "GET /v1/metrics/summary",
                    "POST /v1/samples", "POST /v1/cache/{namespace}/batch", "POST /v1/sql",
                ])
        }
    }
}
