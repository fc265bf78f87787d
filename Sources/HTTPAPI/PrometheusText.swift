// The Prometheus text format, and every metric's name.

import Domain

/// Every metric family, in the order in which they are written.
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
    case cacheLookups = "reprise_cache_lookups_total"
    case cacheEvictions = "reprise_cache_evictions_total"
    case cacheEntries = "reprise_cache_entries"
    case cacheBytes = "reprise_cache_size_bytes"
    case sessions = "reprise_sessions"
    case sessionKeys = "reprise_session_state_keys"
    case sessionBytes = "reprise_session_state_size_bytes"
    case writerQueue = "reprise_writer_queued_writes"
    case writerQueueBytes = "reprise_writer_queued_bytes"
    case writes = "reprise_writer_writes_total"
    case commits = "reprise_writer_commits_total"
    case commitSeconds = "reprise_writer_commit_seconds_total"
    case largestGroup = "reprise_writer_largest_group"
    case databaseBytes = "reprise_database_size_bytes"
    case logBytes = "reprise_database_wal_size_bytes"
    case freeBytes = "reprise_database_free_bytes"
    case cleanupLag = "reprise_cleanup_lag_seconds"
    case newSamples = "reprise_samples_waiting_for_rollup"
    case taskRuns = "reprise_maintenance_runs_total"
    case taskFailures = "reprise_maintenance_failures_total"
    case taskRows = "reprise_maintenance_removed_rows_total"
    case taskSeconds = "reprise_maintenance_seconds_total"

    var type: String {
        if self == .requestDuration { return "histogram" }
        return rawValue.hasSuffix("_total") ? "counter" : "gauge"
    }

    var help: String {
        switch self {
        case .buildInfo: "The version that runs; always 1."
        case .cpuSeconds: "CPU time the process used, user and system."
        case .residentBytes: "Resident memory of the process."
        case .virtualBytes: "Virtual memory of the process."
        case .startTime: "When the process started, in seconds since 1970."
        case .openDescriptors: "Open file descriptors."
        case .maxDescriptors: "File descriptors the process may open."
        case .requests: "Requests answered, by route, method and class of status."
        case .requestDuration: "Time from a request's head to its answer's head, by route and method."
        case .requestsInFlight: "Requests being answered."
        case .cacheLookups: "Cache look-ups by namespace and result: hit, or the reason of the miss."
        case .cacheEvictions: "Cache entries that left by themselves, by namespace and reason: expired, or capacity."
        case .cacheEntries: "Live cache entries by namespace."
        case .cacheBytes: "Bytes of live cached values by namespace."
        case .sessions: "Live sessions."
        case .sessionKeys: "Keys stored in the states of live sessions."
        case .sessionBytes: "Bytes of the states of live sessions."
        case .writerQueue: "Writes that wait for the writer."
        case .writerQueueBytes: "Bytes that waiting writes hold."
        case .writes: "Writes committed."
        case .commits: "Commits; writes per commit is the mean group."
        case .commitSeconds: "Time spent in commits, the disk's part of writing."
        case .largestGroup: "Most writes committed together so far."
        case .databaseBytes: "Size of the database file."
        case .logBytes: "Size of the write-ahead log."
        case .freeBytes: "Bytes of free pages in the database file."
        case .cleanupLag: "How long ago the oldest row expired that is still there, by area."
        case .newSamples: "Performance samples not rolled up yet."
        case .taskRuns: "Runs of background tasks."
        case .taskFailures: "Runs of background tasks that failed."
        case .taskRows: "Rows background tasks removed."
        case .taskSeconds: "Time background tasks took."
        }
    }
}

/// Writes version 0.0.4 of the format:
/// https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
struct PrometheusText {
    private(set) var bytes: [UInt8] = []
    private var current: MetricFamily?

    typealias Labels = [(name: StaticString, value: String)]

    /// Adds a sample; the samples of one family must follow each other.
    mutating func add(_ family: MetricFamily, _ value: Double, _ labels: Labels = [], suffix: StaticString = "") {
        if current != family {
            current = family
            write("# HELP \(family.rawValue) \(family.help)\n# TYPE \(family.rawValue) \(family.type)\n")
        }
        write(family.rawValue)
        write("\(suffix)")
        if !labels.isEmpty {
            let pairs = labels.map { "\($0.name)=\"\(Self.escaped($0.value))\"" }
            write("{\(pairs.joined(separator: ","))}")
        }
        write(" \(Self.number(value))\n")
    }

    private mutating func write(_ text: String) { bytes.append(contentsOf: text.utf8) }

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
