// The figures that diagnostics judges, and the rules about the process, its requests and its background work.

/// What is known at one moment. Parts that nobody could provide are nil, and their rules find nothing: without a
/// server there are no requests, for example. The rules are pure, so that each is tested at its threshold.
public struct DiagnosticSnapshot: Sendable {
    /// A process that reported its own memory in the last ``DiagnosticThresholds/windowMilliseconds``.
    public struct Application: Sendable, Equatable {
        public var name: String
        /// The latest value, in percent of its machine.
        public var memoryPercent: Double
        public var residentBytes: Double

        public init(name: String, memoryPercent: Double, residentBytes: Double) {
            self.name = name
            self.memoryPercent = memoryPercent
            self.residentBytes = residentBytes
        }
    }

    public var settings: Settings
    public var figures: DiagnosticFigures
    /// What the background tasks did in the window, with their latest runs.
    public var tasks: MaintenanceFigures?
    public var process: ProcessFigures?
    /// From the start of the process until it accepted connections.
    public var startupSeconds: Double?
    /// Requests that failed in the window, by the code of their failure.
    public var failures: [Failure.Code: Int] = [:]
    public var applications: [Application] = []

    public init(settings: Settings, figures: DiagnosticFigures) {
        self.settings = settings
        self.figures = figures
    }

    public var diagnosis: Diagnosis {
        Diagnosis(
            database + startup + memory + descriptors + applicationMemory + cache + namespaceCount + sampleNames
                + sessionState + cleanup + backups + requests + choices + figures.findings)
    }
}

extension Finding.Code {
    public static let databaseUnreadable = Self(rawValue: "database_unreadable")
    public static let slowStart = Self(rawValue: "slow_start")
    public static let memoryHigh = Self(rawValue: "memory_high")
    public static let descriptorsScarce = Self(rawValue: "descriptors_scarce")
    public static let descriptorLimitLow = Self(rawValue: "descriptor_limit_low")
    public static let applicationMemoryHigh = Self(rawValue: "application_memory_high")
    public static let sampleNamesOverflow = Self(rawValue: "sample_names_overflow")
    public static let sessionStateLarge = Self(rawValue: "session_state_large")
    public static let cleanupLate = Self(rawValue: "cleanup_late")
    public static let taskFailing = Self(rawValue: "task_failing")
    public static let noRecentBackup = Self(rawValue: "no_recent_backup")
    public static let writesRefused = Self(rawValue: "writes_refused")
    public static let requestsRefused = Self(rawValue: "requests_refused")
    public static let readsTimedOut = Self(rawValue: "reads_timed_out")
    public static let storageFailing = Self(rawValue: "storage_failing")
    public static let damageSeen = Self(rawValue: "damage_seen")
    public static let serverErrors = Self(rawValue: "server_errors")
    public static let durabilityNormal = Self(rawValue: "durability_normal")
    public static let openToNetwork = Self(rawValue: "open_to_network")
    public static let monitoringDisabled = Self(rawValue: "monitoring_disabled")
}

extension DiagnosticSnapshot {
    private typealias Thresholds = DiagnosticThresholds

    private var database: [Finding] {
        guard let problem = figures.problem else { return [] }
        return [
            Finding(
                .critical, .databaseUnreadable, "The database does not answer", detail: problem,
                remedy: "Look at GET /health/ready and at the log, which have the reason. If many long reads run at "
                    + "the same time, wait for them; if the disk has failed, replace it and restore a backup.")
        ]
    }

    // MARK: The process

