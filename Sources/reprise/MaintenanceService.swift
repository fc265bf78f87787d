// The background service: looks once a second what is due, does it, records it.

import CSupport
import Domain
import Logging
import ServiceLifecycle

/// Runs maintenance until the service stops. A task that fails is recorded, logged and tried again; it stops no other.
struct MaintenanceService: Service {
    let store: any MaintenanceStore
    let settings: LiveSettings
    let clock: WallClock
    let logger: Logger

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var schedule = MaintenanceSchedule()
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
                logger.warning("counters could not be written yet", metadata: ["error": "\(error)"])
            }
        }
        let due = schedule.due(
            now: clock.now(), intervalMilliseconds: settings.current.milliseconds(.cleanupInterval), backlog: backlog)
        for (task, trigger) in due where !Task.isCancelled {
            let succeeded = await perform(task, trigger)
            schedule.finished(task, succeeded: succeeded, at: clock.now())
            if task == .space { reprise_trim_malloc() }
        }
    }

    /// - Returns: whether it went through.
    private func perform(_ task: MaintenanceTask, _ trigger: MaintenanceTrigger) async -> Bool {
        let startedAt = clock.now()
        let started = ContinuousClock.now
        var removal = Removal()
        var failure: (any Error)?
        do { removal = try await store.perform(task) } catch { failure = error }
        let (seconds, attoseconds) = (ContinuousClock.now - started).components
        let run = MaintenanceRun(
            task: task, trigger: trigger, startedAt: startedAt,
            durationSeconds: Double(seconds) + Double(attoseconds) / 1e18, rowsRemoved: removal.removed,
            bytesFreed: removal.freedBytes, error: failure.map { ($0 as? Failure)?.detail ?? "\($0)" })
        if Task.isCancelled, failure != nil { return false }
        let metadata: Logger.Metadata = [
            "task": "\(task.rawValue)", "trigger": "\(trigger.rawValue)", "rows_removed": "\(run.rowsRemoved)",
            "bytes_freed": "\(run.bytesFreed)", "duration_seconds": "\(run.durationSeconds)",
        ]
        if let error = run.error {
            logger.error("a background task failed and will be tried again",
                metadata: metadata.merging(["error": "\(error)"]) { $1 })
        } else {
            logger.debug("a background task ran", metadata: metadata)
        }
        // A look that found nothing to do is not worth a row each second.
        let isIdle = removal == Removal() && run.error == nil && (trigger == .backlog || trigger == .deadline)
        if !isIdle {
            do { try await store.record(run) } catch {
                logger.warning("a background task's run could not be recorded", metadata: ["error": "\(error)"])
            }
        }
        return run.error == nil
    }
}
