// The contract of Domain/CacheStore.swift, run over every storage engine: large values while others change them.

import Domain
import TestSupport
import Testing

@Suite struct LargeValueTests {
    /// A change that separates a value from its entry.
    enum Change: CaseIterable {
        case replaced, replacedBySmall, deleted, cleared, clearedByTag, namespaceRemoved, expired, evicted
    }

    private static let bytes = noise(Limits.chunkBytes * 3 + 1)

    private func make(_ change: Change, _ store: any CacheStore, _ clock: ManualClock) async throws {
        switch change {
        case .replaced: try await store.upload("key", noise(Self.bytes.count, seed: 1))
        case .replacedBySmall: try await store.put("key", "small")
        case .deleted: try await store.delete("key")
        case .cleared: _ = try await store.clear(.n, filter: EntryFilter())
        case .clearedByTag: _ = try await store.clear(.n, filter: EntryFilter(prefix: "k"))
        case .namespaceRemoved: try await store.removeNamespace(.n)
        case .expired: clock.advance(milliseconds: 300_000)
        case .evicted:
            _ = try await store.setPolicy(CachePolicy(maxEntries: 1), of: .n)
            try await store.put("other")
        }
    }

    private func sweep(_ store: any MaintenanceStore, of engine: Engine) async throws -> Removal {
        _ = try await store.perform(.cacheExpiry, isDryRun: false)
        return try await store.perform(engine.valueSweep, isDryRun: false)
    }

    @Test(arguments: Engine.allCases, Change.allCases)
    func aValueBeingReadStaysWhole(engine: Engine, change: Change) async throws {
        try await engine.run { store, clock in
            try await store.upload("key", Self.bytes)
            var hit: CacheHit? = try await store.read(EntryAddress("key"))
            guard case .large(let value) = hit?.content else {
                Issue.record("a large value was expected")
                return
            }
            var read = try await value.read(from: 0)
            try await make(change, store, clock)
            #expect(try await sweep(store, of: engine) == Removal())
            while read.count < Self.bytes.count { read += try await value.read(from: read.count) }
            #expect(read == Self.bytes)
            hit = nil
        }
    }

    @Test(arguments: Engine.allCases, Change.allCases)
    func aValueNobodyReadsIsSwept(engine: Engine, change: Change) async throws {
        try await engine.run { store, clock in
            try await store.upload("key", Self.bytes)
            #expect(try await store.bytes("key") == Self.bytes)
            try await make(change, store, clock)
            #expect(try await sweep(store, of: engine) == Removal(removed: 1, freedBytes: Self.bytes.count))
            #expect(try await sweep(store, of: engine) == Removal())
        }
    }

    @Test(arguments: Engine.allCases)
    func onceItsReaderIsDoneItIsSwept(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.upload("key", Self.bytes)
            var hit: CacheHit? = try await store.read(EntryAddress("key"))
            try await make(.deleted, store, clock)
            #expect(try await sweep(store, of: engine) == Removal())
            // It is not forgotten.
            #expect(store.backlog().waiting.contains(engine.valueSweep))
            #expect(hit != nil)
            hit = nil
            #expect(try await sweep(store, of: engine).freedBytes == Self.bytes.count)
            #expect(!store.backlog().waiting.contains(engine.valueSweep))
        }
    }

    @Test(arguments: Engine.allCases)
    func anUploadIsInvisibleUntilItIsWritten(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await store.put("key", "old")
            let upload = try await store.beginUpload()
            try await upload.append(Array(Self.bytes.prefix(Limits.chunkBytes)))
            #expect(try await store.text("key") == "old")
            #expect(try await store.namespace(.n).sizeBytes == 3)
            // Nor is it swept while the upload is in progress.
            #expect(try await sweep(store, of: engine) == Removal())
            try await upload.append(Array(Self.bytes[Limits.chunkBytes..<Limits.chunkBytes + 10]))
            let bytes = Array(Self.bytes.prefix(Limits.chunkBytes + 10))
            var write = CacheWrite("key", bytes)
            write.content = .uploaded(upload)
            _ = try await store.write(write, namespace: .n)
            #expect(try await store.bytes("key") == bytes)
        }
    }

    @Test(arguments: Engine.allCases)
    func anAbandonedUploadIsSwept(engine: Engine) async throws {
        try await engine.run { store, _ in
            var upload: (any ValueUpload)? = try await store.beginUpload()
            for _ in 0..<3 { try await upload?.append(noise(Limits.chunkBytes)) }
            #expect(try await sweep(store, of: engine) == Removal())
            upload = nil
            #expect(store.backlog().waiting.contains(engine.valueSweep))
            #expect(try await sweep(store, of: engine) == Removal(removed: 1, freedBytes: 3 * Limits.chunkBytes))
            #expect(try await sweep(store, of: engine) == Removal())
        }
    }

    @Test(arguments: Engine.allCases)
    func anUploadThatWasRefusedIsSwept(engine: Engine) async throws {
        try await engine.run { store, _ in
            _ = try await store.setPolicy(CachePolicy(maxEntryBytes: 10), of: .n)
            #expect(await code { try await store.upload("key", Self.bytes) } == .payloadTooLarge)
            #expect(try await sweep(store, of: engine) == Removal(removed: 1, freedBytes: Self.bytes.count))
        }
    }

    @Test(arguments: Engine.allCases)
    func whatIsInUseIsNotSwept(engine: Engine) async throws {
        try await engine.run { store, _ in
            for number in 0..<3 { try await store.upload("key\(number)", noise(100_000, seed: number)) }
            #expect(try await sweep(store, of: engine) == Removal())
            for number in 0..<3 { #expect(try await store.bytes("key\(number)") == noise(100_000, seed: number)) }
        }
    }

    @Test(arguments: Engine.allCases)
    func anUploadOfNothingIsAnEmptyValue(engine: Engine) async throws {
        try await engine.run { store, _ in
            #expect(try await store.upload("key", []).created)
            #expect(try await store.bytes("key") == [])
            try await store.upload("key", Self.bytes)
            try await store.upload("key", [])
            #expect(try await store.bytes("key") == [])
        }
    }

    /// A sweep that has listed a blob must leave it alone once it has become a value.
    @Test(arguments: Engine.allCases)
    func uploadsSurviveARacingSweep(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for task in 0..<4 {
                    group.addTask {
                        for round in 0..<15 {
                            let bytes = noise(70_000, seed: task * 100 + round)
                            try await store.upload("key\(task)", bytes)
                            #expect(try await store.bytes("key\(task)") == bytes)
                        }
                    }
                }
                group.addTask {
                    for _ in 0..<60 {
                        _ = try await store.perform(engine.valueSweep, isDryRun: false)
                        await Task.yield()
                    }
                }
                try await group.waitForAll()
            }
            _ = try await sweep(store, of: engine)
            for task in 0..<4 {
                #expect(try await store.bytes("key\(task)") == noise(70_000, seed: task * 100 + 14))
            }
        }
    }
}