    private var startup: [Finding] {
        let parts = figures.opening
        let opening = parts.reduce(0) { $0 + $1.seconds }
        let total = max(startupSeconds ?? 0, opening)
        guard total > Thresholds.startupSeconds else { return [] }
        var evidence: [JSON.Member] = [.init(name: "startup_seconds", value: .milliseconds(total))]
        evidence += parts.map { .init(name: "\($0.name)_seconds", value: .milliseconds($0.seconds)) }
        evidence.append(.init(name: "other_seconds", value: .milliseconds(total - opening)))
        let longest = parts.max { $0.seconds < $1.seconds }
        guard let longest, longest.seconds >= total / 2 else {
            return [
                Finding(
                    .warning, .slowStart, "The last start took \(Text.seconds(total))",
                    detail: "No single part of opening the database explains it: \(Text.seconds(opening)) of it were "
                        + "spent there.",
                    evidence: .object(evidence),
                    remedy: "Check what else kept the machine busy at that moment: processor, disk, a container "
                        + "limited to a fraction of a core. Then restart and compare.")
            ]
        }
        return [
            Finding(
                .warning, .slowStart, "The last start took \(Text.seconds(total))",
                detail: "\(Text.seconds(longest.seconds)) of it were spent on \(longest.what).",
                evidence: .object(evidence), remedy: longest.remedy)
        ]
    }

    private var memory: [Finding] {
        guard let process else { return [] }
        let isShort = process.memoryPercent >= Thresholds.memoryPercent
        guard isShort || process.residentBytes >= Thresholds.residentBytes else { return [] }
        let isCritical = process.memoryPercent >= Thresholds.criticalMemoryPercent
        let share =
            "\(JSON.decimal((process.memoryPercent * 10).rounded() / 10).text) % of what the machine or its "
            + "container has"
        return [
            Finding(
                isCritical ? .critical : .warning, .memoryHigh,
                "The service holds \(Text.bytes(Int(process.residentBytes))) of memory",
                detail: "That is \(share). In ordinary use it holds less than 100 MiB, whatever the database contains.",
                evidence: [
                    "resident_bytes": .integer(process.residentBytes),
                    "expected_max_bytes": .integer(Thresholds.residentBytes),
                    "memory_percent": .decimal(process.memoryPercent),
                ],
                remedy: (isShort
                    ? "Give the machine or container at least \(Text.bytes(Int(Thresholds.residentBytes))) more. " : "")
                    + "Look at reprise_writer_queued_bytes in GET /metrics and at the sizes of batches: send smaller "
                    + "batches, or fewer at a time. What does not come back within minutes of a quiet service is freed "
                    + "by a restart, and is then a defect worth reporting.")
        ]
    }

    private var descriptors: [Finding] {
        guard let process, process.maxDescriptors > 0 else { return [] }
        let wanted = Limits.maxConnections + Thresholds.ownDescriptors
        let evidence: JSON = [
            "open_descriptors": .integer(process.openDescriptors), "max_descriptors": .integer(process.maxDescriptors),
            "wanted_descriptors": .integer(wanted),
        ]
        let remedy =
            "Raise the limit and restart: LimitNOFILE=\(wanted) in a systemd unit, --ulimit nofile=\(wanted) for a "
            + "container, ulimit -n \(wanted) in a shell."
        if Double(process.openDescriptors) >= Thresholds.descriptorShare * Double(process.maxDescriptors) {
            return [
                Finding(
                    .warning, .descriptorsScarce,
                    "\(process.openDescriptors) of \(process.maxDescriptors) file descriptors are in use",
                    detail: "When all are in use, no new connection is accepted.", evidence: evidence,
                    remedy: remedy + " Or let clients keep fewer connections open.")
            ]
        }
        guard process.maxDescriptors < wanted else { return [] }
        return [
            Finding(
                .info, .descriptorLimitLow, "The limit of file descriptors allows fewer connections than the service",
                detail: "The service accepts \(Limits.maxConnections) connections at a time; with "
                    + "\(process.maxDescriptors) descriptors it cannot have that many.",
                evidence: evidence, remedy: remedy)
        ]
    }

    private var applicationMemory: [Finding] {
        let high = applications.filter { $0.memoryPercent >= Thresholds.applicationMemoryPercent }
            .sorted { $0.memoryPercent > $1.memoryPercent }
        guard let worst = high.first else { return [] }
        return [
            Finding(
                .warning, .applicationMemoryHigh, "'\(worst.name)' uses most of its machine's memory",
                detail: "It reported \(JSON.decimal((worst.memoryPercent * 10).rounded() / 10).text) % in its latest "
                    + (high.count > 1 ? "sample, as did \(high.count - 1) other processes." : "sample."),
                evidence: [
                    "memory_percent": .decimal(worst.memoryPercent),
                    "resident_bytes": .integer(Int64(worst.residentBytes)),
                    "process_count": .integer(high.count),
                ],
                remedy: "Let the application keep large results in the cache here instead of in its own session state: "
                    + "POST /v1/sessions/{id}/optimize removes the temporary keys of a session and cuts its history. "
                    + "Lower max_history_items with PATCH /v1/config if histories are long.")
        ]
    }

