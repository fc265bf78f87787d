// The available storage engines, and how each is opened: the only file here that depends on one.

import Domain
import SQLiteStorage
import TestSupport

/// A storage engine that the contract is tested on.
///
/// To add one, add a case: how it is opened in a new place, which nothing else uses, and reopened there.
enum Engine: CaseIterable {
    case sqlite

    /// The task that removes large values that no entry refers to.
    var valueSweep: MaintenanceTask {
        switch self {
        case .sqlite: .blobOrphans
        }
    }

    /// Everything an engine offers, as one object.
    typealias Store = StorageEngine & CacheStore & SessionStore & HistoryStore & SampleStore & SettingsStore
        & MaintenanceStore & OperationalStore

    /// Runs `body` on a new store and closes it, however `body` ends; then `reopened` on what was kept, as after a
    /// restart.
    func run(
        settings: LiveSettings = LiveSettings(.quick),
        _ body: (any Store, ManualClock) async throws -> Void,
        reopened: ((any Store, ManualClock) async throws -> Void)? = nil
    ) async throws {
        let place = TemporaryFolder()
        let clock = ManualClock()
        try await run(in: place, settings, clock, body)
        if let reopened { try await run(in: place, settings, clock, reopened) }
    }

    private func run(
        in place: TemporaryFolder, _ settings: LiveSettings, _ clock: ManualClock,
        _ body: (any Store, ManualClock) async throws -> Void
    ) async throws {
        let store = try open(in: place, settings: settings, clock: clock)
        do {
            try await body(store, clock)
        } catch {
            await store.close()
            throw error
        }
        await store.close()
    }

    private func open(in place: TemporaryFolder, settings: LiveSettings, clock: ManualClock) throws -> any Store {
        switch self {
        case .sqlite:
            try SQLiteStorage(
                path: place.file("reprise.db"), settings: settings, clock: clock.wallClock, logger: quietLogger)
        }
    }
}
