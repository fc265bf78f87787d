// The background work that keeps the store bounded, and its record.

/// A task of the background service.
/// The raw values are stored in databases: changing one needs a migration.
public enum MaintenanceTask: String, Sendable, CaseIterable {
    /// Removes expired entries, and the rows of cleared namespaces.
    case cacheExpiry = "cache_expiry"
    /// Evicts what is over its namespace's caps.
    case cacheCaps = "cache_caps"
    /// Removes the chunks of values that no entry refers to: replaced, removed or never finished.
    case blobOrphans = "blob_orphans"
    /// Removes expired sessions with their state, history and debounce marks.
    case sessionExpiry = "session_expiry"
    /// Removes the oldest history items of sessions that are over their cap because it was lowered.
    case historyCaps = "history_caps"
    /// Removes the `temp_` and `cache_` keys of sessions idle for `memory_cleanup_interval`.
    case stateTemporaries = "state_temporaries"
    /// Forgets debounces that were allowed long ago.
    case debounceMarks = "debounce_marks"
    /// Adds new samples to the distributions of their minute, hour and six hours, and merges old minutes of what the
    /// cache and the background tasks did into hours. Removes nothing.
    case sampleRollup = "sample_rollup"
    /// Removes raw samples and roll-ups that are older than their retention. What it forgets of what the cache and the
    /// background tasks did is not counted as removed.
    case sampleRetention = "sample_retention"
    /// Gives free pages back to the file system and keeps the write-ahead log short.
    case space
}

/// What made a task run.
/// The raw values are stored in databases: changing one needs a migration.
public enum MaintenanceTrigger: String, Sendable, CaseIterable {
    /// The service started.
    case startup
    /// `memory_cleanup_interval` passed.
    case interval
    /// The earliest deadline of an entry came.
    case deadline
    /// Work was waiting: after a clear, a replacement, a lowered cap.
    case backlog
    /// A request asked for it.
    case demand
}

/// One run of one task, as recorded.
public struct MaintenanceRun: Sendable, Equatable {
    /// Counts up; 0 before it is recorded.
    public var id: Int64
    public var task: MaintenanceTask
    public var trigger: MaintenanceTrigger
    public var startedAt: Instant
    public var durationSeconds: Double
    public var rowsRemoved: Int
    public var bytesFreed: Int
    /// Why it failed, for a person; nil if it succeeded.
    public var error: String?

    public init(
        id: Int64 = 0, task: MaintenanceTask, trigger: MaintenanceTrigger, startedAt: Instant, durationSeconds: Double,
        rowsRemoved: Int, bytesFreed: Int, error: String? = nil
    ) {
        self.id = id
        self.task = task
        self.trigger = trigger
        self.startedAt = startedAt
        self.durationSeconds = durationSeconds
        self.rowsRemoved = rowsRemoved
        self.bytesFreed = bytesFreed
        self.error = error
    }
}

/// What the background tasks did in a span of time.
public struct MaintenanceFigures: Sendable, Equatable {
    public struct Work: Sendable, Equatable {
        public var runs: Int
        public var failures: Int
        public var rowsRemoved: Int
        public var bytesFreed: Int

        public init(runs: Int = 0, failures: Int = 0, rowsRemoved: Int = 0, bytesFreed: Int = 0) {
            self.runs = runs
            self.failures = failures
            self.rowsRemoved = rowsRemoved
            self.bytesFreed = bytesFreed
        }

        public static func += (total: inout Self, part: Self) {
            total.runs += part.runs
            total.failures += part.failures
            total.rowsRemoved += part.rowsRemoved
            total.bytesFreed += part.bytesFreed
        }
    }

    /// Tasks that did not run are left out.
    public var tasks: [MaintenanceTask: Work]
    /// The newest first, a bounded number of them.
    public var latest: [MaintenanceRun]

    public init(tasks: [MaintenanceTask: Work], latest: [MaintenanceRun]) {
        self.tasks = tasks
        self.latest = latest
    }

    public var totals: Work { tasks.values.reduce(into: Work()) { $0 += $1 } }
}

/// What the background service needs from a storage engine. All steps are bounded and let waiting writes go first.
public protocol MaintenanceStore: Sendable {
    /// Performs a task to its end, in steps; a dry run only reports what that would remove now.
    func perform(_ task: MaintenanceTask, isDryRun: Bool) async throws -> Removal

    /// Records a run; the oldest beyond ``Limits/maxMaintenanceRuns`` go.
    func record(_ run: MaintenanceRun) async throws

    /// The newest runs first, from before the one with the id `before`.
    func maintenanceRuns(before: Int64?, limit: Int) async throws -> [MaintenanceRun]

    /// The activity of the tasks in a span of time, excluding its end, with the newest runs of that span.
    ///
    /// The counts cover all runs, including those that are no longer listed. The span begins with the whole minute that
    /// contains its start, or with the whole hour if minutes are no longer kept.
    func maintenanceFigures(in range: MetricRange, runs limit: Int) async throws -> MaintenanceFigures

    /// Writes the counters gathered in memory.
    func flushCounters() async throws

    /// What waits to be done, cheaply: asked every second.
    func backlog() -> MaintenanceBacklog
}

/// Work that waits.
public struct MaintenanceBacklog: Sendable, Equatable {
    /// No entry expires before this; nil when none expires at all.
    public var nextExpiry: Instant?
    /// No session expires before this; nil when none expires at all.
    public var nextSessionExpiry: Instant?
    /// Rows of cleared namespaces wait.
    public var hasClearedRows: Bool
    /// A namespace may be over its caps.
    public var hasExceededCaps: Bool
    /// Chunks without an entry wait.
    public var hasOrphans: Bool
    /// Free pages or a long write-ahead log wait.
    public var hasSpareSpace: Bool
    /// Counters wait to be written.
    public var hasCounters: Bool
    /// Samples that are not rolled up.
    public var newSamples: Int

    public init(
        nextExpiry: Instant?, nextSessionExpiry: Instant? = nil, hasClearedRows: Bool, hasExceededCaps: Bool,
        hasOrphans: Bool, hasSpareSpace: Bool, hasCounters: Bool, newSamples: Int = 0
    ) {
        self.nextExpiry = nextExpiry
        self.nextSessionExpiry = nextSessionExpiry
        self.hasClearedRows = hasClearedRows
        self.hasExceededCaps = hasExceededCaps
        self.hasOrphans = hasOrphans
        self.hasSpareSpace = hasSpareSpace
        self.hasCounters = hasCounters
        self.newSamples = newSamples
    }
}