    // MARK: Names and sessions

    private var sampleNames: [Finding] {
        guard let kinds = figures.stored?.overflowingKinds, !kinds.isEmpty else { return [] }
        let names = kinds.map(\.rawValue).joined(separator: ", ")
        return [
            Finding(
                .warning, .sampleNamesOverflow, "There are too many names of samples",
                detail: "More than \(Limits.maxSampleNames) names were sent for the kind \(names). Further ones are "
                    + "counted together as \(Sample.otherName), so their figures cannot be told apart.",
                evidence: ["kind_count": .integer(kinds.count), "max_names": .integer(Limits.maxSampleNames)],
                remedy: "Name samples after operations, and put ids of objects, users or files into labels or "
                    + "session_id. GET /v1/metrics/timings lists the names of timings. Names that are no longer used "
                    + "are forgotten after sample_rollup_retention_seconds.")
        ]
    }

    private var sessionState: [Finding] {
        guard let largest = figures.stored?.largestSession,
            largest.stateSizeBytes >= Thresholds.sessionStateBytes
        else { return [] }
        return [
            Finding(
                .warning, .sessionStateLarge,
                "The state of session '\(largest.id)' has \(Text.bytes(largest.stateSizeBytes))",
                detail: "At \(Text.bytes(Limits.maxStateBytes)) its writes are refused, and reading all of it makes "
                    + "each rerun of the application slow.",
                evidence: [
                    "state_size_bytes": .integer(largest.stateSizeBytes),
                    "max_state_bytes": .integer(Limits.maxStateBytes),
                    "history_count": .integer(largest.historyCount),
                ],
                remedy: "POST /v1/sessions/\(largest.id)/optimize removes its temporary keys. Store large results in "
                    + "the cache, and only their keys in the session. GET /v1/metrics/sessions lists the largest.")
        ]
    }

    // MARK: Background work

    private var cleanup: [Finding] {
        let late = (figures.stored?.lagSeconds ?? [:]).filter { $0.value > Thresholds.cleanupLagSeconds }
        var findings: [Finding] = []
        if let worst = late.max(by: { ($0.value, $1.key.rawValue) < ($1.value, $0.key.rawValue) }) {
            let areas = OperationalFigures.Leftover.allCases.filter { late[$0] != nil }
            findings.append(
                Finding(
                    .warning, .cleanupLate, "Cleanup is \(Text.seconds(worst.value)) late",
                    detail: "Rows that expired or were cleared are still in the database: "
                        + areas.map(\.rawValue).joined(separator: ", ") + ". They are in no answer, but take space.",
                    evidence: .object(
                        areas.map { .init(name: "\($0.rawValue)_lag_seconds", value: .milliseconds(late[$0]!)) }),
                    remedy: "GET /v1/maintenance/runs shows which task fails or takes long. POST "
                        + "/v1/maintenance/cleanup with {} runs all of them now. If they cannot keep up, writes leave "
                        + "them too little of the disk: send fewer, or use a faster disk."))
        }
        guard let tasks else { return findings }
        for task in tasks.tasks.keys.sorted(by: { $0.rawValue < $1.rawValue }) {
            let work = tasks.tasks[task]!
            guard work.failures > 0 else { continue }
            let error = tasks.latest.first { $0.task == task && $0.error != nil }?.error
            let isPassing = work.failures < Thresholds.taskFailures
            findings.append(
                Finding(
                    isPassing ? .info : .warning, .taskFailing, "The background task \(task.rawValue) failed",
                    detail: "\(work.failures) of its \(work.runs) runs in the last hour failed"
                        + (error.map { ", the latest of them with: \($0)" } ?? "."),
                    evidence: ["failures": .integer(work.failures), "runs": .integer(work.runs)],
                    remedy: "It is retried by itself. If it keeps failing, its error in GET /v1/maintenance/runs says "
                        + "what to repair."))
        }
        return findings
    }

