// One run of a background task: what is recorded, and what is not.

import Domain
import Synchronization
import TestSupport
import Testing

/// A store whose tasks do what the test says.
private final class StubStore: MaintenanceStore {
    let result: Result<Removal, Failure>
    let recordFailure: Failure?
    let recorded = Mutex<[MaintenanceRun]>([])

    init(_ result: Result<Removal, Failure>, recordFailure: Failure? = nil) {
        self.result = result
        self.recordFailure = recordFailure
    }

    var tasks: [DeclaredTask] { [DeclaredTask(.cacheExpiry)] }
    func perform(_ task: MaintenanceTask, isDryRun: Bool) async throws -> Removal { try result.get() }
    func record(_ run: MaintenanceRun) async throws {
        if let recordFailure { throw recordFailure }
        recorded.withLock { $0.append(run) }
    }
    func maintenanceRuns(before: Int64?, limit: Int) async throws -> [MaintenanceRun] { recorded.withLock { $0 } }
    func maintenanceFigures(in range: MetricRange, runs limit: Int) async throws -> MaintenanceFigures {
        MaintenanceFigures(tasks: [:], latest: [])
    }
    func flushCounters() async throws {}
    func backlog() -> MaintenanceBacklog { MaintenanceBacklog() }
}

struct MaintenanceRunnerTests {
    private let clock = ManualClock()

    private func run(
        _ store: StubStore, trigger: MaintenanceTrigger, isDryRun: Bool = false
    ) async -> (run: MaintenanceRun, recorded: [MaintenanceRun]) {
        let runner = MaintenanceRunner(store: store, clock: clock.wallClock)
        let run = await runner.run(.cacheExpiry, trigger: trigger, isDryRun: isDryRun)
        return (run, store.recorded.withLock { $0 })
    }

    @Test func aRunIsRecorded() async {
        let (run, recorded) = await run(StubStore(.success(Removal(removed: 3, freedBytes: 9))), trigger: .deadline)
        #expect(recorded == [run])
        #expect(run.startedAt == clock.now)
        #expect((run.rowsRemoved, run.bytesFreed) == (3, 9))
        #expect(run.error == nil)
    }

    @Test(arguments: MaintenanceTrigger.allCases)
    func aLookThatFoundNothingIsRecordedUnlessItHappensEverySecond(trigger: MaintenanceTrigger) async {
        let (_, recorded) = await run(StubStore(.success(Removal())), trigger: trigger)
        #expect(recorded.isEmpty == (trigger == .backlog || trigger == .deadline))
    }

    @Test func aDryRunIsNotRecorded() async {
        let store = StubStore(.success(Removal(removed: 3, freedBytes: 9)))
        let (run, recorded) = await run(store, trigger: .demand, isDryRun: true)
        #expect(recorded.isEmpty)
        #expect(run.rowsRemoved == 3)
    }

    @Test func aFailureIsRecordedInWords() async {
        let (run, recorded) = await run(StubStore(.failure(.overloaded("Too much."))), trigger: .backlog)
        #expect(run.error == Failure.overloaded("Too much.").detail)
        #expect(recorded == [run])
    }

    @Test func aRunThatCannotBeRecordedSaysSo() async {
        let store = StubStore(.success(Removal()), recordFailure: .overloaded("Too much."))
        let (run, _) = await run(store, trigger: .interval)
        #expect(run.error?.contains("could not be recorded") == true)
    }
}
