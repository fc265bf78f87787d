// The contract of Domain/CacheStore.swift, run over every storage engine: racing callers.

import Domain
import TestSupport
import Testing

@Suite struct CacheRacingTests {
    /// Runs `body` in the given number of concurrent tasks.
    private func race(_ tasks: Int, _ body: @escaping @Sendable (Int) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for task in 0..<tasks { group.addTask { try await body(task) } }
            try await group.waitForAll()
        }
    }

    @Test(arguments: Engine.allCases)
    func ofAHundredAddsOneSucceeds(engine: Engine) async throws {
        try await engine.run { store, _ in
            let winners = Shared<[Int]>([])
            try await race(100) { task in
                do {
                    try await store.put("key", "\(task)", condition: .add)
                    winners.change { $0.append(task) }
                } catch let failure as Failure {
                    #expect(failure.code == .preconditionFailed)
                }
            }
            let winner = winners.value
            #expect(winner.count == 1)
            #expect(try await store.text("key") == "\(winner[0])")
        }
    }

    @Test(arguments: Engine.allCases)
    func ofRacingComparisonsOneSucceedsEachTime(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await store.put("key", "0")
            let successes = Shared(0)
            try await race(10) { _ in
                for _ in 0..<20 {
                    let hit = try await store.read(EntryAddress("key"))
                    let value = Int(String(decoding: try await hit.bytes(), as: UTF8.self))!
                    let condition = EntityCondition(match: .strong(hit.entityTag.hex))
                    if await code(of: { try await store.put("key", "\(value + 1)", condition: condition) }) == nil {
                        successes.change { $0 += 1 }
                    }
                }
            }
            // No success was lost.
            #expect(try await store.text("key") == "\(successes.value)")
        }
    }

    @Test(arguments: Engine.allCases)
    func racingIncrementsAddUp(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await race(100) { _ in
                for _ in 0..<100 {
                    _ = try await store.increment(CacheIncrement(key: Key(stored: "key")), namespace: .n)
                }
            }
            #expect(try await store.text("key") == "10000")
        }
    }

    @Test(arguments: Engine.allCases)
    func aReplacedValueIsNeverSeenHalf(engine: Engine) async throws {
        try await engine.run { store, _ in
            let values = [0, 10, 60_000, 70_000, 150_000].map { noise($0, seed: $0) }
            try await store.put("key", values[1])
            let isDone = Shared(false)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for writer in 0..<3 {
                    group.addTask {
                        for round in 0..<25 {
                            let value = values[(writer * 7 + round) % values.count]
                            if round % 2 == 0 {
                                try await store.put("key", value)
                            } else {
                                try await store.upload("key", value)
                            }
                        }
                    }
                }
                let reads = Shared(0)
                for _ in 0..<3 {
                    group.addTask {
                        while !isDone.value {
                            await Task.yield()
                            let hit = try await store.read(EntryAddress("key"))
                            let bytes = try await hit.bytes()
                            #expect(bytes.count == hit.sizeBytes)
                            #expect(EntityTag(of: bytes) == hit.entityTag)
                            reads.change { $0 += 1 }
                        }
                    }
                }
                group.addTask {
                    while !isDone.value {
                        _ = try await store.perform(engine.valueSweep, isDryRun: false)
                        await Task.yield()
                    }
                }
                for _ in 0..<3 { try await group.next() }
                isDone.set(true)
                try await group.waitForAll()
                #expect(reads.value > 0)
            }
        }
    }

    /// What a reader saw, for comparison with the writer's answer.
    private struct Sighting {
        var value: String
        var askedAt: Instant
        var asOf: Instant
        var expiresAt: Instant?
    }

    @Test(arguments: Engine.allCases)
    func anExpiredEntryIsNeverServed(engine: Engine) async throws {
        try await engine.run { store, clock in
            let expiries = Shared<[String: Instant]>([:])
            let sightings = Shared<[Sighting]>([])
            let isDone = Shared(false)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for writer in 0..<3 {
                    group.addTask {
                        for round in 0..<150 {
                            let value = "\(writer) \(round)"
                            let lifetime = TimeToLive.milliseconds(Int64(1 + round % 5))
                            let outcome = try await store.put("key\(round % 2)", value, lifetime: lifetime)
                            expiries.change { $0[value] = outcome.expiresAt }
                        }
                    }
                }
                for reader in 0..<3 {
                    group.addTask {
                        while !isDone.value {
                            // A read of a small value does not suspend, and would block the writers' thread.
                            await Task.yield()
                            let askedAt = clock.now
                            guard let hit = try? await store.read(EntryAddress("key\(reader % 2)")) else { continue }
                            let value = String(decoding: try await hit.bytes(), as: UTF8.self)
                            let sighting = Sighting(
                                value: value, askedAt: askedAt, asOf: hit.asOf, expiresAt: hit.expiresAt)
                            sightings.change { $0.append(sighting) }
                        }
                    }
                }
                group.addTask {
                    while !isDone.value {
                        clock.advance(milliseconds: 1)
                        await Task.yield()
                    }
                }
                group.addTask {
                    while !isDone.value {
                        _ = try await store.perform(.cacheExpiry, isDryRun: false)
                        await Task.yield()
                    }
                }
                for _ in 0..<3 { try await group.next() }
                isDone.set(true)
                try await group.waitForAll()
            }
            let expiry = expiries.value
            let seen = sightings.value
            #expect(!seen.isEmpty)
            for sighting in seen {
                let expiresAt = try #require(expiry[sighting.value])
                #expect(sighting.expiresAt == expiresAt)
                #expect(sighting.asOf < expiresAt)
                #expect(sighting.askedAt < expiresAt)
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func anAtomicBatchIsSeenWholeOrNotAtAll(engine: Engine) async throws {
        try await engine.run { store, _ in
            let keys = ["a", "b", "c"].map { Key(stored: $0) }
            func set(_ value: Int) async throws {
                _ = try await store.batch(
                    keys.map { .set(CacheWrite($0.rawValue, Array("\(value)".utf8))) }, namespace: .n, atomic: true)
            }
            try await set(0)
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { for value in 1...100 { try await set(value) } }
                for _ in 0..<2 {
                    group.addTask {
                        for _ in 0..<100 {
                            let results = try await store.batch(keys.map { .get($0) }, namespace: .n, atomic: false)
                            let values: [[UInt8]] = results.map {
                                if case .value(_, let bytes) = $0 { bytes } else { [] }
                            }
                            #expect(Set(values).count == 1)
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func aClearTakesWhatWasThereAndLeavesWhatComesAfter(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await withThrowingTaskGroup(of: Int.self) { group in
                for task in 0..<20 {
                    group.addTask {
                        try await store.put("key\(task)", "1")
                        return 0
                    }
                }
                for _ in 0..<5 {
                    group.addTask { try await store.clear(.n, filter: EntryFilter()).removed }
                }
                let removed = try await group.reduce(0, +)
                #expect(removed + (try await store.keys().count) == 20)
            }
        }
    }
}
