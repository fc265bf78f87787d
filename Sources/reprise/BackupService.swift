// Backups by schedule: the background service that makes them.

import Domain
import ServiceLifecycle

/// Makes backups until the service stops. The store logs each of them and each failure.
struct BackupService: Service {
    let store: any BackupStore
    let settings: LiveSettings
    let clock: WallClock

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var schedule = BackupSchedule()
            while !Task.isCancelled {
                await look(&schedule)
                try? await Task.sleep(for: .seconds(1))
            }
        }
    }

    private func look(_ schedule: inout BackupSchedule) async {
        let interval = settings.current.milliseconds(.backupInterval)
        guard
            schedule.isDue(
                now: clock.now(), intervalMilliseconds: interval, latest: store.latestBackup?.createdAt)
        else { return }
        do {
            _ = try await store.createBackup()
            schedule.succeeded(at: clock.now())
        } catch let failure as Failure where failure.code == .backupRunning {
            // Somebody asked for one at the same time, and it will be the latest.
        } catch {
            schedule.failed(at: clock.now())
        }
    }
}
