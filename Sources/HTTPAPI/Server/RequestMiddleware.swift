// What every request passes through: its id, its line in the log, and problems in place of errors.

import Domain
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOHTTP1
import Synchronization

/// Gives each request its id, turns what a route throws into a problem, and logs at level debug.
struct RequestMiddleware: RouterMiddleware {
    typealias Context = APIContext

    /// For requests that no route answers: which methods the path has.
    let routes: RouteTable
    let services: Services

    private var meter: RequestMeter { services.meter }

    func handle(
        _ request: Request, context: APIContext,
        next: (Request, APIContext) async throws -> Response
    ) async throws -> Response {
        meter.inFlight.wrappingAdd(1, ordering: .relaxed)
        defer { meter.inFlight.wrappingSubtract(1, ordering: .relaxed) }
        var context = context
        context.requestID = Self.requestID(of: request, context: context)
        var response: Response
        do {
            try Self.requireKnownTransferCoding(request)
            try Self.requireKnownExpectation(request)
            try checkPage(request, context)
            if let answer = services.web.preflight(request.head, methods: routes.methods(for: request.uri.path)) {
                response = Response(status: answer.status, headers: answer.headerFields)
            } else {
                response = try await next(request, context)
            }
        } catch let error as HTTPParserError {
            // The bytes were not HTTP, or ended too early: ConnectionHandler answers, and the connection closes.
            throw error
        } catch {
            var failure = Self.failure(answering: error)
            var allow: String?
            if let error = error as? HTTPError, error.status == .notFound {
                (failure, allow) = unrouted(request)
                meter.unmatched.record(status: Problem.kind(of: failure.code).status.code, since: context.started)
            }
            log(error, failure, context)
            response = Problem.response(failure, requestID: context.requestID)
            if let allow { response.headers[.allow] = allow }
            if request.method == .head { response = response.createHeadResponse() }
        }
        // Neither has a body, and a length on a 304 would be mistaken for the entity's.
        if response.status == .noContent || response.status == .notModified { response.headers[.contentLength] = nil }
        response.headers[.requestID] = context.requestID
        services.web.describe(&response.head, for: request.head)
        if context.logger.logLevel <= .debug { log(request, response.status, context) }
        return response
    }

    /// A body in another coding would be taken for what it encodes (RFC 9112, section 6.1).
    /// - Throws: `not_supported`.
    private static func requireKnownTransferCoding(_ request: Request) throws(Failure) {
        guard let coding = request.headers[.transferEncoding], coding.lowercased() != "chunked" else { return }
        throw Failure(.notSupported, "The only transfer coding understood is chunked, not '\(coding)'.")
    }

    /// RFC 9110, section 10.1.1: there is one expectation.
    /// - Throws: `expectation_failed`.
    private static func requireKnownExpectation(_ request: Request) throws(Failure) {
        guard let expectation = request.headers[.expect], expectation.lowercased() != "100-continue" else { return }
        throw Failure(.expectationFailed, "The only expectation understood is 100-continue, not '\(expectation)'.")
    }

    /// Refuses what the page of another site may have sent.
    /// - Throws: `host_not_allowed`, `origin_not_allowed`.
    private func checkPage(_ request: Request, _ context: APIContext) throws(Failure) {
        do throws(Failure) {
            try services.web.check(request.head, isLocal: context.isOverUnixSocket)
        } catch {
            services.access.refusals.count(error.code == .hostNotAllowed ? .host : .origin)
            throw error
        }
    }

    /// The caller's `X-Request-Id` if it is short and plain, else the id Hummingbird gave the request.
    static func requestID(of request: Request, context: APIContext) -> String {
        guard let id = request.headers[.requestID], (1...Limits.maxRequestIDBytes).contains(id.utf8.count),
            id.utf8.allSatisfy({ (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") })
        else { return ofFullLength(context.id) }
        return id
    }

    /// Fills an id up to 32 digits. Hummingbird leaves out the leading zeros of the half that the process draws.
    static func ofFullLength(_ id: String) -> String {
        String(repeating: "0", count: max(0, 32 - id.utf8.count)) + id
    }

    /// For what is answered before it is a request.
    static func randomID() -> String { ofFullLength(String(UInt64.random(in: .min ... .max), radix: 16)) }

    /// The failure for an error thrown by a route.
    static func failure(answering error: any Error) -> Failure {
        switch error {
        case let failure as Failure: failure
        case let stalled as BodyStalled: Failure(.requestTimeout, stalled.detail)
        case is TruncatedBody: Failure(.malformedRequest, "The body is shorter than its Content-Length.")
        // Answered by the connection, not here, but counted by its status.
        case is HTTPParserError: Failure(.malformedRequest, "This is not HTTP.")
        // The client disconnected; nobody reads the answer.
        case is IOError, is ChannelError:
            Failure(.malformedRequest, "The connection was closed before the request was complete.")
        default: Failure(.internalError, "The server failed. Its log has the details under this request id.")
        }
    }

    private func unrouted(_ request: Request) -> (failure: Failure, allow: String?) {
        let path = request.uri.path
        if let methods = routes.methods(for: path) {
            let allow = methods.map(\.rawValue).joined(separator: ", ")
            return (
                Failure(.methodNotAllowed, "\(request.method.rawValue) is not allowed here. Allowed: \(allow)."), allow
            )
        }
        return (Failure(.notFound, "There is nothing at this path. See /openapi.yaml for all routes."), nil)
    }

    private func log(_ error: any Error, _ failure: Failure, _ context: APIContext) {
        // Misses are logged here too, so no text is built for them.
        if failure.code == .internalError {
            context.logger.error(
                "a request failed", metadata: ["request_id": "\(context.requestID)", "error": "\(error)"])
        } else if error is IOError || error is ChannelError {
            context.logger.debug(
                "a client disconnected", metadata: ["request_id": "\(context.requestID)", "error": "\(error)"])
        }
    }

    /// A path without what may be a token's secret: somebody who revokes one may send all of it.
    static func loggable(_ path: String) -> String {
        guard let start = path.firstRange(of: TokenText.prefix)?.upperBound else { return path }
        return path[..<start] + "…"
    }

    private func log(_ request: Request, _ status: HTTPResponse.Status, _ context: APIContext) {
        let seconds = (ContinuousClock.now - context.started).seconds
        context.logger.debug(
            "request",
            metadata: [
                "request_id": "\(context.requestID)", "method": "\(request.method.rawValue)",
                "path": "\(Self.loggable(request.uri.path))", "status": "\(status.code)",
                "duration_seconds": "\((seconds * 1e6).rounded(.down) / 1e6)",
            ])
    }
}
