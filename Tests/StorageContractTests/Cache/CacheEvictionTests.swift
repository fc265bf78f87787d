// The contract of Domain/CacheStore.swift, run over every storage engine: caps, and the order of eviction.

import Domain
import TestSupport
import Testing

@Suite struct CacheEvictionTests {
    private func cap(
        _ store: any CacheStore, entries: Int? = nil, bytes: Int? = nil, _ eviction: Eviction
    ) async throws {
        _ = try await store.setPolicy(CachePolicy(maxEntries: entries, maxBytes: bytes, eviction: eviction), of: .n)
    }

    private func use(_ store: any CacheStore, _ keys: String...) async throws {
        for key in keys { _ = try await store.read(EntryAddress(key)) }
    }

    // MARK: Least recently used

    /// The clock stands still: uses within one millisecond keep their order.
    @Test(arguments: Engine.allCases)
    func theLeastRecentlyUsedGoesFirst(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, entries: 3, .leastRecentlyUsed)
            for key in ["a", "b", "c"] { try await store.put(key) }
            try await use(store, "a", "c", "a")
            try await store.put("d")
            #expect(try await store.keys() == ["a", "c", "d"])
            try await store.put("e")
            #expect(try await store.keys() == ["a", "d", "e"])
            try await store.put("f")
            #expect(try await store.keys() == ["d", "e", "f"])
            #expect(try await store.namespace(.n).evictions == 3)
            #expect(await store.missReason("b") == .evicted)
        }
    }

    @Test(arguments: Engine.allCases)
    func everyKindOfUseCounts(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, entries: 5, .leastRecentlyUsed)
            for key in ["written", "touched", "counted", "batched", "unused"] { try await store.put(key, "1") }
            try await store.put("written", "2")
            _ = try await store.touch(EntryAddress("touched"), timeToLive: nil)
            _ = try await store.increment(CacheIncrement(key: Key(stored: "counted")), namespace: .n)
            _ = try await store.batch([.get(Key(stored: "batched"))], namespace: .n, atomic: false)
            // Metadata and lists do not count as uses.
            _ = try await store.metadata(EntryAddress("unused"))
            _ = try await store.keys()
            try await store.put("new")
            #expect(try await store.keys() == ["batched", "counted", "new", "touched", "written"])
        }
    }

    @Test(arguments: Engine.allCases)
    func usesCountBeforeAndAfterTheyAreWritten(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await cap(store, entries: 3, .leastRecentlyUsed)
            for key in ["a", "b", "c"] { try await store.put(key) }
            try await use(store, "a")
            try await store.flushCounters()
            try await use(store, "b")
            try await store.put("d")
            #expect(try await store.keys() == ["a", "b", "d"])
            clock.advance(milliseconds: 5)
            try await use(store, "a")
            try await store.put("e")
            #expect(try await store.keys() == ["a", "d", "e"])
        }
    }

    // MARK: Least frequently used

    @Test(arguments: Engine.allCases)
    func theLeastFrequentlyUsedGoesFirst(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, entries: 3, .leastFrequentlyUsed)
            for key in ["a", "b", "c"] { try await store.put(key) }
            try await use(store, "a", "a", "a", "b", "b", "c")
            try await store.put("d")
            #expect(try await store.keys() == ["a", "b", "d"])
            // The one just written stays, however unused it is.
            try await store.put("e")
            #expect(try await store.keys() == ["a", "b", "e"])
            try await use(store, "e", "e", "e")
            try await store.put("f")
            #expect(try await store.keys() == ["a", "e", "f"])
        }
    }

    @Test(arguments: Engine.allCases)
    func amongEqualsTheOldestGoesFirst(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await cap(store, entries: 3, .leastFrequentlyUsed)
            try await store.put("c", lifetime: .milliseconds(1000))
            clock.advance(milliseconds: 1)
            try await store.put("b")
            clock.advance(milliseconds: 1)
            try await store.put("a")
            clock.advance(milliseconds: 1000)
            // A new one has replaced the expired one, so "b" is the oldest now.
            try await store.put("c")
            try await store.put("d")
            #expect(try await store.keys() == ["a", "c", "d"])
            try await store.put("e")
            #expect(try await store.keys() == ["c", "d", "e"])
        }
    }

    @Test(arguments: Engine.allCases)
    func aReplacedEntryKeepsItsHits(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, entries: 2, .leastFrequentlyUsed)
            try await store.put("a")
            try await store.put("b")
            try await use(store, "a", "a", "b")
            try await store.flushCounters()
            try await store.put("a", "replaced")
            try await store.put("c")
            #expect(try await store.keys() == ["a", "c"])
        }
    }

    // MARK: First in, first out

    @Test(arguments: Engine.allCases)
    func theFirstInGoesFirst(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, entries: 3, .firstInFirstOut)
            for key in ["c", "b", "a"] { try await store.put(key) }
            try await use(store, "c", "c")
            try await store.put("c", "replaced")
            _ = try await store.touch(EntryAddress("c"), timeToLive: .never)
            try await store.put("d")
            #expect(try await store.keys() == ["a", "b", "d"])
            try await store.put("e")
            #expect(try await store.keys() == ["a", "d", "e"])
        }
    }

    @Test(arguments: Engine.allCases)
    func whatIsDeletedAndWrittenAgainIsTheLastIn(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, entries: 2, .firstInFirstOut)
            try await store.put("a")
            try await store.put("b")
            try await store.delete("a")
            try await store.put("a")
            try await store.put("c")
            #expect(try await store.keys() == ["a", "c"])
        }
    }

    // MARK: Any order of uses

    /// Random writes, replacements and reads, some of them still counted in memory only: the entries that stay are
    /// those that a list of all uses predicts.
    @Test(arguments: Engine.allCases, Eviction.allCases)
    func theOrderIsThatOfAllUses(engine: Engine, eviction: Eviction) async throws {
        try await engine.run { store, clock in
            let cap = 20
            try await self.cap(store, entries: cap, eviction)
            var random = RepeatableNumbers(seed: 7)
            var entries: [String: (created: Int, used: Int, hits: Int)] = [:]
            for step in 1...600 {
                let key = "key\(Int.random(in: 0..<40, using: &random))"
                let choice = Int.random(in: 0..<10, using: &random)
                if choice < 6, entries[key] != nil {
                    try await use(store, key)
                    entries[key]!.used = step
                    entries[key]!.hits += 1
                } else {
                    try await store.put(key)
                    entries[key] = (entries[key]?.created ?? step, step, entries[key]?.hits ?? 0)
                    if entries.count > cap {
                        let victim = entries.filter { $0.key != key }.min { a, b in
                            switch eviction {
                            case .leastRecentlyUsed: a.value.used < b.value.used
                            case .leastFrequentlyUsed:
                                (a.value.hits, a.value.created) < (b.value.hits, b.value.created)
                            case .firstInFirstOut: a.value.created < b.value.created
                            }
                        }
                        entries[victim!.key] = nil
                    }
                }
                if choice == 9 { try await store.flushCounters() }
                if step % 7 == 0 { clock.advance(milliseconds: 1) }
                #expect(try await store.keys() == entries.keys.sorted(), "after step \(step)")
            }
        }
    }

    // MARK: Bytes

    @Test(arguments: Engine.allCases)
    func bytesAreHeldToo(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, bytes: 10, .firstInFirstOut)
            try await store.put("a", "1234")
            try await store.put("b", "12")
            try await store.put("c", "1234")
            #expect(try await store.namespace(.n).sizeBytes == 10)
            try await store.put("d", "12345")
            #expect(try await store.keys() == ["c", "d"])
            // An entry that grows evicts the others, not itself.
            try await store.put("c", "1234567890")
            #expect(try await store.keys() == ["c"])
            try await store.put("c", "1")
            try await store.put("e", "123456789")
            #expect(try await store.keys() == ["c", "e"])
            #expect(try await store.namespace(.n).evictions == 3)
        }
    }

    @Test(arguments: Engine.allCases)
    func aGrowingCounterHoldsTheCap(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, bytes: 3, .firstInFirstOut)
            try await store.put("counter", "9")
            try await store.put("a", "12")
            _ = try await store.increment(CacheIncrement(key: Key(stored: "counter")), namespace: .n)
            #expect(try await store.keys() == ["counter"])
            #expect(try await store.text("counter") == "10")
        }
    }

    @Test(arguments: Engine.allCases)
    func largeValuesCountAndGo(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, bytes: 250_000, .firstInFirstOut)
            for number in 0..<3 { try await store.upload("key\(number)", noise(100_000)) }
            #expect(try await store.keys() == ["key1", "key2"])
            #expect(try await store.namespace(.n).sizeBytes == 200_000)
            let swept = try await store.perform(engine.valueSweep, isDryRun: false)
            #expect(swept == Removal(removed: 1, freedBytes: 100_000))
        }
    }

    // MARK: Expired entries

    @Test(arguments: Engine.allCases, Eviction.allCases)
    func expiredEntriesLeaveFirst(engine: Engine, eviction: Eviction) async throws {
        try await engine.run { store, clock in
            try await cap(store, entries: 3, eviction)
            try await store.put("old")
            try await store.put("short", lifetime: .milliseconds(1000))
            try await store.put("young")
            try await use(store, "short", "short")
            clock.advance(milliseconds: 1000)
            try await store.put("new")
            #expect(try await store.keys() == ["new", "old", "young"])
            let namespace = try await store.namespace(.n)
            #expect((namespace.evictions, namespace.expirations) == (0, 1))
            #expect(await store.missReason("short") == .expired)
        }
    }

    @Test(arguments: Engine.allCases)
    func howeverManyAreExpiredNoLiveEntryGoesForThem(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await cap(store, bytes: 1_000_000, .firstInFirstOut)
            for number in 0..<5 { try await store.put("live\(number)", "1") }
            let count = 256 * 2 + 50
            let expiring: [CacheOperation] = (0..<count).map {
                .set(CacheWrite("short\($0)", [1], lifetime: .milliseconds(1000)))
            }
            _ = try await store.batch(expiring, namespace: .n, atomic: true)
            clock.advance(milliseconds: 1000)
            // All live entries fit, so all stay.
            try await cap(store, entries: 5, .firstInFirstOut)
            #expect(try await store.keys() == (0..<5).map { "live\($0)" })
            #expect(try await store.namespace(.n).evictions == 0)
            #expect(try await store.namespace(.n).expirations == count)
        }
    }

    // MARK: Changing the policy

    @Test(arguments: Engine.allCases)
    func aLoweredCapIsHeldAtOnce(engine: Engine) async throws {
        try await engine.run { store, _ in
            let count = 256 + 128
            let operations: [CacheOperation] = (0..<count).map { .set(CacheWrite("key\(1000 + $0)", [1])) }
            _ = try await store.batch(operations, namespace: .n, atomic: true)
            try await use(store, "key1000")
            let policy = CachePolicy(maxEntries: 2)
            #expect(try await store.setPolicy(policy, of: .n).namespace.entryCount == 2)
            #expect(try await store.keys() == ["key1000", "key\(1000 + count - 1)"])
            #expect(try await store.namespace(.n).evictions == count - 2)
        }
    }

    @Test(arguments: Engine.allCases)
    func existingEntriesAreRankedByTheirUse(engine: Engine) async throws {
        try await engine.run { store, clock in
            for key in ["a", "b", "c", "d"] {
                try await store.put(key)
                clock.advance(milliseconds: 1)
            }
            try await use(store, "b")
            clock.advance(milliseconds: 1)
            try await use(store, "a")
            try await store.flushCounters()
            clock.advance(milliseconds: 1)
            // Written after its last read: a write is a use, too.
            try await store.put("b")
            try await cap(store, entries: 2, .leastRecentlyUsed)
            #expect(try await store.keys() == ["a", "b"])
            try await store.put("e")
            #expect(try await store.keys() == ["b", "e"])
        }
    }

    @Test(arguments: Engine.allCases)
    func existingEntriesAreRankedByTheirHits(engine: Engine) async throws {
        try await engine.run { store, _ in
            for key in ["a", "b", "c"] { try await store.put(key) }
            try await use(store, "a", "c", "c")
            try await store.flushCounters()
            // Counted in memory only.
            try await use(store, "b", "b", "b")
            try await cap(store, entries: 2, .leastFrequentlyUsed)
            #expect(try await store.keys() == ["b", "c"])
        }
    }

    @Test(arguments: Engine.allCases)
    func existingEntriesAreRankedByTheirAge(engine: Engine) async throws {
        try await engine.run { store, clock in
            for key in ["c", "b", "a"] {
                try await store.put(key)
                clock.advance(milliseconds: 1)
            }
            try await store.put("c", "replaced")
            try await use(store, "c")
            try await cap(store, entries: 2, .firstInFirstOut)
            #expect(try await store.keys() == ["a", "b"])
        }
    }

    @Test(arguments: Engine.allCases)
    func anotherOrderRanksAnew(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await cap(store, entries: 3, .leastRecentlyUsed)
            for key in ["a", "b", "c"] {
                try await store.put(key)
                clock.advance(milliseconds: 1)
            }
            try await use(store, "a", "a", "b", "c")
            try await cap(store, entries: 3, .leastFrequentlyUsed)
            try await store.put("d")
            #expect(try await store.keys() == ["a", "c", "d"])
            try await cap(store, entries: 3, .firstInFirstOut)
            try await store.put("e")
            #expect(try await store.keys() == ["c", "d", "e"])
        }
    }

    @Test(arguments: Engine.allCases)
    func withoutCapsNothingGoes(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, entries: 1, .leastRecentlyUsed)
            try await store.put("a")
            try await cap(store, .leastRecentlyUsed)
            try await store.put("b")
            try await store.put("c")
            #expect(try await store.keys() == ["a", "b", "c"])
            try await use(store, "a")
            // Once capped again, entries written in between are in order.
            try await cap(store, entries: 2, .leastRecentlyUsed)
            #expect(try await store.keys() == ["a", "c"])
        }
    }

    @Test(arguments: Engine.allCases)
    func theCapHoldsUnderRacingWrites(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await cap(store, entries: 10, bytes: 100, .leastRecentlyUsed)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<200 {
                    group.addTask {
                        try await store.put("key\(number)", "1234567890123")
                        let namespace = try await store.namespace(.n)
                        #expect(namespace.entryCount <= 7 && namespace.sizeBytes <= 100)
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await store.keys().count == 7)
            #expect(try await store.namespace(.n).evictions == 193)
        }
    }
}
