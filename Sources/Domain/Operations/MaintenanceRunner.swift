// One run of one background task: timed, recorded, its failure kept from stopping any other.

/// Runs tasks for the background service or a request.
public struct MaintenanceRunner: Sendable {
    private let store: any MaintenanceStore
    private let clock: WallClock

    public init(store: any MaintenanceStore, clock: WallClock) {
        self.store = store
        self.clock = clock
    }

    /// Performs a task and records the run.
    ///
    /// Dry runs are not recorded; nor is a run that found nothing to do, because that happens every second.
    /// - Returns: the run; what stopped it is in `error`.
    public func run(
        _ task: MaintenanceTask, trigger: MaintenanceTrigger, isDryRun: Bool = false
    ) async -> MaintenanceRun {
        let startedAt = clock.now()
        let started = ContinuousClock.now
        var removal = Removal()
        var problem: String?
        do {
            removal = try await store.perform(task, isDryRun: isDryRun)
        } catch {
            problem = (error as? Failure)?.detail ?? "\(error)"
        }
        let seconds = (ContinuousClock.now - started).seconds
        var run = MaintenanceRun(
            task: task, trigger: trigger, startedAt: startedAt,
            durationSeconds: (seconds * 1e6).rounded(.down) / 1e6,
            rowsRemoved: removal.removed, bytesFreed: removal.freedBytes, error: problem)
        let foundNothing = removal == Removal() && problem == nil && (trigger == .backlog || trigger == .deadline)
        guard !isDryRun, !foundNothing else { return run }
        do {
            try await store.record(run)
        } catch {
            run.error = run.error ?? "the run could not be recorded: \((error as? Failure)?.detail ?? "\(error)")"
        }
        return run
    }
}
