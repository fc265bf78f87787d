// The service measures itself: its memory, its cache, its sessions, the timings of its requests.

import Domain
import HTTPAPI
import Logging
import ServiceLifecycle

/// Records samples of the service itself, one write in each interval however many requests there are.
struct SelfSampler: Service {
    let samples: any SampleStore
    let sessions: any SessionStore
    let operations: any OperationalStore
    let meter: RequestMeter
    let settings: LiveSettings
    let clock: WallClock
    let logger: Logger

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var lookups: (hits: Int, misses: Int)?
            while !Task.isCancelled {
                if settings.current.boolean(.enableMonitoring) {
                    do { lookups = try await measure(since: lookups) } catch {
                        // The engine logs by itself that the disk is full.
                        if !Task.isCancelled, (error as? Failure)?.code != .storageFull {
                            logger.warning("own samples could not be recorded", metadata: ["error": "\(error)"])
                        }
                    }
                } else {
                    // Otherwise they would count as new when monitoring is switched on again.
                    _ = meter.takeTimings()
                }
                try? await Task.sleep(for: .milliseconds(Limits.selfSampleMilliseconds))
            }
        }
    }

    /// - Returns: the look-ups so far, for the ratio of the next interval.
    private func measure(since earlier: (hits: Int, misses: Int)?) async throws -> (hits: Int, misses: Int) {
        let now = clock.now()
        try await samples.record(meter.takeTimings(), at: now)
        var measured: [Sample] = []
        if let memory = ProcessFigures.current?.memory {
            measured.append(Sample(name: ServiceGauge.processName, measurement: memory, recordedAt: now))
        }
        let namespaces = await operations.operationalFigures().stored?.namespaces ?? []
        let lookups = (
            hits: namespaces.reduce(0) { $0 + $1.hits },
            misses: namespaces.reduce(0) { $0 + $1.lookups - $1.hits }
        )
        let figures = try await sessions.sessionFigures()
        for gauge in ServiceGauge.allCases {
            let value: Double
            switch gauge {
            case .cacheHitRatio:
                // Counters go back when a namespace is removed; then there is nothing to report.
                let hits = lookups.hits - (earlier?.hits ?? lookups.hits)
                let misses = lookups.misses - (earlier?.misses ?? lookups.misses)
                guard hits >= 0, misses >= 0, hits + misses > 0 else { continue }
                value = Double(hits) / Double(hits + misses)
            case .sessionCount: value = Double(figures.sessionCount)
            case .sessionStateBytes: value = Double(figures.stateSizeBytes)
            case .sessionStateKeys: value = Double(figures.stateKeyCount)
            }
            measured.append(
                Sample(
                    name: gauge.rawValue, measurement: .gauge(value: value, unit: gauge.unit), recordedAt: now))
        }
        _ = try await samples.record(measured)
        return lookups
    }
}
