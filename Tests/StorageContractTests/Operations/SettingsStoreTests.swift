// The contract of SettingsStore, run over every storage engine: settings changed at run time.

import Domain
import TestSupport
import Testing

struct SettingsStoreTests {
    @Test(arguments: Engine.allCases)
    func changesAreMadeAsOneAndKept(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let first = try await store.settingOverrides()
            #expect(first.values == [:])
            let changed = try #require(
                try await store.changeSettingOverrides(["a": "1", "b": "2"], of: first.version))
            #expect(changed.values == ["a": "1", "b": "2"] && changed.version > first.version)
            let again = try #require(try await store.changeSettingOverrides(["a": nil, "b": "3", "c": "4"], of: nil))
            #expect(again.values == ["b": "3", "c": "4"] && again.version > changed.version)
            #expect(try await store.settingOverrides() == again)
        } reopened: { store, _ async throws in
            #expect(try await store.settingOverrides().values == ["b": "3", "c": "4"])
        }
    }

    @Test(arguments: Engine.allCases)
    func aDecisionOnAnOlderVersionChangesNothing(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let old = try await store.settingOverrides().version
            let current = try #require(try await store.changeSettingOverrides(["a": "1"], of: old))
            #expect(try await store.changeSettingOverrides(["a": "2"], of: old) == nil)
            #expect(try await store.settingOverrides() == current)
        }
    }

    @Test(arguments: Engine.allCases)
    func ofRacingDecisionsOneIsTaken(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let version = try await store.settingOverrides().version
            let taken = try await withThrowingTaskGroup(of: Int.self) { group in
                for caller in 0..<20 {
                    group.addTask {
                        try await store.changeSettingOverrides(["a": "\(caller)"], of: version) == nil ? 0 : 1
                    }
                }
                return try await group.reduce(0, +)
            }
            #expect(taken == 1)
        }
    }
}
