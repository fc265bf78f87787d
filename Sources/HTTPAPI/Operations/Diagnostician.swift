// Gathers the figures that diagnostics judges, from the engine, the process and the requests.

import Domain
import Synchronization

/// How long the service took from its start until it accepted connections.
public final class StartupTime: Sendable {
    private let state = Mutex<Double?>(nil)

    /// nil before it accepts connections, and where nobody measured it.
    public var seconds: Double? { state.withLock { $0 } }

    public func set(seconds: Double) { state.withLock { $0 = seconds } }
}

struct Diagnostician: Sendable {
    let storage: any StorageEngine
    let settings: LiveSettings
    let clock: WallClock
    let meter: RequestMeter
    let process: @Sendable () -> ProcessFigures?
    let startup: StartupTime
    private let latest = Latest()

    init(
        storage: any StorageEngine, settings: LiveSettings, clock: WallClock, meter: RequestMeter,
        process: @escaping @Sendable () -> ProcessFigures?, startup: StartupTime
    ) {
        self.storage = storage
        self.settings = settings
        self.clock = clock
        self.meter = meter
        self.process = process
        self.startup = startup
    }

    /// What is found now. Parts that cannot be read are left out, since that is when the others are needed.
    func diagnosis() async -> Diagnosis {
        let now = clock.now()
        // A range excludes its end.
        let range = MetricRange(
            since: now.advanced(milliseconds: -DiagnosticThresholds.windowMilliseconds),
            until: now.advanced(milliseconds: 1))
        var snapshot = DiagnosticSnapshot(
            settings: settings.current, figures: await storage.diagnostics.diagnosticFigures())
        snapshot.process = process()
        snapshot.startupSeconds = startup.seconds
        snapshot.failures = meter.recentFailures
        snapshot.tasks = try? await storage.maintenance.maintenanceFigures(
            in: range, runs: Limits.maxPageItems)
        snapshot.applications = (try? await applications(in: range)) ?? []
        let diagnosis = snapshot.diagnosis
        latest.set(diagnosis)
        return diagnosis
    }

    /// How many findings there are of each severity, at most ``Limits/findingsAgeSeconds`` old, so that monitoring
    /// does not pay for it with each scrape.
    func counts() async -> [Finding.Severity: Int] {
        let diagnosis: Diagnosis
        if let recent = latest.get() { diagnosis = recent } else { diagnosis = await self.diagnosis() }
        return Dictionary(grouping: diagnosis.findings, by: \.severity).mapValues(\.count)
    }

    /// The processes whose memory was sampled, but this one.
    private func applications(in range: MetricRange) async throws -> [DiagnosticSnapshot.Application] {
        let measured = try await storage.samples.measure(
            [SampleMetric.percent, .residentBytes].map {
                MetricQuery(kind: .memory, metric: $0, range: range, hasPercentiles: false)
            })
        let resident = Dictionary(
            measured[1].items.map { ($0.name, $0.total.last ?? 0) }, uniquingKeysWith: { first, _ in first })
        return measured[0].items.compactMap { item in
            guard item.name != ServiceGauge.processName, let percent = item.total.last else { return nil }
            return .init(name: item.name, memoryPercent: percent, residentBytes: resident[item.name] ?? 0)
        }
    }

    /// The last diagnosis, until it is too old.
    private final class Latest: Sendable {
        private let state = Mutex<(diagnosis: Diagnosis, at: ContinuousClock.Instant)?>(nil)

        func set(_ diagnosis: Diagnosis) { state.withLock { $0 = (diagnosis, ContinuousClock.now) } }

        func get() -> Diagnosis? {
            state.withLock { state in
                guard let state, ContinuousClock.now - state.at < .seconds(Limits.findingsAgeSeconds) else {
                    return nil
                }
                return state.diagnosis
            }
        }
    }
}
