// When which background task runs: decided here, without doing any of it.

import Domain

/// Decides once a second what is due.
///
/// Every task runs at start-up and then whenever `memory_cleanup_interval` has passed. In between a task runs as soon
/// as there is work for it: its deadline has come, or work waits and the task's pause since its last run is over. A
/// task that failed is tried again after a pause that doubles from 1 second up to 64.
struct MaintenanceSchedule {
    private let tasks: [DeclaredTask]
    private var lastFullRun: Instant?
    private var lastRuns: [MaintenanceTask: Instant] = [:]
    private var failures: [MaintenanceTask: (count: Int, retryAt: Instant)] = [:]
    private var mayHoldMemory = false
    private var lastTrim: Instant?

    /// - Parameter tasks: those of the engine, in the order in which they run.
    init(tasks: [DeclaredTask]) { self.tasks = tasks }

    /// What to run now, in order.
    mutating func due(
        now: Instant, intervalMilliseconds: Int64, backlog: MaintenanceBacklog
    ) -> [(task: MaintenanceTask, trigger: MaintenanceTrigger)] {
        var everything: MaintenanceTrigger?
        // The clock may have been set back, and waiting for it to catch up could take long.
        let elapsed = lastFullRun.map { now.milliseconds(since: $0) } ?? .max
        if elapsed >= intervalMilliseconds || elapsed < 0 {
            everything = lastFullRun == nil ? .startup : .interval
            lastFullRun = now
            mayHoldMemory = true
            if elapsed < 0 { failures = failures.mapValues { (count: $0.count, retryAt: now) } }
        }
        var due: [(task: MaintenanceTask, trigger: MaintenanceTrigger)] = []
        for declared in tasks where isReady(declared.task, now) {
            guard let trigger = everything ?? trigger(of: declared, backlog, now) else { continue }
            lastRuns[declared.task] = now
            due.append((declared.task, trigger))
        }
        return due
    }

    /// - Returns: nil if a task has nothing to do.
    private func trigger(
        of declared: DeclaredTask, _ backlog: MaintenanceBacklog, _ now: Instant
    ) -> MaintenanceTrigger? {
        let task = declared.task
        if let deadline = backlog.deadlines[task], deadline <= now { return .deadline }
        if backlog.waiting.contains(task), hasPassed(declared.pauseMilliseconds, since: lastRuns[task], now) {
            return .backlog
        }
        // It failed, and the pause after that is over.
        return failures[task] == nil ? nil : .backlog
    }

    /// Also where the clock was set back in between.
    private func hasPassed(_ milliseconds: Int64, since instant: Instant?, _ now: Instant) -> Bool {
        guard let elapsed = instant.map(now.milliseconds(since:)) else { return true }
        return elapsed >= milliseconds || elapsed < 0
    }

    private func isReady(_ task: MaintenanceTask, _ now: Instant) -> Bool {
        failures[task].map { $0.retryAt <= now } ?? true
    }

    /// Notes how a task ended.
    mutating func finished(_ run: MaintenanceRun, at now: Instant) {
        if run.rowsRemoved > 0 || run.bytesFreed > 0 { mayHoldMemory = true }
        guard run.error != nil else {
            failures[run.task] = nil
            return
        }
        let count = (failures[run.task]?.count ?? 0) + 1
        failures[run.task] = (count, now.advanced(milliseconds: 1000 << Int64(min(count - 1, 6))))
    }

    /// Whether the allocator should return free memory to the system now: after every run of everything, and after
    /// tasks removed something; at most every 30 seconds, because it takes milliseconds and memory just freed is likely
    /// to be used again. A caller that is told so does it.
    mutating func isTrimDue(at now: Instant) -> Bool {
        guard mayHoldMemory, hasPassed(30_000, since: lastTrim, now) else { return false }
        mayHoldMemory = false
        lastTrim = now
        return true
    }
}
