// GET /metrics: everything an operator's monitoring needs.

import Domain
import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

struct PrometheusRoutes: Sendable {
    let meter: RequestMeter
    let refusals: RefusalCounts
    let operations: any OperationalStore
    let diagnostician: Diagnostician
    let process: @Sendable () -> ProcessFigures?
    private let labels = NamespaceLabels()

    init(
        meter: RequestMeter, refusals: RefusalCounts, operations: any OperationalStore,
        diagnostician: Diagnostician,
        process: @escaping @Sendable () -> ProcessFigures?
    ) {
        self.meter = meter
        self.refusals = refusals
        self.operations = operations
        self.diagnostician = diagnostician
        self.process = process
    }

    var routes: [Route] { [Route(.get, "/metrics", scope: .read, answersJSON: false, computesLong: true, metrics)] }

    @Sendable func metrics(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        let figures = await operations.operationalFigures()
        var text = PrometheusText()
        addProcess(to: &text)
        addRequests(to: &text)
        add(figures, to: &text)
        text.add(.storeReadable, figures.stored == nil ? 0 : 1)
        if let stored = figures.stored { add(stored, to: &text) }
        let findings = await diagnostician.counts()
        for severity in Finding.Severity.allCases {
            text.add(.findings, Double(findings[severity] ?? 0), [("severity", severity.rawValue)])
        }
        return Response(
            status: .ok,
            headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8", .cacheControl: "no-store"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: text.bytes)))
    }

    private func addProcess(to text: inout PrometheusText) {
        text.add(.buildInfo, 1, [("version", Version.current)])
        guard let process = process() else { return }
        text.add(.cpuSeconds, process.cpuSeconds)
        text.add(.residentBytes, Double(process.residentBytes))
        text.add(.virtualBytes, Double(process.virtualBytes))
        text.add(.startTime, process.startedAt)
        text.add(.openDescriptors, Double(process.openDescriptors))
        text.add(.maxDescriptors, Double(process.maxDescriptors))
    }

    private func addRequests(to text: inout PrometheusText) {
        for route in meter.all {
            let figures = route.figures
            let labels: PrometheusText.Labels = [("route", route.path), ("method", route.method)]
            for (digit, count) in figures.statuses.enumerated() where count > 0 {
                text.add(.requests, Double(count), labels + [("status", "\(digit)xx")])
            }
            if figures.seconds.count > 0 { text.add(.requestDuration, figures.seconds, labels) }
        }
        text.add(.requestsInFlight, Double(meter.inFlight.load(ordering: .relaxed)))
        let refused = refusals.all
        for reason in RefusalCounts.Reason.allCases {
            text.add(.accessRefusals, Double(refused[reason] ?? 0), [("reason", reason.rawValue)])
        }
    }

    private func add(_ figures: OperationalFigures, to text: inout PrometheusText) {
        text.add(.writes, Double(figures.writes))
        text.add(.newSamples, Double(figures.newSamples))
        for run in figures.taskRuns {
            let label: PrometheusText.Labels = [("task", run.task.rawValue)]
            text.add(.taskRuns, Double(run.runs), label)
            text.add(.taskFailures, Double(run.failures), label)
            text.add(.taskRows, Double(run.rowsRemoved), label)
            text.add(.taskSeconds, run.seconds, label)
        }
        for figure in figures.engine { text.add(figure) }
    }

    private func add(_ stored: OperationalFigures.Stored, to text: inout PrometheusText) {
        for namespace in labels.rows(stored.namespaces) {
            let label: PrometheusText.Labels = [("namespace", namespace.name.rawValue)]
            text.add(.cacheLookups, Double(namespace.hits), label + [("result", "hit"), ("reason", "")])
            for reason in MissReason.allCases {
                text.add(
                    .cacheLookups, Double(namespace.misses[reason] ?? 0),
                    label + [("result", "miss"), ("reason", reason.rawValue)])
            }
            text.add(.cacheEvictions, Double(namespace.expirations), label + [("reason", "expired")])
            text.add(.cacheEvictions, Double(namespace.evictions), label + [("reason", "capacity")])
            text.add(.cacheEntries, Double(namespace.entryCount), label)
            text.add(.cacheBytes, Double(namespace.sizeBytes), label)
        }
        text.add(.sessions, Double(stored.sessionCount))
        text.add(.sessionKeys, Double(stored.stateKeyCount))
        text.add(.sessionBytes, Double(stored.stateSizeBytes))
        for leftover in OperationalFigures.Leftover.allCases {
            text.add(.cleanupLag, stored.lagSeconds[leftover] ?? 0, [("area", leftover.rawValue)])
        }
    }
}
