// Puts the routes together. Tests and the executable call the same functions.

import Domain
import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// What the routes need: a storage engine, the settings, the time, and what the process uses.
public struct Services: Sendable {
    public let storage: any StorageEngine
    public let settings: LiveSettings
    public let clock: WallClock
    /// The process's figures now; nil if the system does not provide them.
    public let process: @Sendable () -> ProcessFigures?
    public let meter = RequestMeter()
    public let access: AccessControl
    let bodies: BodyBudget
    public let startup = StartupTime()
    let web: WebRules
    let idempotency: Idempotency

    public init(
        storage: any StorageEngine, settings: LiveSettings, clock: WallClock,
        process: @escaping @Sendable () -> ProcessFigures?
    ) {
        self.init(
            storage: storage, settings: settings, clock: clock, process: process,
            pause: { try await Task.sleep(for: $0) })
    }

    /// - Parameter pause: how a caller is kept waiting.
    init(
        storage: any StorageEngine, settings: LiveSettings, clock: WallClock,
        process: @escaping @Sendable () -> ProcessFigures?, pause: @escaping AccessControl.Pause
    ) {
        self.storage = storage
        self.settings = settings
        self.clock = clock
        self.process = process
        access = AccessControl(
            tokens: storage.accessTokens, settings: settings.current, clock: clock, pause: pause)
        web = WebRules(settings.current)
        idempotency = Idempotency(store: storage.idempotency)
        bodies = BodyBudget(uploads: {
            max(Limits.maxUnfinishedUploadBytes, 4 * settings.current.integer(.maxEntryBytes))
        })
    }

    /// Everything that is served.
    public var routes: RouteTable {
        let single = singleRoutes
        let responder = router(of: single).buildResponder()
        return RouteTable(
            single.routes
                + RequestBatchRoutes(
                    memory: bodies.long, answer: { try await responder.respond(to: $0, context: $1) }
                ).routes)
    }

    /// A router with what every request passes through.
    fileprivate func router(of routes: RouteTable) -> Router<APIContext> {
        let router = Router(context: APIContext.self, options: .autoGenerateHeadEndpoints)
        router.add(middleware: RequestMiddleware(routes: routes, services: self))
        routes.addRoutes(to: router, access: access, meter: meter, bodies: bodies, idempotency: idempotency)
        return router
    }

    /// Everything but batches of requests.
    private var singleRoutes: RouteTable {
        let diagnostician = Diagnostician(
            storage: storage, settings: settings, clock: clock, meter: meter, process: process, startup: startup)
        return RouteTable(
            HealthRoutes(health: storage.health).routes
                + DashboardRoutes().routes
                + CacheNamespaceRoutes(cache: storage.cache, settings: settings).routes
                + CacheBatchRoutes(cache: storage.cache).routes
                + CacheRoutes(cache: storage.cache, settings: settings).routes
                + SessionRoutes(sessions: storage.sessions, settings: settings).routes
                + SessionStateRoutes(sessions: storage.sessions).routes
                + SessionTemplateRoutes(sessions: storage.sessions, settings: settings).routes
                + HistoryRoutes(history: storage.history).routes
                + SampleRoutes(samples: storage.samples, settings: settings, clock: clock).routes
                + MetricRoutes(samples: storage.samples, sessions: storage.sessions, clock: clock).routes
                + CacheFigureRoutes(cache: storage.cache, clock: clock).routes
                + SummaryRoutes(
                    samples: storage.samples, cache: storage.cache, sessions: storage.sessions,
                    history: storage.history, maintenance: storage.maintenance, settings: settings, clock: clock
                ).routes
                + PrometheusRoutes(
                    meter: meter, refusals: access.refusals, operations: storage.operations,
                    diagnostician: diagnostician, process: process
                ).routes
                + TokenRoutes(tokens: storage.accessTokens, clock: clock).routes
                + ConfigRoutes(store: storage.settingsStore, settings: settings).routes
                + MaintenanceRoutes(store: storage.maintenance, clock: clock).routes
                + BackupRoutes(store: storage.backups).routes
                + DiagnosticsRoutes(diagnostician: diagnostician).routes
                + SQLRoutes(inspection: storage.inspection).routes)
    }
}

extension Services {
    /// Whether a request whose body has not been sent yet will be admitted.
    func admits(_ request: HTTPRequest, over channel: any Channel, routes: RouteTable) -> Bool {
        guard let (route, namespace) = routes.route(of: request) else { return false }
        let caller = Caller(channel.remoteAddress)
        let name = namespace.flatMap { try? PercentEncoding.decode($0) }
        guard (try? web.check(request, isLocal: channel.isOverUnixSocket)) != nil else { return false }
        return (try? access.admit(request, to: route.scope, namespace: name, from: caller)) != nil
    }
}

/// The HTTP server over `services`.
///
/// - Parameters:
///   - listeners: where to listen; a free port of this machine if not given.
///   - maxConnections: of all listeners together.
///   - afterBurst: called when most of many connections have closed, so that memory can be returned to the system.
///   - onListening: called with what each listener is bound to, such as `http://127.0.0.1:8080`, in the same order,
///     once connections are accepted at all of them.
public func buildApplication(
    services: Services, listeners: [Listener] = [Listener(.tcp(host: "127.0.0.1", port: 0))],
    maxConnections: Int = Limits.maxConnections, afterBurst: @escaping @Sendable () -> Void = {}, logger: Logger,
    onListening: @escaping @Sendable ([String]) async -> Void = { _ in }
) -> APIServer {
    let routes = services.routes
    let gate = ConnectionGate(limit: maxConnections, afterBurst: afterBurst)
    let idle = services.settings.current.milliseconds(.idleTimeout)
    return APIServer(
        responder: services.router(of: routes).buildResponder(), listeners: listeners,
        options: {
            ConnectionOptions(
                responder: $0, idleTimeout: .milliseconds(idle), streamsBody: routes.streamsBody,
                isInvited: { services.admits($0, over: $1, routes: routes) }, gate: gate)
        },
        onListening: onListening, logger: logger)
}
