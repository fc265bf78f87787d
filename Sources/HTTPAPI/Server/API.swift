// Puts the routes together. Tests and the executable call the same functions.

import Domain
import Hummingbird
import HummingbirdCore
import Logging
import NIOCore

/// What the routes need: one storage protocol for each area, and the settings.
public struct Services: Sendable {
    public var cache: any CacheStore
    public var sessions: any SessionStore
    public var history: any HistoryStore
    public var samples: any SampleStore
    public var health: any HealthStore
    public var maintenance: any MaintenanceStore
    public var inspection: any SQLInspection
    public var settingsStore: any SettingsStore
    public var settings: LiveSettings
    public var clock: WallClock
    public var operations: any OperationalStore
    public let meter = RequestMeter()

    public init(
        cache: any CacheStore, sessions: any SessionStore, history: any HistoryStore, samples: any SampleStore,
        health: any HealthStore, maintenance: any MaintenanceStore, inspection: any SQLInspection,
        settingsStore: any SettingsStore, settings: LiveSettings, operations: any OperationalStore, clock: WallClock
    ) {
        self.cache = cache
        self.sessions = sessions
        self.history = history
        self.samples = samples
        self.health = health
        self.maintenance = maintenance
        self.inspection = inspection
        self.settingsStore = settingsStore
        self.settings = settings
        self.clock = clock
        self.operations = operations
    }

    /// Everything that is served.
    public var routes: RouteTable {
        RouteTable(
            HealthRoutes(health: health).routes
                + DashboardRoutes().routes
                + CacheNamespaceRoutes(cache: cache, settings: settings).routes
                + CacheBatchRoutes(cache: cache).routes
                + CacheRoutes(cache: cache, settings: settings).routes
                + SessionRoutes(sessions: sessions, settings: settings).routes
                + SessionStateRoutes(sessions: sessions).routes
                + SessionTemplateRoutes(sessions: sessions, settings: settings).routes
                + HistoryRoutes(history: history).routes
                + SampleRoutes(samples: samples, settings: settings, clock: clock).routes
                + MetricRoutes(samples: samples, clock: clock).routes
                + CacheFigureRoutes(cache: cache, clock: clock).routes
                + SummaryRoutes(
                    samples: samples, cache: cache, maintenance: maintenance, settings: settings, clock: clock
                ).routes
                + PrometheusRoutes(meter: meter, operations: operations).routes
                + ConfigRoutes(store: settingsStore, settings: settings).routes
                + MaintenanceRoutes(store: maintenance, clock: clock).routes
                + SQLRoutes(inspection: inspection).routes)
    }
}

/// The HTTP server over `services`.
///
/// - Parameters:
///   - host: address to listen on.
///   - port: 0 picks a free one.
///   - onListening: told the port once connections are accepted.
public func buildApplication(
    services: Services, host: String, port: Int, logger: Logger,
    onListening: @escaping @Sendable (Int) async -> Void = { _ in }
) -> some ApplicationProtocol {
    let router = Router(context: APIContext.self, options: .autoGenerateHeadEndpoints)
    let routes = services.routes
    router.add(middleware: RequestMiddleware(routes: routes, meter: services.meter))
    routes.addRoutes(to: router, meter: services.meter)
    let idle = services.settings.current.milliseconds(.idleTimeout)
    let channel = HTTP1Channel.Configuration(
        additionalChannelHandlers: [ConnectionHandler(stallTimeout: .milliseconds(idle))],
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
