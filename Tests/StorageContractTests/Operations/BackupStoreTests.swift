// The contract of BackupStore, run over every storage engine that has backups.

import Domain
import TestSupport
import Testing

struct BackupStoreTests {
    /// All bytes of a backup.
    private func contents(of name: Name, in backups: any BackupStore) async throws -> [UInt8] {
        let (backup, content) = try await backups.openBackup(name)
        var bytes: [UInt8] = []
        while bytes.count < backup.sizeBytes { bytes += try await content.read(from: bytes.count) }
        return bytes
    }

    @Test(arguments: Engine.allCases)
    func aBackupIsListedAndItsBytesAreThoseThatWereHashed(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            guard let backups = store.backups else { return }
            #expect(try await backups.backups(before: nil, limit: 10).isEmpty && backups.latestBackup == nil)
            try await store.put("key")
            let made = try await backups.createBackup()
            #expect(made.createdAt == clock.now && made.sizeBytes > 0 && made.durationSeconds >= 0)
            #expect(try await backups.backups(before: nil, limit: 10) == [made])
            #expect(backups.latestBackup == made)
            let bytes = try await contents(of: made.name, in: backups)
            #expect(bytes.count == made.sizeBytes && EntityTag(of: bytes) == made.entityTag)
        } reopened: { store, _ async throws in
            guard let backups = store.backups else { return }
            // Its hash and its duration are still known.
            let kept = try #require(backups.latestBackup)
            #expect(try await backups.backups(before: nil, limit: 10) == [kept])
            let bytes = try await contents(of: kept.name, in: backups)
            #expect(EntityTag(of: bytes) == kept.entityTag)
        }
    }

    @Test(arguments: Engine.allCases)
    func pagesAreNewestFirst(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            guard let backups = store.backups else { return }
            var made: [Backup] = []
            // Two are of the same millisecond.
            for step: Int64 in [0, 0, 1, 3_600_000] {
                clock.advance(milliseconds: step)
                made.insert(try await backups.createBackup(), at: 0)
            }
            #expect(Set(made.map(\.name)).count == 4)
            let first = try await backups.backups(before: nil, limit: 3)
            #expect(first == Array(made[..<3]))
            #expect(try await backups.backups(before: first.last?.name, limit: 3) == Array(made[3...]))
            #expect(try await backups.backups(before: made[3].name, limit: 3).isEmpty)
        }
    }

    @Test(arguments: Engine.allCases)
    func theOldestBeyondTheNumberToKeepGo(engine: Engine) async throws {
        let settings = Settings.with(.backupKeep, .integer(2))
        try await engine.run(settings: settings) { store, clock async throws in
            guard let backups = store.backups else { return }
            var made: [Backup] = []
            for _ in 0..<4 {
                clock.advance(seconds: 1)
                made.insert(try await backups.createBackup(), at: 0)
            }
            #expect(try await backups.backups(before: nil, limit: 10) == Array(made[..<2]))
            // With a clock that was set back, the newest is not the last by name, and stays all the same.
            clock.advance(seconds: -3600)
            let earlier = try await backups.createBackup()
            #expect(try await backups.backups(before: nil, limit: 10) == [made[0], earlier])
            #expect(backups.latestBackup == earlier)
        }
    }

    @Test(arguments: Engine.allCases)
    func oneThatIsRemovedStaysReadableForThoseWhoReadIt(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            guard let backups = store.backups else { return }
            let made = try await backups.createBackup()
            let (_, content) = try await backups.openBackup(made.name)
            await #expect(throws: Failure.self) {
                try await backups.deleteBackup(made.name, condition: EntityCondition(match: .strong("other")))
            }
            try await backups.deleteBackup(
                made.name, condition: EntityCondition(match: .strong(made.entityTag.hex)))
            #expect(try await backups.backups(before: nil, limit: 10).isEmpty && backups.latestBackup == nil)
            #expect(try await content.read(from: 0).isEmpty == false)
            #expect(await code { _ = try await backups.openBackup(made.name) } == .backupNotFound)
            #expect(
                await code { try await backups.deleteBackup(made.name, condition: .none) } == .backupNotFound)
        }
    }

    @Test(arguments: Engine.allCases)
    func namesOfOtherFilesAreNotFound(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            guard let backups = store.backups else { return }
            for name in ["reprise.db", "reprise.db-wal", "x", "reprise-..db", "reprise-2026.partial.db"] {
                let code = await code { _ = try await backups.openBackup(Name(stored: name)) }
                #expect(code == .backupNotFound, "\(name)")
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func oneIsMadeAtATime(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            guard let backups = store.backups else { return }
            for number in 0..<200 { try await store.put("\(number)") }
            let codes = await withTaskGroup(of: Failure.Code?.self) { group in
                for _ in 0..<8 { group.addTask { await code { _ = try await backups.createBackup() } } }
                return await group.reduce(into: []) { $0.append($1) }
            }
            let made = try await backups.backups(before: nil, limit: 10)
            #expect(!made.isEmpty && made.count == codes.count { $0 == nil })
            #expect(codes.allSatisfy { $0 == nil || $0 == .backupRunning })
        }
    }

    @Test(arguments: Engine.allCases)
    func noneIsMadeOnceTheServiceStops(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            guard let backups = store.backups else { return }
            store.endLongReads()
            #expect(await code { _ = try await backups.createBackup() } == .shuttingDown)
            #expect(try await backups.backups(before: nil, limit: 10).isEmpty)
        }
    }
}
