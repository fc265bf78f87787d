// Shared by the storage tests: a storage on a real file.

import Domain
import TestSupport

@testable import SQLiteStorage

func makeStorage(
    in folder: TemporaryFolder, clock: ManualClock, settings: LiveSettings = LiveSettings(.quick)
) throws -> SQLiteStorage {
    try SQLiteStorage(
        path: folder.file("reprise.db"), settings: settings, clock: clock.wallClock, logger: quietLogger)
}

/// Runs `body` on a new storage and closes it, however `body` ends.
func withStorage(
    settings: LiveSettings = LiveSettings(.quick), _ body: (SQLiteStorage, ManualClock) async throws -> Void
) async throws {
    let folder = TemporaryFolder()
    let clock = ManualClock()
    let storage = try makeStorage(in: folder, clock: clock, settings: settings)
    do {
        try await body(storage, clock)
    } catch {
        await storage.close()
        throw error
    }
    await storage.close()
}