    // MARK: Backups

    private var backups: [Finding] {
        guard let backups = figures.backups, let age = backups.latestAge ?? backups.databaseAge else { return [] }
        let interval = Double(settings.milliseconds(.backupInterval)) / 1000
        let isScheduled = interval > 0
        guard age > (isScheduled ? Thresholds.backupAge(interval: interval) : Thresholds.unscheduledBackupSeconds)
        else { return [] }
        var evidence: [JSON.Member] = [.init(name: "backup_interval_seconds", value: .decimal(interval))]
        let named = backups.latestAge.map { ("latest_backup_age_seconds", $0) }
        for (name, seconds) in [named, backups.databaseAge.map { ("database_age_seconds", $0) }].compactMap({ $0 }) {
            evidence.append(.init(name: name, value: .decimal(seconds.rounded())))
        }
        evidence.append(.init(name: "failed_backups", value: .integer(backups.failures)))
        let failed = backups.failures > 0 ? " \(backups.failures) failed since the server was started." : ""
        return [
            Finding(
                isScheduled ? .warning : .info, .noRecentBackup,
                backups.latestAge.map { "The latest backup is \(Text.seconds($0)) old" } ?? "There is no backup",
                detail: (isScheduled
                    ? "backup_interval_seconds asks for one every \(Text.seconds(interval))."
                    : "No schedule makes them: backup_interval_seconds is 0.") + failed,
                evidence: .object(evidence),
                remedy: isScheduled
                    ? "POST /v1/backups makes one now and says why it fails, if it does. Usually the folder "
                        + "backup_directory cannot be written, or its disk is full."
                    : "PATCH /v1/config with {\"backup_interval_seconds\": 86400} makes one each day; POST /v1/backups "
                        + "or 'reprise backup' makes one now. If something else copies the database, nothing has to "
                        + "be done.")
        ]
    }

    // MARK: Requests

