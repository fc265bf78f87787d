// The list of everything that is served, from which the router is built and against which openapi.yaml is tested.

import Domain
import HTTPTypes
import Hummingbird

/// One method on one path.
public struct Route: Sendable {
    public typealias Handler = @Sendable (Request, APIContext) async throws -> Response

    public let method: HTTPRequest.Method
    /// With parameters in braces, as in `openapi.yaml`: `/v1/cache/{namespace}`.
    public let path: String
    /// What its callers must be allowed.
    public let scope: RouteScope
    /// Whether a caller who accepts no JSON is refused. Not if the answer is a stored value or has no body.
    let answersJSON: Bool
    /// Whether it may compute for milliseconds at a time, so that it must not run on the event loop, which serves other
    /// connections too.
    let computesLong: Bool
    /// Whether its failures say something about the database. Those of backups are about another folder.
    let concernsDatabase: Bool
    /// Whether the body is a value that is passed on in chunks. Any other body is JSON and is held in memory.
    let streamsBody: Bool
    /// What a request is answered that is sent again with the same idempotency key.
    let repetition: Idempotency.Repetition
    let handler: Handler

    init(
        _ method: HTTPRequest.Method, _ path: String, scope: RouteScope, answersJSON: Bool = true,
        computesLong: Bool = false, concernsDatabase: Bool = true, streamsBody: Bool = false,
        repetition: Idempotency.Repetition = .firstAnswer, _ handler: @escaping Handler
    ) {
        self.method = method
        self.path = path
        self.scope = scope
        self.answersJSON = answersJSON
        self.computesLong = computesLong
        self.concernsDatabase = concernsDatabase
        self.streamsBody = streamsBody
        self.repetition = repetition
        self.handler = handler
    }

    /// - Throws: `unauthenticated`, `forbidden`, `too_many_attempts`.
    fileprivate func admit(
        _ request: Request, _ context: APIContext, by access: AccessControl
    ) async throws -> AccessControl.Identity {
        do throws(Refusal) {
            return try access.admit(
                request.head, to: scope,
                namespace: context.parameters["namespace"].flatMap { try? PercentEncoding.decode($0) },
                from: context.caller)
        } catch {
            if error.failure.tokenWasSent { try await access.slowDown(context.caller) }
            throw access.counted(error)
        }
    }

    /// Answers on the connection's event loop, or elsewhere if that may take long: reading a long JSON body does.
    /// - Parameter idempotency: carries out requests with a key only once; nil to ignore keys.
    func answer(
        _ request: Request, _ context: APIContext, bodies: BodyBudget, idempotency: Idempotency? = nil
    ) async throws -> Response {
        var context = context
        var leavesLoop = computesLong
        if request.hasBody {
            let isLong = request.declaredLength.map { $0 > Limits.maxShortBodyBytes } ?? true
            let share = streamsBody ? bodies.uploads : isLong ? bodies.long : bodies.short
            context.body = BodyReservation(share, for: context.caller)
            leavesLoop = leavesLoop || isLong && !streamsBody
        }
        // Other methods may be sent again as they are (RFC 9110, 9.2.2).
        let idempotency = method == .post || method == .patch ? idempotency : nil
        guard leavesLoop || idempotency != nil else { return try await handler(request, context) }
        guard leavesLoop else { return try await carryOut(request, context, idempotency) }
        return try await withTaskExecutorPreference(globalConcurrentExecutor) { [context] in
            try await carryOut(request, context, idempotency)
        }
    }

    private func carryOut(
        _ request: Request, _ context: APIContext, _ idempotency: Idempotency?
    ) async throws -> Response {
        guard let idempotency, let key = try IdempotencyKey(request, context) else {
            return try await handler(request, context)
        }
        return try await idempotency.answer(request, context, key: key, repetition, by: handler)
    }
}

/// All routes.
public struct RouteTable: Sendable {
    public let routes: [Route]
    private let paths: [(segments: [Substring], methods: [HTTPRequest.Method])]

