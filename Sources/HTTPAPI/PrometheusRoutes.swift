// GET /metrics: everything an operator's monitoring asks for.

import Domain
import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

struct PrometheusRoutes: Sendable {
    let meter: RequestMeter
    let cache: any CacheStore
    let samples: any SampleStore
    let operations: any OperationalStore

    var routes: [Route] { [Route(.get, "/metrics", answersJSON: false, metrics)] }

    @Sendable func metrics(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        let figures = try await operations.operationalFigures()
        let namespaces = try await cache.namespaces(after: nil, limit: Limits.maxPageItems)
        let sessions = try await samples.sessionFigures()
        var text = PrometheusText()
        addProcess(to: &text)
        addRequests(to: &text)
        addCache(namespaces, to: &text)
        text.add(.sessions, Double(sessions.sessionCount))
        text.add(.sessionKeys, Double(sessions.stateKeyCount))
        text.add(.sessionBytes, Double(sessions.stateSizeBytes))
        add(figures, to: &text)
        return Response(
            status: .ok,
            headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8", .cacheControl: "no-store"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: text.bytes)))
    }

    private func addProcess(to text: inout PrometheusText) {
        text.add(.buildInfo, 1, [("version", Version.current)])
        guard let process = ProcessFigures.current else { return }
        text.add(.cpuSeconds, process.cpuSeconds)
        text.add(.residentBytes, Double(process.residentBytes))
        text.add(.virtualBytes, Double(process.virtualBytes))
        text.add(.startTime, process.startedAt)
        text.add(.openDescriptors, Double(process.openDescriptors))
        text.add(.maxDescriptors, Double(process.maxDescriptors))
    }

    private func addRequests(to text: inout PrometheusText) {
        let used = meter.all.map { ($0, $0.figures.withLock { $0 }) }.filter { $0.1.count > 0 }
        for (route, figures) in used {
            for (digit, count) in figures.statuses.enumerated() where count > 0 {
                text.add(
                    .requests, Double(count),
                    [("route", route.path), ("method", route.method), ("status", "\(digit)xx")])
            }
        }
        for (route, figures) in used {
            let labels: PrometheusText.Labels = [("route", route.path), ("method", route.method)]
            var cumulative = 0
            for (place, count) in figures.histogram.enumerated() {
                cumulative += count
                let bound = place < RequestMeter.bounds.count ? JSON.decimal(RequestMeter.bounds[place]).text : "+Inf"
                text.add(.requestDuration, Double(cumulative), labels + [("le", bound)], suffix: "_bucket")
            }
            text.add(.requestDuration, figures.seconds, labels, suffix: "_sum")
            text.add(.requestDuration, Double(cumulative), labels, suffix: "_count")
        }
        text.add(.requestsInFlight, Double(meter.inFlight.load(ordering: .relaxed)))
    }

    /// The most used namespaces by name, the others together.
    private func addCache(_ namespaces: [CacheNamespace], to text: inout PrometheusText) {
        let byUse = namespaces.sorted { $0.hits + $0.missCount > $1.hits + $1.missCount }
        var rows = byUse.prefix(Limits.maxLabelledNamespaces).map { ($0.name.rawValue, [$0]) }
        let others = Array(byUse.dropFirst(Limits.maxLabelledNamespaces))
        if !others.isEmpty { rows.append((Sample.otherName, others)) }
        for (name, part) in rows {
            let hits = part.reduce(0) { $0 + $1.hits }
            text.add(.cacheLookups, Double(hits), [("namespace", name), ("result", "hit"), ("reason", "")])
            for reason in MissReason.allCases {
                let misses = part.reduce(0) { $0 + ($1.misses[reason] ?? 0) }
                text.add(
                    .cacheLookups, Double(misses),
                    [("namespace", name), ("result", "miss"), ("reason", reason.rawValue)])
            }
        }
        for (name, part) in rows {
            let expired = part.reduce(0) { $0 + $1.expirations }
            let evicted = part.reduce(0) { $0 + $1.evictions }
            text.add(.cacheEvictions, Double(expired), [("namespace", name), ("reason", "expired")])
            text.add(.cacheEvictions, Double(evicted), [("namespace", name), ("reason", "capacity")])
        }
        for (name, part) in rows {
            text.add(.cacheEntries, Double(part.reduce(0) { $0 + $1.entryCount }), [("namespace", name)])
        }
        for (name, part) in rows {
            text.add(.cacheBytes, Double(part.reduce(0) { $0 + $1.sizeBytes }), [("namespace", name)])
        }
    }

    private func add(_ figures: OperationalFigures, to text: inout PrometheusText) {
        text.add(.writerQueue, Double(figures.queuedWrites))
        text.add(.writerQueueBytes, Double(figures.queuedWriteBytes))
        text.add(.writes, Double(figures.writes))
        text.add(.commits, Double(figures.commits))
        text.add(.commitSeconds, figures.commitSeconds)
        text.add(.largestGroup, Double(figures.largestGroup))
        text.add(.databaseBytes, Double(figures.databaseBytes))
        text.add(.logBytes, Double(figures.logBytes))
        text.add(.freeBytes, Double(figures.freeBytes))
        text.add(.cleanupLag, figures.cacheLagSeconds, [("area", "cache")])
        text.add(.cleanupLag, figures.sessionLagSeconds, [("area", "sessions")])
        text.add(.newSamples, Double(figures.newSamples))
        let runs = MaintenanceTask.allCases.map { ($0.rawValue, figures.taskRuns[$0] ?? .init()) }
        for (task, run) in runs { text.add(.taskRuns, Double(run.runs), [("task", task)]) }
        for (task, run) in runs { text.add(.taskFailures, Double(run.failures), [("task", task)]) }
        for (task, run) in runs { text.add(.taskRows, Double(run.rowsRemoved), [("task", task)]) }
        for (task, run) in runs { text.add(.taskSeconds, run.seconds, [("task", task)]) }
    }
}
