// When which background task runs.

import Domain
import Testing

@testable import SQLiteStorage
@testable import reprise

struct MaintenanceScheduleTests {
    private static let start = Instant(milliseconds: 1_800_000_000_000)
    private var schedule = MaintenanceSchedule(tasks: SQLiteStorage.tasks)

    private static func backlog(
        nextExpiry: Instant? = nil, nextSessionExpiry: Instant? = nil, _ waiting: MaintenanceTask...
    ) -> MaintenanceBacklog {
        var backlog = MaintenanceBacklog(waiting: Set(waiting), hasCounters: true)
        backlog.deadlines[.cacheExpiry] = nextExpiry
        backlog.deadlines[.sessionExpiry] = nextSessionExpiry
        return backlog
    }

    private static func after(_ seconds: Double) -> Instant {
        start.advanced(milliseconds: Int64(seconds * 1000))
    }

    /// What is due a number of seconds after the start, as `task trigger`; the interval is 600 seconds.
    private mutating func due(
        _ seconds: Double, _ backlog: MaintenanceBacklog = Self.backlog()
    ) -> [String] {
        schedule.due(now: Self.after(seconds), intervalMilliseconds: 600_000, backlog: backlog)
            .map { "\($0.task.rawValue) \($0.trigger.rawValue)" }
    }

    private mutating func finished(
        _ task: MaintenanceTask, _ seconds: Double, succeeded: Bool, removed: Int = 0
    ) {
        let run = MaintenanceRun(
            task: task, trigger: .backlog, startedAt: Self.after(seconds), durationSeconds: 0, rowsRemoved: removed,
            bytesFreed: 0, error: succeeded ? nil : "disk full")
        schedule.finished(run, at: Self.after(seconds))
    }

    private mutating func isTrimDue(_ seconds: Double) -> Bool { schedule.isTrimDue(at: Self.after(seconds)) }

    private func all(_ trigger: String) -> [String] {
        SQLiteStorage.tasks.map { "\($0.task.rawValue) \(trigger)" }
    }

    @Test mutating func everyTaskRunsAtTheStartAndAfterEachInterval() {
        #expect(due(0) == all("startup"))
        #expect(due(1) == [])
        #expect(due(599.999) == [])
        #expect(due(600) == all("interval"))
        #expect(due(601) == [])
        #expect(due(1200) == all("interval"))
    }

    @Test mutating func aShorterIntervalHoldsAtOnce() {
        _ = due(0)
        let now = Self.start.advanced(milliseconds: 10_000)
        let due = schedule.due(now: now, intervalMilliseconds: 10_000, backlog: Self.backlog())
        #expect(due.count == SQLiteStorage.tasks.count)
    }

    @Test mutating func aClockSetBackRunsEverything() {
        _ = due(1000)
        #expect(due(999) == all("interval"))
        #expect(due(1000) == [])
    }

    @Test mutating func newSamplesAreRolledUpEveryTenSeconds() {
        let new = Self.backlog(.sampleRollup)
        #expect(due(0, new) == all("startup"))
        #expect(due(9.999, new) == [])
        #expect(due(10, new) == ["sample_rollup backlog"])
        #expect(due(11, new) == [])
        // Without any, nothing is done, and the first to arrive need not wait.
        #expect(due(20) == [])
        #expect(due(25, new) == ["sample_rollup backlog"])
        #expect(due(34.999, new) == [])
        // A clock that was set back does not keep them waiting.
        #expect(due(24, new) == ["sample_rollup backlog"])
        // A run of everything counts as one of these too.
        #expect(due(600, new) == all("interval"))
        #expect(due(609, new) == [])
        #expect(due(610, new) == ["sample_rollup backlog"])
        // After a failure it waits for its pause as well.
        finished(.sampleRollup, 610, succeeded: false)
        #expect(due(610.5, new) == [])
        #expect(due(611, new) == ["sample_rollup backlog"])
    }

    @Test mutating func theEarliestDeadlineIsMet() {
        _ = due(0)
        let expiry = Self.start.advanced(milliseconds: 5000)
        #expect(due(4.999, Self.backlog(nextExpiry: expiry)) == [])
        #expect(due(5, Self.backlog(nextExpiry: expiry)) == ["cache_expiry deadline"])
        #expect(due(6, Self.backlog(nextExpiry: expiry, .cacheExpiry)) == ["cache_expiry deadline"])
    }

