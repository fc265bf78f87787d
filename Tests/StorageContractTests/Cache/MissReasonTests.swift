// The contract of Domain/CacheStore.swift, run over every storage engine: the reason for a miss.

import Domain
import TestSupport
import Testing

@Suite struct MissReasonTests {
    private static let everything = EntryFilter()

    /// A miss as reported by each kind of read: all must say the same.
    private func told(_ key: String, by store: any CacheStore, in namespace: Name = .n) async throws -> CacheMiss? {
        let address = EntryAddress(key, in: namespace)
        var told = [await store.miss(key, in: namespace)]
        told.append(await failure { try await store.metadata(address) }?.miss)
        told.append(await failure { try await store.touch(address, timeToLive: nil) }?.miss)
        // A batch that only reads takes a different path from one that writes.
        for others in [[], [CacheOperation.delete(Key(stored: "another"))]] {
            let operations = [CacheOperation.get(address.key), .touch(address.key, nil)]
            for result in try await store.batch(
                (others.isEmpty ? Array(operations.prefix(1)) : operations) + others, namespace: namespace,
                atomic: false)
            {
                if case .failed(let failure) = result { told.append(failure.miss) }
            }
        }
        #expect(told.count == 6)
        #expect(Set(told).count == 1, "\(told)")
        return told[0]
    }

    private func removed(_ reason: RemovalReason, at instant: Instant) -> CacheMiss {
        CacheMiss(after: [EntryRemoval(reason, at: instant)], now: instant)
    }

    @Test(arguments: Engine.allCases)
    func everyWayOutIsToldWithItsInstant(engine: Engine) async throws {
        try await engine.run { store, clock in
            #expect(try await told("key", by: store) == .absent)
            _ = try await store.setPolicy(CachePolicy(maxEntries: 5), of: .n)
            #expect(try await told("key", by: store) == .absent)
            try await store.put("evicted")
            clock.advance(milliseconds: 10)
            for key in ["deleted", "cleared-1", "cleared-2"] { try await store.put(key, tags: ["t\(key.last!)"]) }
            try await store.put("expired", lifetime: .milliseconds(5))
            let expiry = clock.now.advanced(milliseconds: 5)
            try await store.put("new")
            let evicted = clock.now
            clock.advance(milliseconds: 10)
            try await store.delete("deleted")
            let deleted = clock.now
            clock.advance(milliseconds: 10)
            _ = try await store.clear(.n, filter: EntryFilter(prefix: "cleared-1"))
            _ = try await store.clearAll(tag: Tag(stored: "t2"))
            let cleared = clock.now
            for isSwept in [false, true] {
                if isSwept { _ = try await store.perform(.cacheExpiry, isDryRun: false) }
                clock.advance(milliseconds: 10)
                #expect(try await told("evicted", by: store) == removed(.evicted, at: evicted))
                #expect(try await told("deleted", by: store) == removed(.deleted, at: deleted))
                #expect(try await told("cleared-1", by: store) == removed(.cleared, at: cleared))
                #expect(try await told("cleared-2", by: store) == removed(.cleared, at: cleared))
                #expect(try await told("expired", by: store) == removed(.expired, at: expiry), "swept: \(isSwept)")
                #expect(try await told("key", by: store) == .absent)
            }
        }
    }

    /// The rows of a clear are removed later. It is reported from the first moment on, for the entries it cleared and
    /// no others.
    @Test(arguments: Engine.allCases)
    func aClearIsToldSweptOrNot(engine: Engine) async throws {
        try await engine.run { store, clock in
            let other = Name(stored: "other")
            try await store.put("old")
            try await store.put("both")
            try await store.put("expired", lifetime: .milliseconds(10))
            try await store.put("key", in: other)
            let expiry = clock.now.advanced(milliseconds: 10)
            clock.advance(milliseconds: 20)
            let first = clock.now
            _ = try await store.clear(.n, filter: Self.everything)
            clock.advance(milliseconds: 20)
            try await store.put("both")
            try await store.put("deleted")
            try await store.delete("deleted")
            let deleted = clock.now
            let second = clock.now
            _ = try await store.clear(.n, filter: Self.everything)
            for isSwept in [false, true] {
                if isSwept { _ = try await store.perform(.cacheExpiry, isDryRun: false) }
                clock.advance(milliseconds: 10)
                #expect(try await told("old", by: store) == removed(.cleared, at: first), "swept: \(isSwept)")
                #expect(try await told("both", by: store) == removed(.cleared, at: second))
                #expect(try await told("expired", by: store) == removed(.expired, at: expiry))
                #expect(try await told("deleted", by: store) == removed(.deleted, at: deleted))
                #expect(try await told("never", by: store) == .absent)
                #expect(await store.miss("key", in: other) == nil)
            }
            _ = try await store.clearAll(tag: nil)
            #expect(try await told("key", by: store, in: other) == removed(.cleared, at: clock.now))
        }
    }

