// What only a storage engine knows about its condition.

/// Figures for an operator's monitoring, cheap to read. Counters begin at zero when the process starts, unless stated
/// otherwise.
public struct OperationalFigures: Sendable, Equatable {
    /// What one background task did.
    public struct TaskRuns: Sendable, Equatable {
        public let task: MaintenanceTask
        public var runs = 0
        public var failures = 0
        public var rowsRemoved = 0
        public var seconds = 0.0

        public init(_ task: MaintenanceTask) { self.task = task }

        public mutating func add(_ run: MaintenanceRun) {
            runs += 1
            failures += run.error == nil ? 0 : 1
            rowsRemoved += run.rowsRemoved
            seconds += run.durationSeconds
        }
    }

    /// What one namespace of the cache did, and what it holds.
    public struct NamespaceFigures: Sendable, Equatable {
        public var name: Name
        public var hits = 0
        public var misses: [MissReason: Int] = [:]
        /// Since the namespace was created, as ``evictions``.
        public var expirations = 0
        public var evictions = 0
        public var entryCount = 0
        public var sizeBytes = 0

        public init(name: Name) { self.name = name }

        public var lookups: Int { misses.values.reduce(hits, +) }
    }

    /// Rows waiting to be removed.
    public enum Leftover: String, Sendable, CaseIterable {
        case cache, cleared, sessions, debounces
    }

    /// What has to be read from the database.
    public struct Stored: Sendable, Equatable {
        /// All there are, by name.
        public var namespaces: [NamespaceFigures] = []
        /// Live sessions; may not include activity of the last second or two.
        public var sessionCount = 0
        public var stateKeyCount = 0
        public var stateSizeBytes = 0
        public var freeBytes = 0
        /// How long ago the oldest row that is still there expired or was cleared, in seconds; 0 if none is late.
        public var lagSeconds: [Leftover: Double] = [:]

        public init() {}
    }

    /// nil when the database did not answer.
    public var stored: Stored?
    /// Writes that are waiting, and the bytes they hold.
    public var queuedWrites = 0
    public var queuedWriteBytes = 0
    /// Writes committed, and how many of them with each commit.
    public var writes = 0
    public var groupSizes = Histogram(bounds: [])
    /// How long each commit took, in seconds.
    public var commitSeconds = Histogram(bounds: [])
    public var databaseBytes = 0
    public var logBytes = 0
    /// Samples that are not rolled up yet.
    public var newSamples = 0
    /// All of ``MaintenanceStore/tasks``, in their order.
    public var taskRuns: [TaskRuns] = []

    public init() {}
}

public protocol OperationalStore: Sendable {
    /// Never fails: monitoring is needed most when the database does not answer. Writes nothing.
    func operationalFigures() async -> OperationalFigures
}
