// When something becomes a finding: all thresholds of diagnostics in one place, with their reasons.

/// The thresholds of the rules in ``DiagnosticSnapshot``, and of those that an engine adds.
public enum DiagnosticThresholds {
    // MARK: The process

    /// A start usually takes less than a tenth of a second, however large the database is; probes and supervisors give
    /// up after a few seconds.
    public static let startupSeconds = 2.0
    /// The limits on what is held in memory (docs/operations.md) add up to some 640 MiB, of which ordinary use needs
    /// less than 100. Half of it is worth a look.
    public static let residentBytes: Int64 = 300 << 20
    /// Share of the machine's memory, or of the control group's limit, in percent: above the first there is no room for
    /// a burst of requests, above the second the kernel may end the process any moment.
    public static let memoryPercent = 75.0
    public static let criticalMemoryPercent = 90.0
    /// Share of the file descriptors that are in use; beyond the limit no connection is accepted.
    public static let descriptorShare = 0.8
    /// Descriptors that the service needs for itself: the database's files of each reader, sockets, log.
    public static let ownDescriptors = 128

    // MARK: The cache, over the last hour

    /// How far back rates are counted, in milliseconds: long enough for meaningful shares, short enough that what has
    /// been repaired soon disappears.
    public static let windowMilliseconds: Int64 = 3_600_000
    /// Fewer look-ups say nothing about a namespace.
    public static let minLookups = 50
    /// Share of look-ups that miss for a reason that a setting could change.
    public static let avoidableMissShare = 0.2
    /// Share of look-ups whose key was never stored. A cache that fills begins like this, so it takes more of them.
    public static let absentMissShare = 0.5
    /// A namespace that answers almost nothing after this many look-ups is not filling any more.
    public static let uselessHitRatio = 0.1
    public static let uselessLookups = 1000
    /// A cache that answers fewer than half of its look-ups saves little.
    public static let hitRatio = 0.5
    /// The share of avoidable misses for which a remedy is computed. The rest come so late that it would cost more than
    /// it saves.
    public static let coveredShare = 0.8
    /// Misses with a known delay that it takes to compute a remedy.
    public static let minDelays = 20
    /// Share of its cap by which a namespace exceeds it. A lowered cap is exceeded for a moment, until the background
    /// task has evicted the rest.
    public static let overCapShare = 0.1
    /// Findings of one code; further namespaces are counted in the last one.
    public static let maxNamespacesPerCode = 5

    // MARK: Names, sessions and applications

    /// Share of the permitted namespaces; beyond the limit, writes to new ones are refused.
    public static let namespaceShare = 0.8
    /// State of one session: a page load of an application should not move more. Half of what is permitted.
    public static let sessionStateBytes = Limits.maxStateBytes / 2
    /// Memory of an application's process, as it reported it, in percent of its machine.
    public static let applicationMemoryPercent = 85.0

    // MARK: Background work and requests, over the last hour

    /// How long a row may be expired and still there, in seconds. Usually it is a second; this is 900 checks later.
    public static let cleanupLagSeconds = 900.0
    /// A task that failed this often is not hit by a passing disturbance: it is retried after 1, 2, 4 s.
    public static let taskFailures = 3
    /// Requests answered 503 `overloaded`. A single burst causes a few.
    public static let refusedRequests = 10
    /// Reads ended by their deadline.
    public static let timedOutReads = 3

    // MARK: Backups

    /// Age of the latest backup, in seconds, for an interval of the schedule: one may be missed, and a large database
    /// takes its time. The alert rules have the same.
    public static func backupAge(interval: Double) -> Double { 2 * interval + 600 }
    /// The same without a schedule. A younger database may still be an attempt.
    public static let unscheduledBackupSeconds = 7.0 * 86_400

    // MARK: The database and its disk

    /// Bytes of the write-ahead log, or its equivalent: twice the size to which it is truncated.
    public static let logBytes = 128 << 20
    /// Free space inside the database: a share of it, and bytes below which nobody needs them back.
    public static let freeShare = 0.25
    public static let freeBytes = 64 << 20
    /// Free space on the disk, in bytes: below the first, copying the database or a burst of uploads may fail; below
    /// the second, so may the next writes.
    public static let diskFreeBytes = 1 << 30
    public static let criticalDiskFreeBytes = 128 << 20
    /// How long a jump of the clock is told, in milliseconds: what it has done to lifetimes is over by then.
    public static let clockJumpMilliseconds: Int64 = 86_400_000
    /// Writes waiting: half of what may wait, as in the alert rules.
    public static let queuedWrites = 4000
}