    @Test mutating func eachTaskHasItsOwnDeadline() {
        _ = due(0)
        let both = Self.backlog(nextExpiry: Self.after(5), nextSessionExpiry: Self.after(6))
        #expect(due(5, both) == ["cache_expiry deadline"])
        #expect(due(6, both) == ["cache_expiry deadline", "session_expiry deadline"])
        #expect(due(7, Self.backlog(nextSessionExpiry: Self.after(7))) == ["session_expiry deadline"])
    }

    @Test mutating func whatWaitsIsDone() {
        _ = due(0)
        #expect(due(1, Self.backlog(.cacheExpiry)) == ["cache_expiry backlog"])
        #expect(due(2, Self.backlog(.cacheCaps)) == ["cache_caps backlog"])
        #expect(due(3, Self.backlog(.blobOrphans)) == ["blob_orphans backlog"])
        #expect(
            due(4, Self.backlog(.cacheExpiry, .cacheCaps, .blobOrphans))
                == ["cache_expiry backlog", "cache_caps backlog", "blob_orphans backlog"])
    }

    @Test mutating func spaceIsGivenBackAtMostEveryThirtySeconds() {
        _ = due(0)
        #expect(due(29.999, Self.backlog(.space)) == [])
        #expect(due(30, Self.backlog(.space)) == ["space backlog"])
        #expect(due(59, Self.backlog(.space)) == [])
        #expect(due(60, Self.backlog(.space)) == ["space backlog"])
    }

    @Test mutating func aFailedTaskIsTriedAgainAfterAPauseThatDoubles() {
        _ = due(0)
        var now = 0.0
        for pause in [1.0, 2, 4, 8, 16, 32, 64, 64, 64] {
            finished(.blobOrphans, now, succeeded: false)
            #expect(due(now + pause - 0.001, Self.backlog(.blobOrphans)) == [])
            #expect(due(now + pause) == ["blob_orphans backlog"])
            now += pause
        }
        finished(.blobOrphans, now, succeeded: true)
        #expect(due(now + 1) == [])
        // Success resets the pause to the shortest.
        finished(.blobOrphans, now + 1, succeeded: false)
        #expect(due(now + 2) == ["blob_orphans backlog"])
    }

    @Test mutating func aFailedTaskStopsNoOther() {
        _ = due(0)
        finished(.cacheExpiry, 0, succeeded: false)
        #expect(due(0.5, Self.backlog(nextExpiry: Self.start, .cacheCaps)) == ["cache_caps backlog"])
        #expect(
            due(1, Self.backlog(nextExpiry: Self.start, .cacheCaps)) == ["cache_expiry deadline", "cache_caps backlog"])
    }

    @Test mutating func aPauseHoldsAtTheIntervalToo() {
        _ = due(0)
        finished(.space, 599.5, succeeded: false)
        #expect(due(600) == all("interval").filter { $0 != "space interval" })
        #expect(due(600.5) == ["space backlog"])
    }

    @Test mutating func aClockSetBackEndsEveryPause() {
        _ = due(0)
        for _ in 0..<7 { finished(.space, 100, succeeded: false) }
        #expect(due(-3600) == all("interval"))
        #expect(due(-3599) == ["space backlog"])
    }
    @Test func whatIsNotATaskOfTheEngineDoesNotRun() {
        var schedule = MaintenanceSchedule(tasks: [DeclaredTask(.cacheExpiry)])
        func due(_ seconds: Double, _ backlog: MaintenanceBacklog) -> [MaintenanceTask] {
            schedule.due(now: Self.after(seconds), intervalMilliseconds: 600_000, backlog: backlog).map(\.task)
        }
        #expect(due(0, Self.backlog(.space)) == [.cacheExpiry])
        #expect(due(40, Self.backlog(nextSessionExpiry: Self.start, .space)) == [])
    }

    @Test mutating func memoryIsReturnedAfterRemovalsAtMostEveryThirtySeconds() {
        #expect(isTrimDue(0) == false)
        _ = due(0)
        #expect(isTrimDue(0) == true)
        finished(.cacheExpiry, 5, succeeded: true, removed: 1)
        #expect(isTrimDue(29.999) == false)
        #expect(isTrimDue(30) == true)
        finished(.cacheExpiry, 40, succeeded: true)
        #expect(isTrimDue(599) == false)
        _ = due(600)
        #expect(isTrimDue(600) == true)
        // A clock that was set back does not keep it waiting.
        finished(.cacheExpiry, 600, succeeded: true, removed: 1)
        #expect(isTrimDue(0) == true)
    }
}
