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
        /// How long ago the oldest row that is still there expired or was cleared, in seconds; 0 if none is late.
        public var lagSeconds: [Leftover: Double] = [:]

        public init() {}
    }

    /// nil when the database did not answer.
    public var stored: Stored?
    /// Writes committed.
    public var writes = 0
    /// Samples that are not rolled up yet.
    public var newSamples = 0
    /// All of ``MaintenanceStore/tasks``, in their order.
    public var taskRuns: [TaskRuns] = []
    /// What only this engine has to report. The metrics are always the same, but those that have to be read from the
    /// database are left out when it does not answer.
    public var engine: [EngineFigure] = []

    public init() {}
}

/// A metric that an engine names itself, because others have nothing like it.
public struct EngineFigure: Sendable, Equatable {
    public enum Value: Sendable, Equatable {
        /// Rises and falls.
        case gauge(Double)
        /// Only rises while the process runs.
        case counter(Double)
        case histogram(Histogram)
    }

    /// `reprise_` and lower-case words separated by `_`: what is measured, its unit, and at the end `total` if it is a
    /// counter, and only then. No other metric of the service has this name.
    public let name: String
    /// One sentence for an operator, on one line, without a backslash.
    public let help: String
    public let value: Value

    public init(_ name: String, _ help: String, _ value: Value) {
        self.name = name
        self.help = help
        self.value = value
    }
}

public protocol OperationalStore: Sendable {
    /// Never fails: monitoring is needed most when the database does not answer. Writes nothing.
    func operationalFigures() async -> OperationalFigures
}
