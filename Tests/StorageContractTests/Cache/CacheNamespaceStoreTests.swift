// The contract of Domain/CacheStore.swift, run over every storage engine: namespaces, clearing, statistics.

import Domain
import TestSupport
import Testing

@Suite struct CacheNamespaceStoreTests {
    private let other = Name(stored: "other")

    // MARK: Clearing

    @Test(arguments: Engine.allCases)
    func clearingTakesEverythingAtOnce(engine: Engine) async throws {
        try await engine.run { store, clock in
            _ = try await store.setPolicy(CachePolicy(maxEntries: 100), of: .n)
            for number in 0..<10 { try await store.put("key\(number)", "12345", tags: ["t"]) }
            try await store.put("expired", lifetime: .milliseconds(1000))
            try await store.put("kept", in: other)
            clock.advance(milliseconds: 1000)
            #expect(try await store.clear(.n, filter: EntryFilter()) == Removal(removed: 10, freedBytes: 50))
            #expect(try await store.keys() == [])
            #expect(try await store.keys(tag: "t") == [])
            #expect(await store.missReason("key0") == .cleared)
            #expect(try await store.keys(in: other) == ["kept"])
            let namespace = try await store.namespace(.n)
            #expect((namespace.entryCount, namespace.sizeBytes) == (0, 0))
            #expect(namespace.policy.maxEntries == 100)
            #expect(try await store.clear(.n, filter: EntryFilter()) == Removal())
        }
    }

