// When which background task runs: decided here, without doing any of it.

import Domain

/// Decides once a second what is due.
///
/// Every task runs at start-up and then whenever `memory_cleanup_interval` has passed. In between a task runs as soon
/// as there is work for it: the earliest deadline of an entry or a session has come, rows of a cleared namespace wait,
/// and so on. A task that failed is tried again after a pause that doubles from 1 second up to 64. New samples are
/// rolled up at most every ``Limits/sampleRollupMilliseconds``: together they touch the same roll-ups. Space is given
/// back at most every 30 seconds: pages just freed are likely to be written again.
struct MaintenanceSchedule {
    private var lastFullRun: Instant?
    private var lastRollUp: Instant?
    private var lastSpaceRun: Instant?
    private var failures: [MaintenanceTask: (count: Int, retryAt: Instant)] = [:]

    /// What to run now, in order.
    mutating func due(
        now: Instant, intervalMilliseconds: Int64, backlog: MaintenanceBacklog
    ) -> [(task: MaintenanceTask, trigger: MaintenanceTrigger)] {
        let isFirst = lastFullRun == nil
        // The clock may have been set back, and waiting for it to catch up could take long.
        let elapsed = lastFullRun.map { now.milliseconds(since: $0) } ?? .max
        if isFirst || elapsed >= intervalMilliseconds || elapsed < 0 {
            lastFullRun = now
            lastRollUp = now
            lastSpaceRun = now
            if elapsed < 0 { failures = failures.mapValues { (count: $0.count, retryAt: now) } }
            return MaintenanceTask.allCases.map { ($0, isFirst ? .startup : .interval) }.filter { isReady($0.0, now) }
        }
        var due: [(task: MaintenanceTask, trigger: MaintenanceTrigger)] = []
        if let expiry = backlog.nextExpiry, expiry <= now {
            due.append((.cacheExpiry, .deadline))
        } else if backlog.hasClearedRows {
            due.append((.cacheExpiry, .backlog))
        }
        if backlog.hasExceededCaps { due.append((.cacheCaps, .backlog)) }
        if backlog.hasOrphans { due.append((.blobOrphans, .backlog)) }
        if let expiry = backlog.nextSessionExpiry, expiry <= now { due.append((.sessionExpiry, .deadline)) }
        if backlog.newSamples > 0, hasPassed(Limits.sampleRollupMilliseconds, since: lastRollUp, now) {
            lastRollUp = now
            due.append((.sampleRollup, .backlog))
        }
        if backlog.hasSpareSpace, hasPassed(30_000, since: lastSpaceRun, now) {
            lastSpaceRun = now
            due.append((.space, .backlog))
        }
        for (task, failure) in failures where failure.retryAt <= now && !due.contains(where: { $0.task == task }) {
            due.append((task, .backlog))
        }
        return due.filter { isReady($0.task, now) }
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
    mutating func finished(_ task: MaintenanceTask, succeeded: Bool, at now: Instant) {
        guard !succeeded else {
            failures[task] = nil
            return
        }
        let count = (failures[task]?.count ?? 0) + 1
        failures[task] = (count, now.advanced(milliseconds: 1000 << Int64(min(count - 1, 6))))
    }
}