    /// The sweep of an earlier clear does not hide what happened to the key since.
    @Test(arguments: Engine.allCases)
    func whatHappenedAfterAClearIsToldSweptOrNot(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("key")
            _ = try await store.clear(.n, filter: Self.everything)
            clock.advance(milliseconds: 10)
            try await store.put("key")
            clock.advance(milliseconds: 10)
            try await store.delete("key")
            let deleted = clock.now
            for isSwept in [false, true] {
                if isSwept { _ = try await store.perform(.cacheExpiry, isDryRun: false) }
                clock.advance(milliseconds: 10)
                #expect(try await told("key", by: store) == removed(.deleted, at: deleted), "swept: \(isSwept)")
            }
        }
    }

    /// Once a namespace is removed, nothing is known about it or its keys.
    @Test(arguments: Engine.allCases)
    func aRemovedNamespaceLeavesNoReasons(engine: Engine) async throws {
        try await engine.run { store, _ in
            for key in ["kept", "deleted"] { try await store.put(key) }
            try await store.delete("deleted")
            try await store.removeNamespace(.n)
            for isAnew in [false, true] {
                if isAnew { try await store.put("other") }
                for key in ["kept", "deleted"] { #expect(try await told(key, by: store) == .absent, "\(isAnew)") }
                _ = try await store.perform(.cacheExpiry, isDryRun: false)
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func reasonsAreForgottenAfterADaySweptOrNot(engine: Engine) async throws {
        try await engine.run { store, clock in
            for key in ["expired", "deleted", "cleared"] { try await store.put(key, lifetime: .milliseconds(1)) }
            try await store.delete("deleted")
            _ = try await store.clear(.n, filter: EntryFilter(prefix: "cleared"))
            try await store.put("all", lifetime: .never)
            _ = try await store.clear(.n, filter: Self.everything)
            try await store.put("late", lifetime: .milliseconds(1))
            clock.advance(milliseconds: Limits.removalMemoryMilliseconds)
            let reasons: [(String, MissReason)] = [
                ("deleted", .deleted), ("cleared", .cleared), ("all", .cleared), ("late", .expired),
            ]
            for (key, reason) in reasons { #expect(await store.missReason(key) == reason) }
            clock.advance(milliseconds: 2)
            for (key, _) in reasons { #expect(try await told(key, by: store) == .absent, "\(key)") }
        }
    }

    @Test(arguments: Engine.allCases)
    func missesAreCountedByTheirReason(engine: Engine) async throws {
        try await engine.run { store, clock in
            _ = try await store.setPolicy(CachePolicy(maxEntries: 3), of: .n)
            for key in ["evicted", "expired", "deleted", "cleared"] {
                try await store.put(key, lifetime: .milliseconds(key == "expired" ? 1 : 100_000))
            }
            try await store.delete("deleted")
            clock.advance(milliseconds: 1)
            _ = try await store.clear(.n, filter: Self.everything)
            for (count, reason) in MissReason.allCases.enumerated() {
                for _ in 0...count { #expect(await store.missReason(reason.rawValue) == reason) }
            }
            for isFlushed in [false, true] {
                if isFlushed { try await store.flushCounters() }
                #expect(
                    try await store.namespace(.n).misses == [
                        .absent: 1, .expired: 2, .evicted: 3, .deleted: 4, .cleared: 5,
                    ])
            }
        }
    }

    /// Many clears that have not been swept do not make a miss slow: the latest are searched, the others are reported
    /// once they are swept.
    @Test(arguments: Engine.allCases)
    func onlyTheLatestClearsAreLookedInto(engine: Engine) async throws {
        try await engine.run { store, clock in
            for number in 0...64 {
                try await store.put("key\(number)")
                _ = try await store.clear(.n, filter: Self.everything)
            }
            #expect(await store.missReason("key0") == .absent)
            #expect(await store.missReason("key1") == .cleared)
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            #expect(await store.missReason("key0") == .cleared)
        }
    }

    @Test(arguments: Engine.allCases)
    func theLatestRemovalIsToldThoughTheClockWasSetBack(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("key")
            try await store.delete("key")
            clock.advance(milliseconds: -3_600_000)
            _ = try await store.setPolicy(CachePolicy(maxEntries: 1), of: .n)
            #expect(await store.miss("key")?.removedAt == clock.now)
            try await store.put("key")
            try await store.put("other")
            #expect(await store.missReason("key") == .evicted)
        }
    }
}
