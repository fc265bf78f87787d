// The background service: checks once a second what is due, and does it.

import CAllocator
import Domain
import Logging
import ServiceLifecycle

/// Runs maintenance until the service stops. A task that fails is recorded, logged and retried; it does not stop the
/// others.
struct MaintenanceService: Service {
    let store: any MaintenanceStore
    let settings: LiveSettings
    let clock: WallClock
    let logger: Logger

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var schedule = MaintenanceSchedule(tasks: store.tasks)
            while !Task.isCancelled {
                await look(&schedule)
                try? await Task.sleep(for: .seconds(1))
            }
        }
    }

    private func look(_ schedule: inout MaintenanceSchedule) async {
        let backlog = store.backlog()
        if backlog.hasCounters {
            do { try await store.flushCounters() } catch {
                // What the end of the service interrupts is written when the storage closes.
                if !Task.isCancelled {
                    logger.warning("counters could not be written, will retry", metadata: ["error": "\(error)"])
                }
            }
        }
        let due = schedule.due(
            now: clock.now(), intervalMilliseconds: settings.current.milliseconds(.cleanupInterval), backlog: backlog)
        let runner = MaintenanceRunner(store: store, clock: clock)
        for (task, trigger) in due where !Task.isCancelled {
            let run = await runner.run(task, trigger: trigger)
            schedule.finished(run, at: clock.now())
            log(run)
        }
        if schedule.isTrimDue(at: clock.now()) { reprise_trim_malloc() }
    }

    private func log(_ run: MaintenanceRun) {
        var metadata: Logger.Metadata = [
            "task": "\(run.task.rawValue)", "trigger": "\(run.trigger.rawValue)", "rows_removed": "\(run.rowsRemoved)",
            "bytes_freed": "\(run.bytesFreed)", "duration_seconds": "\(run.durationSeconds)",
        ]
        guard let error = run.error else {
            logger.debug("a background task ran", metadata: metadata)
            return
        }
        metadata["error"] = "\(error)"
        if Task.isCancelled {
            logger.debug("a background task was stopped by the shutdown", metadata: metadata)
        } else {
            logger.error("a background task failed and will be retried", metadata: metadata)
        }
    }
}
