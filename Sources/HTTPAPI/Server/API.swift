// Puts the routes together. Tests and the executable call the same functions.

import Domain
import Hummingbird
import HummingbirdCore
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
///   - host: address to listen on.
///   - port: 0 picks a free one.
///   - onListening: called with the port once connections are accepted.
public func buildApplication(
    services: Services, host: String, port: Int, logger: Logger,
    onListening: @escaping @Sendable (Int) async -> Void = { _ in }
) -> some ApplicationProtocol {
    let router = Router(context: APIContext.self, options: .autoGenerateHeadEndpoints)
    let routes = services.routes
    router.add(middleware: RequestMiddleware(routes: routes, meter: services.meter))
    routes.addRoutes(to: router, meter: services.meter, bodies: services.bodies)
    let idle = services.settings.current.milliseconds(.idleTimeout)
    let channel = HTTP1Channel.Configuration(
        additionalChannelHandlers: [
            ConnectionHandler(stallTimeout: .milliseconds(idle), streamsBody: routes.streamsBody)
        ],
        idleTimeout: .milliseconds(idle),
        httpDecoderConfiguration: .init(
            maxHeaderFieldSize: Limits.maxHeaderBytes, maxHeaderListSize: Limits.maxHeaderBytes,
            maxHeaderFieldCount: 200))
    return Application(
        router: router,
        server: HTTPServerBuilder { EventLoopChannel(base: HTTP1Channel(responder: $0, configuration: channel)) },
        configuration: ApplicationConfiguration(
            address: .hostname(host, port: port), backlog: 1024,
            availableConnectionsDelegate: MaximumAvailableConnections(Limits.maxConnections, logger: logger)),
        onServerRunning: { await onListening($0.localAddress?.port ?? port) }, logger: logger)
}
