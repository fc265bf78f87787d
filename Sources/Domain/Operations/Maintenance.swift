// The background work that keeps the store bounded, and its record.

/// The name of a task of the background service.
///
/// Those below are for what every engine keeps; an engine adds those for its own work, and ``MaintenanceStore/tasks``
/// lists all it has. The names are stored in databases: changing one needs a migration. A database that a later version
/// has written may contain others.
public struct MaintenanceTask: RawRepresentable, Hashable, Sendable {
    /// The name in the API, in `snake_case`.
    public let rawValue: String

    public init(rawValue: String) { self.rawValue = rawValue }

    /// Removes expired entries, and the rows of cleared namespaces.
    public static let cacheExpiry = Self(rawValue: "cache_expiry")
    /// Evicts what is over its namespace's caps.
    public static let cacheCaps = Self(rawValue: "cache_caps")
    /// Removes expired sessions with their state, history and debounce marks.
    public static let sessionExpiry = Self(rawValue: "session_expiry")
    /// Removes the oldest history items of sessions that are over their cap because it was lowered.
    public static let historyCaps = Self(rawValue: "history_caps")
    /// Removes the `temp_` and `cache_` keys of sessions idle for `memory_cleanup_interval`.
    public static let stateTemporaries = Self(rawValue: "state_temporaries")
    /// Forgets debounces that were allowed long ago, and idempotency keys with their answers after a day.
    public static let debounceMarks = Self(rawValue: "debounce_marks")
    /// Adds new samples to the distributions of their minute, hour and six hours, and merges old minutes of what the
    /// cache and the background tasks did into hours. Removes nothing.
    public static let sampleRollup = Self(rawValue: "sample_rollup")
    /// Removes raw samples and roll-ups that are older than their retention. What it forgets of what the cache and the
    /// background tasks did is not counted as removed.
    public static let sampleRetention = Self(rawValue: "sample_retention")
}

/// A task that an engine has, and how it is to be run.
public struct DeclaredTask: Sendable, Equatable {
    public let task: MaintenanceTask
    /// The shortest time between two runs for work that waits, in milliseconds: for tasks that cost less when more work
    /// has gathered. A deadline, the interval or a request does not wait for it.
    public let pauseMilliseconds: Int64
    /// Whether other tasks create work for this one: chunks of entries they removed, for example.
    public let isFedByOthers: Bool

    public init(_ task: MaintenanceTask, pauseMilliseconds: Int64 = 0, isFedByOthers: Bool = false) {
        self.task = task
        self.pauseMilliseconds = pauseMilliseconds
        self.isFedByOthers = isFedByOthers
    }
}

/// What made a task run.
/// The raw values are stored in databases: changing one needs a migration.
public enum MaintenanceTrigger: String, Sendable, CaseIterable {
    /// The service started.
    case startup
    /// `memory_cleanup_interval` passed.
    case interval
    /// The earliest deadline of what it removes came.
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
    /// All tasks the engine has, each once, in the order in which a run of everything performs them: always the same.
    var tasks: [DeclaredTask] { get }

    /// Performs a task to its end, in steps; a dry run only reports what that would remove now.
    /// - Throws: `validation_failed` for a task that is not one of ``tasks``.
    func perform(_ task: MaintenanceTask, isDryRun: Bool) async throws -> Removal

    /// Records a run; the oldest beyond ``Limits/maxMaintenanceRuns`` go.
    func record(_ run: MaintenanceRun) async throws

    /// The newest runs first, from before the one with the id `before`.
    func maintenanceRuns(before: Int64?, limit: Int) async throws -> [MaintenanceRun]

    /// The activity of the tasks in a span of time, excluding its end, with the newest runs of that span.
    ///
    /// The counts cover all runs of ``tasks``, including those that are no longer listed. The span begins with the
    /// whole minute that contains its start, or with the whole hour if minutes are no longer kept.
    func maintenanceFigures(in range: MetricRange, runs limit: Int) async throws -> MaintenanceFigures

    /// Writes the counters gathered in memory.
    func flushCounters() async throws

    /// What waits to be done, cheaply: asked every second.
    func backlog() -> MaintenanceBacklog
}

/// Work that waits.
public struct MaintenanceBacklog: Sendable, Equatable {
    /// Nothing that a task removes is due before its deadline. A task without one has nothing that will be due.
    public var deadlines: [MaintenanceTask: Instant]
    /// Tasks that have work now, regardless of deadlines.
    public var waiting: Set<MaintenanceTask>
    /// Counters wait to be written.
    public var hasCounters: Bool

    public init(
        deadlines: [MaintenanceTask: Instant] = [:], waiting: Set<MaintenanceTask> = [], hasCounters: Bool = false
    ) {
        self.deadlines = deadlines
        self.waiting = waiting
        self.hasCounters = hasCounters
    }
}
