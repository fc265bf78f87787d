// Puts the routes together. Tests and the executable call the same functions.

import Domain
import Hummingbird
import Logging

/// What the routes need: a storage engine, the settings, the time, and what the process uses.
public struct Services: Sendable {
    public let storage: any StorageEngine
    public let settings: LiveSettings
    public let clock: WallClock
    /// The process's figures now; nil if the system does not provide them.
    public let process: @Sendable () -> ProcessFigures?
    public let meter = RequestMeter()
    let bodies = BodyBudget()

    public init(
        storage: any StorageEngine, settings: LiveSettings, clock: WallClock,
        process: @escaping @Sendable () -> ProcessFigures?
    ) {
        self.storage = storage
        self.settings = settings
        self.clock = clock
        self.process = process
    }

    /// Everything that is served.
    public var routes: RouteTable {
        RouteTable(
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
                + PrometheusRoutes(meter: meter, operations: storage.operations, process: process).routes
                + ConfigRoutes(store: storage.settingsStore, settings: settings).routes
                + MaintenanceRoutes(store: storage.maintenance, clock: clock).routes
                + SQLRoutes(inspection: storage.inspection).routes)
    }
}

/// The HTTP server over `services`.
///
/// - Parameters:
///   - listeners: where to listen; a free port of this machine if not given.
///   - maxConnections: of all listeners together.
///   - onListening: called with what each listener is bound to, such as `http://127.0.0.1:8080`, in the same order,
///     once connections are accepted at all of them.
public func buildApplication(
    services: Services, listeners: [Listener] = [Listener(.tcp(host: "127.0.0.1", port: 0))],
    maxConnections: Int = Limits.maxConnections, logger: Logger,
    onListening: @escaping @Sendable ([String]) async -> Void = { _ in }
) -> APIServer {
    let router = Router(context: APIContext.self, options: .autoGenerateHeadEndpoints)
    let routes = services.routes
    router.add(middleware: RequestMiddleware(routes: routes, meter: services.meter))
    routes.addRoutes(to: router, meter: services.meter, bodies: services.bodies)
    let gate = ConnectionGate(limit: maxConnections)
    let idle = services.settings.current.milliseconds(.idleTimeout)
    return APIServer(
        responder: router.buildResponder(), listeners: listeners,
        options: {
            ConnectionOptions(
                responder: $0, idleTimeout: .milliseconds(idle), streamsBody: routes.streamsBody, gate: gate)
        },
        onListening: onListening, logger: logger)
}