    init(_ routes: [Route]) {
        self.routes = routes
        var methods: [String: [HTTPRequest.Method]] = [:]
        for route in routes {
            methods[route.path, default: []].append(route.method)
            // HEAD exists wherever GET does: the router derives it.
            if route.method == .get { methods[route.path]!.append(.head) }
        }
        // The router treats a path with and without a final slash as the same.
        for (path, known) in methods where path.hasSuffix("/") { methods[String(path.dropLast())] = known }
        // As in the router, a path with fewer parameters goes before one that matches too.
        func rank(_ path: String) -> (Int, String) { (path.count { $0 == "{" }, path) }
        let byParameters = methods.sorted { rank($0.key) < rank($1.key) }
        paths = byParameters.map { path, methods in
            (
                Self.segments(of: path),
                methods.sorted { $0.rawValue < $1.rawValue }
            )
        }
    }

    /// The methods of a request's path; nil if there is nothing at the path. A linear search, because it only serves
    /// errors.
    func methods(for path: String) -> [HTTPRequest.Method]? {
        let segments = Self.segments(of: path)
        return paths.first { Self.matches($0.segments, segments) }?.methods
    }

    /// Whether the body of a request is passed on in chunks: ``Route/streamsBody``.
    @Sendable func streamsBody(_ request: HTTPRequest) -> Bool { route(of: request)?.route.streamsBody ?? false }

    /// The route of a request whose head has just arrived, and the namespace in its path, still encoded. A linear
    /// search, because few requests need it that early.
    func route(of request: HTTPRequest) -> (route: Route, namespace: Substring?)? {
        let segments = Self.segments(of: String((request.path ?? "").prefix { $0 != "?" }))
        for route in routes where route.method == request.method {
            let names = Self.segments(of: route.path)
            guard Self.matches(names, segments) else { continue }
            return (route, names.firstIndex(of: "{namespace}").map { segments[$0] })
        }
        return nil
    }

    private static func segments(of path: String) -> [Substring] {
        path.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
    }

    private static func matches(_ route: [Substring], _ path: [Substring]) -> Bool {
        route.count == path.count && zip(route, path).allSatisfy { $0 == $1 || ($0.first == "{" && !$1.isEmpty) }
    }

    /// Whether a path has no empty segment. The router skips those, so that `…/entries/` would clear a namespace where
    /// the deletion of an entry without a name was meant.
    static func isProper(_ path: String) -> Bool {
        var previous = UInt8(ascii: "x")
        for byte in path.utf8 {
            if byte == UInt8(ascii: "/"), previous == byte { return false }
            previous = byte
        }
        return previous != UInt8(ascii: "/") || path.utf8.count == 1
    }

    /// - Parameters:
    ///   - access: decides who may use which route.
    ///   - idempotency: carries out requests with a key only once; nil to ignore keys.
    func addRoutes(
        to router: Router<APIContext>, access: AccessControl, meter: RequestMeter, bodies: BodyBudget,
        idempotency: Idempotency? = nil
    ) {
        for route in routes {
            let figures = meter.figures(of: route)
            router.on(RouterPath(route.path), method: route.method) { request, context in
                guard Self.isProper(request.uri.path) || request.uri.path == route.path else {
                    throw HTTPError(.notFound)
                }
                var context = context
                do {
                    context.identity = try await route.admit(request, context, by: access)
                    if route.answersJSON { try request.requireJSONAccepted() }
                    let response = access.watch(
                        try await route.answer(
                            access.watch(request, context), context, bodies: bodies, idempotency: idempotency),
                        context)
                    figures.record(status: response.status.code, since: context.started)
                    return response
                } catch {
                    let failure = RequestMiddleware.failure(answering: error)
                    let status = Problem.kind(of: failure.code).status
                    figures.record(status: status.code, since: context.started)
                    if status.kind == .serverError, route.concernsDatabase { meter.count(failure.code) }
                    throw error
                }
            }
        }
    }
}
