// What only a storage engine knows of how it is doing.

/// Figures for an operator's monitoring, cheap to read.
public struct OperationalFigures: Sendable, Equatable {
    /// What one background task did since the process started.
    public struct TaskRuns: Sendable, Equatable {
        public var runs = 0
        public var failures = 0
        public var rowsRemoved = 0
        public var seconds = 0.0

        public init() {}

        public mutating func add(_ run: MaintenanceRun) {
            runs += 1
            failures += run.error == nil ? 0 : 1
            rowsRemoved += run.rowsRemoved
            seconds += run.durationSeconds
        }
    }

    /// Writes that wait, and the bytes they hold.
    public var queuedWrites = 0
    public var queuedWriteBytes = 0
    /// Writes committed since the process started, in how many commits, and how long these took.
    public var writes = 0
    public var commits = 0
    public var commitSeconds = 0.0
    public var largestGroup = 0
    public var databaseBytes = 0
    public var logBytes = 0
    public var freeBytes = 0
    /// How long ago the oldest row that is still there expired, in seconds; 0 when none is late.
    public var cacheLagSeconds = 0.0
    public var sessionLagSeconds = 0.0
    /// Samples that are not rolled up yet.
    public var newSamples = 0
    public var taskRuns: [MaintenanceTask: TaskRuns] = [:]

    public init() {}
}

public protocol OperationalStore: Sendable {
    /// - Throws: `overloaded`, `deadline_exceeded`, `shutting_down`, the storage failures.
    func operationalFigures() async throws -> OperationalFigures
}