    private var requests: [Finding] {
        func count(_ codes: Failure.Code...) -> Int { codes.reduce(0) { $0 + (failures[$1] ?? 0) } }
        var findings: [Finding] = []
        let refused = count(.overloaded)
        if refused >= Thresholds.refusedRequests {
            findings.append(
                Finding(
                    .warning, .requestsRefused, "\(refused) requests were refused because too much was waiting",
                    detail: "They were answered 503 overloaded in the last hour.",
                    evidence: ["refused_requests": .integer(refused)],
                    remedy: "Send fewer requests at the same time, combine writes in batches, and honour Retry-After. "
                        + "If reprise_writer_queued_writes stays high, the disk is too slow for the writes."))
        }
        let unstored = count(.storageFull)
        if unstored > 0 {
            let limit = settings.integer(.maxDatabaseBytes)
            findings.append(
                Finding(
                    .warning, .writesRefused, "\(unstored) writes were refused for lack of space",
                    detail: "They were answered 507 storage_full in the last hour: the disk was full"
                        + (limit > 0 ? ", or the database had reached max_database_bytes." : "."),
                    evidence: ["refused_writes": .integer(unstored), "max_database_bytes": .integer(limit)],
                    remedy: "Free space on the disk or enlarge it"
                        + (limit > 0 ? ", raise max_database_bytes with PATCH /v1/config" : "")
                        + ", or remove sessions and cache entries that are not needed: that works on a full disk "
                        + "too."))
        }
        let timedOut = count(.deadlineExceeded)
        if timedOut >= Thresholds.timedOutReads {
            findings.append(
                Finding(
                    .warning, .readsTimedOut, "\(timedOut) reads took too long and were ended",
                    detail: "They were answered 503 deadline_exceeded in the last hour: a read may take "
                        + "\(Limits.readDeadlineMilliseconds / 1000) s.",
                    evidence: [
                        "timed_out_reads": .integer(timedOut),
                        "deadline_seconds": .seconds(milliseconds: Limits.readDeadlineMilliseconds),
                    ],
                    remedy: "Ask for smaller pages and shorter ranges, and filter SQL by indexed columns. GET "
                        + "/v1/metrics/timings?source=service shows which route is slow."))
        }
        let failing = count(.storageUnavailable, .databaseBusy, .databaseReadOnly)
        if failing > 0 {
            findings.append(
                Finding(
                    .critical, .storageFailing, "The storage failed \(failing) times in the last hour",
                    detail: "Requests were answered 503: the file system failed, the file is read-only, or another "
                        + "program holds its lock.",
                    evidence: [
                        "unavailable": .integer(count(.storageUnavailable)), "busy": .integer(count(.databaseBusy)),
                        "read_only": .integer(count(.databaseReadOnly)),
                    ],
                    remedy: "busy: stop the other program that writes to the database (fuser lists it). read_only: "
                        + "make the file and its folder writable for the server. unavailable: check the kernel's log "
                        + "for errors of the disk."))
        }
        let damaged = count(.databaseDamaged)
        // The engine may remember damage for longer.
        if damaged > 0, !figures.findings.contains(where: { $0.code == .damageSeen }) {
            findings.append(
                Finding(
                    .critical, .damageSeen, "The database is damaged",
                    detail: "\(damaged) requests of the last hour met a damaged page or value.",
                    evidence: ["damaged_reads": .integer(damaged)],
                    remedy: "Stop the server and keep the files. 'reprise doctor --deep' says what is damaged. Restore "
                        + "a backup, and check the disk before you rely on it again."))
        }
        let errors = count(.internalError)
        if errors > 0 {
            findings.append(
                Finding(
                    .warning, .serverErrors, "\(errors) requests failed because of a defect of the service",
                    detail: "They were answered 500 internal_error in the last hour.",
                    evidence: ["server_errors": .integer(errors)],
                    remedy: "The log has the details of each under its request_id. Please report them with the version "
                        + "\(Version.current)."))
        }
        return findings
    }

    // MARK: What was chosen

    private var choices: [Finding] {
        var findings: [Finding] = []
        let host = settings.text(.host)
        if settings.text(.authentication) == "none", !HostName.isLoopback(host) {
            findings.append(
                Finding(
                    .warning, .openToNetwork, "Everybody who reaches \(host) may do everything",
                    detail: "authentication is none, and the service listens on more than this machine.",
                    remedy: "Run 'reprise token create' for an admin and restart without authentication=none. If "
                        + "another program lets only the right callers through, nothing has to be done."))
        }
        if settings.text(.durability) == "normal" {
            findings.append(
                Finding(
                    .info, .durabilityNormal, "A power cut may lose the last commits",
                    detail: "durability is normal: acknowledged writes survive a crash of the process, but not all of "
                        + "them survive a power cut. The database itself is never damaged by one.",
                    remedy: "Nothing, if what is stored can be computed again. Otherwise start with durability=full."))
        }
        if !settings.boolean(.enableMonitoring) {
            findings.append(
                Finding(
                    .info, .monitoringDisabled, "Monitoring is off",
                    detail: "Hits, misses and samples are not counted, so nothing can be found about the cache's hits.",
                    remedy: "PATCH /v1/config with {\"enable_monitoring\": true}"))
        }
        return findings
    }
}

/// Numbers as sentences have them.
enum Text {
    static func seconds(_ seconds: Double) -> String {
        seconds >= 120 ? "\(Int((seconds / 60).rounded())) min" : "\(JSON.milliseconds(seconds).text) s"
    }

    static func bytes(_ bytes: Int) -> String {
        for (size, unit) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] where bytes >= size {
            return "\(JSON.decimal((Double(bytes) / Double(size) * 10).rounded() / 10).text) \(unit)"
        }
        return "\(bytes) bytes"
    }

    static func percent(_ share: Double) -> String { "\(Int((share * 100).rounded())) %" }
}

extension JSON {
    /// Seconds, rounded to milliseconds.
    static func milliseconds(_ seconds: Double) -> JSON { .decimal((seconds * 1000).rounded() / 1000) }
}
