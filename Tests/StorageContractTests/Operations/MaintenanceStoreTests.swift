// The contract of MaintenanceStore, run over every storage engine: what the background work removes and records.

import Domain
import TestSupport
import Testing

struct MaintenanceStoreTests {
    private func fill(_ store: any Engine.Store, _ count: Int, in namespace: Name = .n, lifetime: TimeToLive? = nil)
        async throws
    {
        let operations: [CacheOperation] = (0..<count).map { .set(CacheWrite("key\($0)", [1], lifetime: lifetime)) }
        _ = try await store.batch(operations, namespace: namespace, atomic: true)
    }

    /// Returns what a dry run reports, and what the run then removes.
    private func announcedAndDone(
        _ task: MaintenanceTask, _ store: any Engine.Store
    ) async throws -> (announced: Removal, done: Removal) {
        let announced = try await store.perform(task, isDryRun: true)
        #expect(try await store.perform(task, isDryRun: true) == announced)
        return (announced, try await store.perform(task, isDryRun: false))
    }

    private func run(
        _ number: Int, of task: MaintenanceTask = .cacheExpiry, error: String? = nil
    ) -> MaintenanceRun {
        MaintenanceRun(
            task: task, trigger: .deadline, startedAt: Instant(milliseconds: Int64(number)),
            durationSeconds: 0.25, rowsRemoved: number, bytesFreed: number * 2, error: error)
    }

    @Test(arguments: Engine.allCases)
    func everyTaskCanBeRunAndIsCounted(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let tasks = store.tasks.map(\.task)
            #expect(Set(tasks).count == tasks.count)
            #expect(
                Set(tasks).isSuperset(of: [
                    .cacheExpiry, .cacheCaps, .sessionExpiry, .historyCaps, .stateTemporaries, .debounceMarks,
                    .sampleRollup, .sampleRetention,
                ]))
            for (index, task) in tasks.enumerated() {
                #expect(try await store.perform(task, isDryRun: true) == Removal(), "\(task)")
                #expect(try await store.perform(task, isDryRun: false) == Removal(), "\(task)")
                for number in 0..<index { try await store.record(run(number, of: task)) }
            }
            let counted = await store.operationalFigures().taskRuns
            #expect(counted.map(\.task) == tasks)
            #expect(counted.map(\.runs) == Array(tasks.indices))
        }
    }

    @Test(arguments: Engine.allCases)
    func aTaskOfAnotherEngineIsRefused(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            for isDryRun in [true, false] {
                #expect(
                    await code { try await store.perform(MaintenanceTask(rawValue: "defrost"), isDryRun: isDryRun) }
                        == .validationFailed)
            }
        }
    }

    /// A later version may have left them.
    @Test(arguments: Engine.allCases)
    func runsOfUnknownTasksAreListedButNotSummed(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let unknown = MaintenanceTask(rawValue: "defrost")
            try await store.record(run(1, of: unknown))
            try await store.record(run(2))
            #expect(try await store.maintenanceRuns(before: nil, limit: 10).map(\.task) == [.cacheExpiry, unknown])
            let range = MetricRange(since: Instant(milliseconds: 0), until: Instant(milliseconds: 60_000))
            let figures = try await store.maintenanceFigures(in: range, runs: 10)
            #expect(figures.latest.map(\.task) == [.cacheExpiry, unknown])
            #expect(Array(figures.tasks.keys) == [.cacheExpiry])
            #expect(await store.operationalFigures().taskRuns.reduce(0) { $0 + $1.runs } == 1)
        }
    }

    @Test(arguments: Engine.allCases)
    func whenNothingExpiresNoDeadlineIsTold(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            #expect(store.backlog().deadlines[.cacheExpiry] == nil)
            try await store.put("key", lifetime: .milliseconds(1000))
            _ = try await store.touch(EntryAddress("key"), timeToLive: .never)
            clock.advance(milliseconds: 1000)
            #expect(try await store.perform(.cacheExpiry, isDryRun: false) == Removal())
            #expect(store.backlog().deadlines[.cacheExpiry] == nil)
            #expect(try await store.keys() == ["key"])
        }
    }

    @Test(arguments: Engine.allCases)
    func rowsBothExpiredAndClearedAreCountedOnce(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            try await fill(store, 10, lifetime: .milliseconds(1000))
            try await fill(store, 5, in: Name(stored: "m"))
            for name in ["n", "m"] { _ = try await store.clear(Name(stored: name), filter: EntryFilter()) }
            clock.advance(milliseconds: 1000)
            let (announced, done) = try await announcedAndDone(.cacheExpiry, store)
            #expect(announced == Removal(removed: 15, freedBytes: 15))
            #expect(done == announced)
        }
    }

    @Test(arguments: Engine.allCases)
    func oneLargeValueInPlaceOfManySmallOnes(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let count = 256 * 2
            _ = try await store.setPolicy(CachePolicy(maxBytes: count), of: .n)
            try await fill(store, count)
            try await store.put("large", [UInt8](repeating: 1, count: count))
            // One write may leave some of them to the background task.
            let (announced, done) = try await announcedAndDone(.cacheCaps, store)
            #expect(announced == done)
            #expect(try await store.namespace(.n).evictions == count)
            #expect(try await store.perform(.cacheCaps, isDryRun: false) == Removal())
            #expect(try await store.keys() == ["large"])
        }
    }

    @Test(arguments: Engine.allCases)
    func runsAreRecorded(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            for number in 1...5 { try await store.record(run(number, error: number == 3 ? "disk full" : nil)) }
            var expected = (1...5).map { run($0, error: $0 == 3 ? "disk full" : nil) }
            for index in expected.indices { expected[index].id = Int64(index + 1) }
            #expect(try await store.maintenanceRuns(before: nil, limit: 10) == expected.reversed())
            #expect(try await store.maintenanceRuns(before: nil, limit: 2).map(\.id) == [5, 4])
            #expect(try await store.maintenanceRuns(before: 4, limit: 2).map(\.id) == [3, 2])
            #expect(try await store.maintenanceRuns(before: 1, limit: 2) == [])
        }
    }

    @Test(arguments: Engine.allCases)
    func aRestartForgetsNoWork(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            try await fill(store, 3, lifetime: .milliseconds(1000))
            try await fill(store, 2, in: Name(stored: "m"))
            _ = try await store.clear(Name(stored: "m"), filter: EntryFilter())
        } reopened: { store, clock async throws in
            #expect(store.backlog().deadlines[.cacheExpiry] == clock.now.advanced(milliseconds: 1000))
            #expect(store.backlog().waiting.contains(.cacheExpiry))
            clock.advance(milliseconds: 1000)
            #expect(try await store.perform(.cacheExpiry, isDryRun: false) == Removal(removed: 5, freedBytes: 5))
            #expect(store.backlog().deadlines[.cacheExpiry] == nil && !store.backlog().waiting.contains(.cacheExpiry))
        }
    }
}