    @Test(arguments: Engine.allCases)
    func whatIsWrittenAfterAClearIsNew(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("key", "old", tags: ["t"])
            _ = try await store.clear(.n, filter: EntryFilter())
            clock.advance(milliseconds: 5)
            #expect(try await store.put("key", "new", tags: ["t"]).created)
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            #expect(try await store.text("key") == "new")
            #expect(try await store.keys(tag: "t") == ["key"])
            #expect(try await store.metadata(EntryAddress("key")).createdAt == clock.now)
            #expect(try await store.namespace(.n).entryCount == 1)
        }
    }

    @Test(arguments: Engine.allCases)
    func clearingWhatIsNotThereRemovesNothing(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            #expect(try await store.clear(.n, filter: EntryFilter()) == Removal())
            #expect(try await store.clear(.n, filter: EntryFilter(prefix: "a")) == Removal())
            #expect(await code { try await store.namespace(.n) } == .namespaceNotFound)
        }
    }

    @Test(arguments: Engine.allCases)
    func aFilterTakesOnlyItsOwn(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("a1", "12", tags: ["t"])
            try await store.put("a2", "123", tags: ["u"])
            clock.advance(milliseconds: 10_000)
            try await store.put("a3", "1234", tags: ["t", "u"])
            try await store.put("b1", "12345", tags: ["t"])
            try await store.put("a1", "kept", in: other, tags: ["t"])
            clock.advance(milliseconds: 10_000)
            let tag = Tag(stored: "t")
            let young = EntryFilter(prefix: "a", tag: tag, olderThanMilliseconds: 15_000)
            #expect(try await store.clear(.n, filter: young) == Removal(removed: 1, freedBytes: 2))
            #expect(try await store.keys() == ["a2", "a3", "b1"])
            let both = EntryFilter(prefix: "a", tag: tag)
            #expect(try await store.clear(.n, filter: both) == Removal(removed: 1, freedBytes: 4))
            #expect(try await store.clear(.n, filter: EntryFilter(tag: tag)) == Removal(removed: 1, freedBytes: 5))
            #expect(try await store.keys() == ["a2"])
            #expect(try await store.clear(.n, filter: EntryFilter(olderThanMilliseconds: 25_000)) == Removal())
            #expect(
                try await store.clear(.n, filter: EntryFilter(olderThanMilliseconds: 15_000))
                    == Removal(removed: 1, freedBytes: 3))
            #expect(try await store.keys(in: other) == ["a1"])
            let namespace = try await store.namespace(.n)
            #expect((namespace.entryCount, namespace.sizeBytes) == (0, 0))
        }
    }

    /// Reports the same as the clear, and changes nothing.
    @Test(arguments: Engine.allCases)
    func aDryRunOnlyCounts(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("expired", lifetime: .milliseconds(1000), tags: ["t"])
            for key in ["a1", "a2"] { try await store.put(key, "12", tags: ["t"]) }
            try await store.put("a3", "123", in: other, tags: ["t"])
            try await store.put("cleared", in: Name(stored: "cleared"), tags: ["t"])
            _ = try await store.clear(Name(stored: "cleared"), filter: EntryFilter())
            clock.advance(milliseconds: 1000)
            try await store.put("a1", "1", tags: ["t"])
            let filters = [
                EntryFilter(olderThanMilliseconds: 500), EntryFilter(prefix: "a"), EntryFilter(tag: Tag(stored: "t")),
                EntryFilter(),
            ]
            var announced: [Removal] = []
            for filter in filters { announced.append(try await store.clear(.n, filter: filter, isDryRun: true)) }
            #expect(
                announced == [
                    Removal(removed: 1, freedBytes: 2), Removal(removed: 2, freedBytes: 3),
                    Removal(removed: 2, freedBytes: 3), Removal(removed: 2, freedBytes: 3),
                ])
            for tag in [Tag(stored: "t"), nil] {
                let announced = try await store.clearAll(tag: tag, isDryRun: true)
                #expect(announced == Removal(removed: 3, freedBytes: 6))
            }
            #expect(try await store.keys() == ["a1", "a2"])
            #expect(try await store.clear(.n, filter: filters[1]) == announced[1])
            #expect(try await store.clearAll(tag: nil, isDryRun: true) == Removal(removed: 1, freedBytes: 3))
            #expect(try await store.clearAll(tag: Tag(stored: "t")) == Removal(removed: 1, freedBytes: 3))
        }
    }

    /// Entries written before the clock was set back were written before the clear.
    @Test(arguments: Engine.allCases)
    func aClearDoesNotDependOnTheClock(engine: Engine) async throws {
        try await engine.run { store, clock in
            for key in ["a1", "a2", "b"] { try await store.put(key, "12", tags: [key == "b" ? "t" : "u"]) }
            _ = try await store.increment(CacheIncrement(key: Key(stored: "a3")), namespace: .n)
            clock.advance(milliseconds: -3_600_000)
            #expect(try await store.clear(.n, filter: EntryFilter(olderThanMilliseconds: 0)) == Removal())
            #expect(
                try await store.clear(.n, filter: EntryFilter(prefix: "a")) == Removal(removed: 3, freedBytes: 5))
            #expect(try await store.clearAll(tag: Tag(stored: "t")) == Removal(removed: 1, freedBytes: 2))
            #expect(try await store.keys() == [])
            #expect(await store.missReason("a1") == .cleared)
        }
    }

    @Test(arguments: Engine.allCases)
    func clearingByPrefixGoesInSteps(engine: Engine) async throws {
        try await engine.run { store, _ in
            let count = 128 * 2 + 10
            let operations: [CacheOperation] = (0..<count).map { .set(CacheWrite("a\($0)", [1])) }
            _ = try await store.batch(operations + [.set(CacheWrite("b", [1]))], namespace: .n, atomic: true)
            #expect(
                try await store.clear(.n, filter: EntryFilter(prefix: "a"))
                    == Removal(removed: count, freedBytes: count))
            #expect(try await store.keys() == ["b"])
        }
    }

    @Test(arguments: Engine.allCases)
    func ageIsCountedFromTheLatestWrite(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("written")
            try await store.put("touched", lifetime: .milliseconds(60_000))
            clock.advance(milliseconds: 10_000)
            try await store.put("written")
            _ = try await store.touch(EntryAddress("touched"), timeToLive: nil)
            let removal = try await store.clear(.n, filter: EntryFilter(olderThanMilliseconds: 5000))
            #expect(removal.removed == 1)
            #expect(try await store.keys() == ["written"])
        }
    }

    @Test(arguments: Engine.allCases)
    func expiredEntriesAreNoOnesRemoval(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("a", lifetime: .milliseconds(1000), tags: ["t"])
            try await store.put("b", tags: ["t"])
            clock.advance(milliseconds: 1000)
            #expect(try await store.clear(.n, filter: EntryFilter(tag: Tag(stored: "t"))).removed == 1)
            #expect(await store.missReason("a") == .expired)
            #expect(try await store.namespace(.n).expirations == 1)
        }
    }

    @Test(arguments: Engine.allCases)
    func aTagIsClearedAcrossNamespaces(engine: Engine) async throws {
        try await engine.run { store, _ in
            for namespace in [Name.n, other] {
                try await store.put("a", "123", in: namespace, tags: ["t"])
                try await store.put("b", "123", in: namespace, tags: ["u"])
            }
            // A cleared namespace's rows no longer count.
            try await store.put("a", in: Name(stored: "cleared"), tags: ["t"])
            _ = try await store.clear(Name(stored: "cleared"), filter: EntryFilter())
            #expect(try await store.clearAll(tag: Tag(stored: "t")) == Removal(removed: 2, freedBytes: 6))
            #expect(try await store.keys() == ["b"])
            #expect(try await store.keys(in: other) == ["b"])
            #expect(try await store.clearAll(tag: Tag(stored: "t")) == Removal())
        }
    }

    @Test(arguments: Engine.allCases)
    func everythingIsCleared(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await store.put("a", "123")
            try await store.put("b", "12", in: other)
            _ = try await store.setPolicy(CachePolicy(maxEntries: 5), of: other)
            #expect(try await store.clearAll(tag: nil) == Removal(removed: 2, freedBytes: 5))
            #expect(try await store.keys() == [])
            #expect(try await store.keys(in: other) == [])
            #expect(try await store.namespace(other).policy.maxEntries == 5)
            #expect(try await store.clearAll(tag: nil) == Removal())
        }
    }

    // MARK: Namespaces

    @Test(arguments: Engine.allCases)
    func aNamespaceSpringsUpWithDefaults(engine: Engine) async throws {
        try await engine.run { store, _ in
            #expect(await code { try await store.namespace(.n) } == .namespaceNotFound)
            try await store.put("key", "12345")
            #expect(
                try await store.namespace(.n)
                    == CacheNamespace(
                        name: .n, policy: CachePolicy(), entryCount: 1, sizeBytes: 5, hits: 0, misses: [:],
                        expirations: 0,
                        evictions: 0))
        }
    }

    @Test(arguments: Engine.allCases)
    func aPolicyMakesItsNamespace(engine: Engine) async throws {
        try await engine.run { store, _ in
            let policy = CachePolicy(
                timeToLive: .milliseconds(5), maxEntries: 1, maxBytes: 2, maxEntryBytes: 3,
                eviction: .leastFrequentlyUsed)
            let first = try await store.setPolicy(policy, of: .n)
            #expect(first.created)
            #expect(first.namespace.policy == policy)
            let second = try await store.setPolicy(CachePolicy(timeToLive: .never), of: .n)
            #expect(!second.created)
            #expect(second.namespace.policy == CachePolicy(timeToLive: .never))
            #expect(try await store.namespace(.n) == second.namespace)
        }
    }

    @Test(arguments: Engine.allCases)
    func namespacesAreListedByName(engine: Engine) async throws {
        try await engine.run { store, _ in
            for name in ["b", "a", "B", "~", "c"] { try await store.put("key", in: Name(stored: name)) }
            func names(_ after: String?, _ limit: Int) async throws -> [String] {
                try await store.namespaces(after: after, limit: limit).map(\.name.rawValue)
            }
            #expect(try await names(nil, 10) == ["B", "a", "b", "c", "~"])
            #expect(try await names(nil, 2) == ["B", "a"])
            #expect(try await names("a", 2) == ["b", "c"])
            #expect(try await names("aa", 2) == ["b", "c"])
            #expect(try await names("~", 2) == [])
            #expect(try await store.namespaces(after: nil, limit: 1) == [store.namespace(Name(stored: "B"))])
        }
    }

    @Test(arguments: Engine.allCases)
    func removingANamespaceTakesEntriesFiguresAndPolicy(engine: Engine) async throws {
        try await engine.run { store, clock in
            _ = try await store.setPolicy(CachePolicy(timeToLive: .never, maxEntries: 5), of: .n)
            try await store.put("key", tags: ["t"])
            _ = try await store.read(EntryAddress("key"))
            try await store.put("expired", lifetime: .milliseconds(1))
            clock.advance(milliseconds: 1)
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            try await store.removeNamespace(.n)
            #expect(await code { try await store.namespace(.n) } == .namespaceNotFound)
            #expect(await code { try await store.removeNamespace(.n) } == .namespaceNotFound)
            #expect(try await store.keys() == [])
            #expect(try await store.keys(tag: "t") == [])
            #expect(await store.missReason("key") == .absent)
            #expect(try await store.namespaces(after: nil, limit: 10) == [])
            try await store.put("new", "123")
            try await store.flushCounters()
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            #expect(
                try await store.namespace(.n)
                    == CacheNamespace(
                        name: .n, policy: CachePolicy(), entryCount: 1, sizeBytes: 3, hits: 0, misses: [:],
                        expirations: 0,
                        evictions: 0))
            #expect(await store.missReason("expired") == .absent)
        }
    }

    @Test(arguments: Engine.allCases)
    func anEmptyNamespaceIsRemoved(engine: Engine) async throws {
        try await engine.run { store, _ in
            _ = try await store.setPolicy(CachePolicy(), of: .n)
            try await store.removeNamespace(.n)
            #expect(await code { try await store.namespace(.n) } == .namespaceNotFound)
        }
    }

    // MARK: Statistics

    @Test(arguments: Engine.allCases)
    func readsAreCountedWithTheirReasons(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("key", lifetime: .milliseconds(1000))
            for _ in 0..<3 { _ = try await store.read(EntryAddress("key")) }
            _ = await store.missReason("absent")
            clock.advance(milliseconds: 1000)
            _ = await store.missReason("key")
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            _ = await store.missReason("key")
            for isFlushed in [false, true] {
                if isFlushed { try await store.flushCounters() }
                let namespace = try await store.namespace(.n)
                #expect(namespace.hits == 3)
                #expect(namespace.misses == [.absent: 1, .expired: 2])
                #expect(namespace.hitRatio == 0.5)
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func expirationsAreCountedOnceHoweverTheEntryGoes(engine: Engine) async throws {
        try await engine.run { store, clock in
            for key in ["swept", "replaced", "deleted", "cleared"] {
                try await store.put(key, lifetime: .milliseconds(1000))
            }
            try await store.put("live")
            #expect(try await store.namespace(.n).expirations == 0)
            clock.advance(milliseconds: 1000)
            #expect(try await store.namespace(.n).expirations == 4)
            try await store.put("replaced")
            #expect(try await store.namespace(.n).expirations == 4)
            try await store.delete("deleted")
            #expect(try await store.namespace(.n).expirations == 4)
            _ = try await store.clear(.n, filter: EntryFilter(prefix: "cleared"))
            #expect(try await store.namespace(.n).expirations == 4)
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            #expect(try await store.namespace(.n).expirations == 4)
        }
    }

    @Test(arguments: Engine.allCases)
    func aClearDoesNotTakeExpirationsBack(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("expired", lifetime: .milliseconds(1000))
            try await store.put("live", lifetime: .milliseconds(5000))
            clock.advance(milliseconds: 1000)
            _ = try await store.clear(.n, filter: EntryFilter())
            #expect(try await store.namespace(.n).expirations == 1)
            clock.advance(milliseconds: 5000)
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            #expect(try await store.namespace(.n).expirations == 1)
        }
    }

    @Test(arguments: Engine.allCases)
    func sizesFollowEveryChange(engine: Engine) async throws {
        try await engine.run { store, clock in
            func figures() async throws -> [Int] {
                let namespace = try await store.namespace(.n)
                return [namespace.entryCount, namespace.sizeBytes]
            }
            try await store.put("a", "12345")
            #expect(try await figures() == [1, 5])
            try await store.put("a", "1")
            #expect(try await figures() == [1, 1])
            try await store.put("b", noise(100_000), lifetime: .milliseconds(1000))
            #expect(try await figures() == [2, 100_001])
            _ = try await store.increment(CacheIncrement(key: Key(stored: "c"), initial: 99), namespace: .n)
            #expect(try await figures() == [3, 100_004])
            clock.advance(milliseconds: 1000)
            #expect(try await figures() == [2, 4])
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            #expect(try await figures() == [2, 4])
            try await store.delete("a")
            #expect(try await figures() == [1, 3])
        }
    }
}
