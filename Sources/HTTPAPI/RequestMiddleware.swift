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

    /// For what no route answers: which methods a path does have.
    let routes: RouteTable
    let meter: RequestMeter

    func handle(
        _ request: Request, context: APIContext,
        next: (Request, APIContext) async throws -> Response
    ) async throws -> Response {
        meter.inFlight.wrappingAdd(1, ordering: .relaxed)
        defer { meter.inFlight.wrappingSubtract(1, ordering: .relaxed) }
        var context = context
        context.requestID = Self.requestID(of: request, context: context)
        let started = context.logger.logLevel <= .debug ? ContinuousClock.now : nil
        var response: Response
        do {
            response = try await next(request, context)
        } catch let error as HTTPParserError {
            // What came was no HTTP, or ended too early: ConnectionHandler answers, and the connection closes.
            throw error
        } catch {
            let failure = failure(from: error, request: request, context: context)
            response = Problem.response(failure.failure, requestID: context.requestID)
            if let allow = failure.allow { response.headers[.allow] = allow }
            if request.method == .head { response = response.createHeadResponse() }
        }
        // Neither has a body, and on a 304 a length would be taken for that of the entity.
        if response.status == .noContent || response.status == .notModified { response.headers[.contentLength] = nil }
        response.headers[.requestID] = context.requestID
        if let started { log(request, response.status, started, context) }
        return response
    }

    /// The caller's `X-Request-Id` if it is short and plain, else the id Hummingbird gave the request.
    static func requestID(of request: Request, context: APIContext) -> String {
        guard let id = request.headers[.requestID], (1...Limits.maxRequestIDBytes).contains(id.utf8.count),
            id.utf8.allSatisfy({ (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") })
        else { return context.id }
        return id
    }

    private func failure(
        from error: any Error, request: Request, context: APIContext
    ) -> (failure: Failure, allow: String?) {
        switch error {
        case let failure as Failure:
            if failure.code == .internalError { log(error, context) }
            return (failure, nil)
        case let error as HTTPError where error.status == .notFound:
            return unrouted(request)
        case is TruncatedBody:
            return (Failure(.malformedRequest, "The body ended before the length its header announced."), nil)
        case is IOError, is ChannelError:
            // The client went away; nobody reads the answer.
            context.logger.debug(
                "a client went away", metadata: ["request_id": "\(context.requestID)", "error": "\(error)"])
            return (Failure(.malformedRequest, "The connection ended before the request did."), nil)
        default:
            log(error, context)
            return (Failure(.internalError, "The server failed; its log has the details under this request id."), nil)
        }
    }

    private func unrouted(_ request: Request) -> (failure: Failure, allow: String?) {
        meter.unmatched.record(status: 404, since: .now)
        let path = request.uri.path
        if let methods = routes.methods(for: path) {
            let allow = methods.map(\.rawValue).joined(separator: ", ")
            return (
                Failure(.methodNotAllowed, "\(request.method.rawValue) is not possible here; \(allow) are."), allow
            )
        }
        return (Failure(.notFound, "Nothing is served under this path; see /openapi.yaml."), nil)
    }

    private func log(_ error: any Error, _ context: APIContext) {
        context.logger.error(
            "a request failed", metadata: ["request_id": "\(context.requestID)", "error": "\(error)"])
    }

    private func log(
        _ request: Request, _ status: HTTPResponse.Status, _ started: ContinuousClock.Instant, _ context: APIContext
    ) {
        let (seconds, attoseconds) = (ContinuousClock.now - started).components
        context.logger.debug(
            "request",
            metadata: [
                "request_id": "\(context.requestID)", "method": "\(request.method.rawValue)",
                "path": "\(request.uri.path)", "status": "\(status.code)",
                "duration_seconds": "\(Double(seconds) + Double(attoseconds / 1_000_000_000_000) / 1e6)",
            ])
    }
}
