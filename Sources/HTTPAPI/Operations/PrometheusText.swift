// The Prometheus text format, and the name of every metric that does not depend on the storage engine.

import Domain

/// Every metric family except those that the engine names, ``OperationalFigures/engine``.
enum MetricFamily: String, CaseIterable {
    case buildInfo = "reprise_build_info"
    case cpuSeconds = "process_cpu_seconds_total"
    case residentBytes = "process_resident_memory_bytes"
    case virtualBytes = "process_virtual_memory_bytes"
    case startTime = "process_start_time_seconds"
    case openDescriptors = "process_open_fds"
    case maxDescriptors = "process_max_fds"
    case requests = "reprise_http_requests_total"
    case requestDuration = "reprise_http_request_duration_seconds"
    case requestsInFlight = "reprise_http_requests_in_flight"
    case accessRefusals = "reprise_access_refused_total"
    case cacheLookups = "reprise_cache_lookups_total"
    case cacheEvictions = "reprise_cache_evictions_total"
    case cacheEntries = "reprise_cache_entries"
    case cacheBytes = "reprise_cache_size_bytes"
    case sessions = "reprise_sessions"
    case sessionKeys = "reprise_session_state_keys"
    case sessionBytes = "reprise_session_state_size_bytes"
    case writes = "reprise_writer_writes_total"
    case cleanupLag = "reprise_cleanup_lag_seconds"
    case newSamples = "reprise_samples_waiting_for_rollup"
    case storeReadable = "reprise_store_readable"
    case taskRuns = "reprise_maintenance_runs_total"
    case taskFailures = "reprise_maintenance_failures_total"
    case taskRows = "reprise_maintenance_removed_rows_total"
    case taskSeconds = "reprise_maintenance_seconds_total"
    case findings = "reprise_findings"

    var type: String {
        switch self {
        case .requestDuration: "histogram"
        default: rawValue.hasSuffix("_total") ? "counter" : "gauge"
        }
    }

    var help: String {
        switch self {
        case .buildInfo: "Always 1; the label is the version of the server."
        case .cpuSeconds: "CPU time the process used, user and system."
        case .residentBytes: "Resident memory of the process."
        case .virtualBytes: "Virtual memory of the process."
        case .startTime: "When the process started, in seconds since 1970."
        case .openDescriptors: "Open file descriptors."
        case .maxDescriptors: "File descriptors the process may open."
        case .requests: "Requests answered, by route, method and class of status."
        case .requestDuration: "Time from the head of a request to the head of its response, by route and method."
        case .requestsInFlight: "Requests whose response has not begun."
        case .accessRefusals: "Requests refused before they reached a route, by reason."
        case .cacheLookups: "Cache look-ups by namespace and result: hit, or the reason for the miss."
        case .cacheEvictions: "Cache entries removed by the server, by namespace and reason: expired or capacity."
        case .cacheEntries: "Live cache entries by namespace."
        case .cacheBytes: "Bytes of live cached values by namespace."
        case .sessions: "Live sessions."
        case .sessionKeys: "Keys stored in the states of live sessions."
        case .sessionBytes: "Bytes of the states of live sessions."
        case .writes: "Writes committed."
        case .cleanupLag: "How long ago the oldest row that is still there expired or was cleared, by area."
        case .newSamples: "Performance samples not rolled up yet."
        case .storeReadable: "1, or 0 if the database did not answer and its metrics are missing."
        case .taskRuns: "Runs of background tasks."
        case .taskFailures: "Runs of background tasks that failed."
        case .taskRows: "Rows removed by background tasks."
        case .taskSeconds: "Time taken by background tasks."
        case .findings: "Findings of GET /v1/diagnostics by severity, at most a minute old."
        }
    }
}

extension EngineFigure {
    var type: String {
        switch value {
        case .gauge: "gauge"
        case .counter: "counter"
        case .histogram: "histogram"
        }
    }
}

/// Writes version 0.0.4 of the format:
/// https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
struct PrometheusText {
    /// The lines of each family, by its name: its description, then its samples in the order in which they were added.
    private var lines: [String: [UInt8]] = [:]

    typealias Labels = [(name: StaticString, value: String)]

    /// The families by name.
    var bytes: [UInt8] { lines.sorted { $0.key < $1.key }.flatMap(\.value) }

    mutating func add(_ family: MetricFamily, _ value: Double, _ labels: Labels = []) {
        describe(family.rawValue, family.type, family.help)
        add(family.rawValue, "", labels, value)
    }

    mutating func add(_ family: MetricFamily, _ histogram: Histogram, _ labels: Labels = []) {
        describe(family.rawValue, family.type, family.help)
        add(family.rawValue, histogram, labels)
    }

    mutating func add(_ figure: EngineFigure) {
        describe(figure.name, figure.type, figure.help)
        switch figure.value {
        case .gauge(let value), .counter(let value): add(figure.name, "", [], value)
        case .histogram(let histogram): add(figure.name, histogram, [])
        }
    }

    private mutating func describe(_ name: String, _ type: String, _ help: String) {
        guard lines[name] == nil else { return }
        lines[name] = Array("# HELP \(name) \(help)\n# TYPE \(name) \(type)\n".utf8)
    }

    private mutating func add(_ name: String, _ histogram: Histogram, _ labels: Labels) {
        var count = 0
        for (place, inBucket) in histogram.counts.enumerated() {
            count += inBucket
            let bound = place < histogram.bounds.count ? histogram.bounds[place] : .infinity
            add(name, "_bucket", labels + [("le", Self.number(bound))], Double(count))
        }
        add(name, "_sum", labels, histogram.sum)
        add(name, "_count", labels, Double(count))
    }

    private mutating func add(_ name: String, _ suffix: String, _ labels: Labels, _ value: Double) {
        let pairs = labels.map { "\($0.name)=\"\(Self.escaped($0.value))\"" }.joined(separator: ",")
        let line = "\(name)\(suffix)\(pairs.isEmpty ? "" : "{\(pairs)}") \(Self.number(value))\n"
        lines[name, default: []] += Array(line.utf8)
    }

    private static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
        return JSON.decimal(value).text
    }

    private static func escaped(_ value: String) -> String {
        var escaped = ""
        for character in value.unicodeScalars {
            switch character {
            case "\\": escaped += "\\\\"
            case "\"": escaped += "\\\""
            case "\n": escaped += "\\n"
            default: escaped.unicodeScalars.append(character)
            }
        }
        return escaped
    }
}
