// The contract of Domain/CacheStore.swift, run over every storage engine: entries.

import Domain
import Synchronization
import TestSupport
import Testing

@Suite struct CacheStoreTests {
    // MARK: Reading and writing

    @Test(arguments: Engine.allCases)
    func whatIsWrittenIsReadBack(engine: Engine) async throws {
        try await engine.run { store, clock in
            let bytes: [UInt8] = [0, 255, 13, 10, 128, 0]
            var write = CacheWrite("key", bytes, lifetime: .milliseconds(1500))
            write.description = ContentDescription(type: "audio/wav; x=\"ä\"", encoding: "gzip")
            let outcome = try await store.write(write, namespace: .n)
            let expiry = clock.now.advanced(milliseconds: 1500)
            #expect(outcome == CacheWriteOutcome(created: true, entityTag: EntityTag(of: bytes), expiresAt: expiry))
            clock.advance(milliseconds: 10)
            let hit = try await store.read(EntryAddress("key"))
            #expect(try await hit.bytes() == bytes)
            #expect(hit.description == write.description)
            #expect(hit.sizeBytes == bytes.count)
            #expect(hit.entityTag == EntityTag(of: bytes))
            #expect(hit.updatedAt == clock.now.advanced(milliseconds: -10))
            #expect(hit.expiresAt == expiry)
            #expect(hit.asOf == clock.now)
        }
    }

    @Test(
        arguments: Engine.allCases,
        [
            0, 1, Limits.maxInlineValueBytes - 1, Limits.maxInlineValueBytes, Limits.maxInlineValueBytes + 1, 200_000,
            Limits.chunkBytes * 3,
        ])
    func valuesOfAnySizeComeBack(engine: Engine, size: Int) async throws {
        try await engine.run { store, _ in
            let bytes = noise(size)
            try await store.put("whole", bytes)
            #expect(try await store.bytes("whole") == bytes)
            try await store.upload("uploaded", bytes)
            #expect(try await store.bytes("uploaded") == bytes)
            #expect(try await store.read(EntryAddress("uploaded")).sizeBytes == size)
        }
    }

    @Test(arguments: Engine.allCases)
    func aLargeValueIsReadFromAnywhere(engine: Engine) async throws {
        try await engine.run { store, _ in
            let bytes = noise(Limits.chunkBytes * 2 + 100)
            try await store.upload("key", bytes)
            guard case .large(let value) = try await store.read(EntryAddress("key")).content else {
                Issue.record("a large value was expected")
                return
            }
            for offset in [0, 1, Limits.chunkBytes - 1, Limits.chunkBytes, Limits.chunkBytes * 2 + 99] {
                let part = try await value.read(from: offset)
                #expect((1...Limits.chunkBytes).contains(part.count))
                #expect(part[...] == bytes[offset..<offset + part.count])
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func keysAndNamespacesAreApart(engine: Engine) async throws {
        try await engine.run { store, _ in
            let keys = ["a", "A", "a ", "\u{E9}", "e\u{301}", "a/b", "..", "'; DROP TABLE cache_entries; --"]
            for (number, key) in keys.enumerated() {
                try await store.put(key, "n\(number)")
                try await store.put(key, "m\(number)", in: Name(stored: "N"))
            }
            for (number, key) in keys.enumerated() {
                #expect(try await store.text(key) == "n\(number)")
                #expect(try await store.text(key, in: Name(stored: "N")) == "m\(number)")
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func aMissTellsWhy(engine: Engine) async throws {
        try await engine.run { store, clock in
            #expect(await store.missReason("key") == .absent)
            try await store.put("other")
            #expect(await store.missReason("key") == .absent)
            try await store.put("key", lifetime: .milliseconds(1000))
            #expect(await store.missReason("key") == nil)
            clock.advance(milliseconds: 1000)
            #expect(await store.missReason("key") == .expired)
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            #expect(await store.missReason("key") == .expired)
            try await store.put("key")
            try await store.delete("key")
            #expect(await store.missReason("key") == .deleted)
        }
    }

    /// The reason is that of the last entry under the key.
    @Test(arguments: Engine.allCases)
    func anOlderReasonIsForgotten(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("key", lifetime: .milliseconds(1000))
            clock.advance(milliseconds: 1000)
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            try await store.put("key")
            _ = try await store.clear(.n, filter: EntryFilter())
            #expect(await store.missReason("key") == .cleared)
            _ = try await store.perform(.cacheExpiry, isDryRun: false)
            #expect(await store.missReason("key") == .cleared)
        }
    }

    @Test(arguments: Engine.allCases)
    func anEntryIsGoneFromEveryAnswerAtItsExpiry(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("key", "1", lifetime: .milliseconds(1000), tags: ["t"])
            clock.advance(milliseconds: 999)
            #expect(try await store.keys() == ["key"])
            #expect(try await store.text("key") == "1")
            clock.advance(milliseconds: 1)
            let address = EntryAddress("key")
            #expect(await code { try await store.read(address) } == .cacheMiss)
            #expect(await code { try await store.metadata(address) } == .cacheMiss)
            #expect(await code { try await store.touch(address, timeToLive: .never) } == .cacheMiss)
            #expect(try await store.keys() == [])
            #expect(try await store.keys(tag: "t") == [])
            #expect(try await store.namespace(.n).entryCount == 0)
            #expect(try await store.namespace(.n).sizeBytes == 0)
            #expect(try await store.clear(.n, filter: EntryFilter(tag: Tag(stored: "t"))) == Removal())
            try await store.put("key", "7", condition: .add)
            #expect(try await store.text("key") == "7")
        }
    }

    @Test(arguments: Engine.allCases)
    func theLifetimeIsTheEntrysElseTheNamespacesElseTheSetting(engine: Engine) async throws {
        var settings = Settings.quick
        settings.set(.cacheTTL, to: .decimal(7), source: .file)
        try await engine.run(settings: LiveSettings(settings)) { store, clock in
            #expect(try await store.put("a").expiresAt == clock.now.advanced(milliseconds: 7000))
            _ = try await store.setPolicy(CachePolicy(timeToLive: .milliseconds(50)), of: .n)
            #expect(try await store.put("b").expiresAt == clock.now.advanced(milliseconds: 50))
            #expect(
                try await store.put("c", lifetime: .milliseconds(9)).expiresAt == clock.now.advanced(milliseconds: 9))
            #expect(try await store.put("d", lifetime: .never).expiresAt == nil)
            _ = try await store.setPolicy(CachePolicy(timeToLive: .never), of: .n)
            #expect(try await store.put("e").expiresAt == nil)
            // Lifetimes of existing entries do not change.
            let a = try await store.metadata(EntryAddress("a"))
            #expect(a.expiresAt == clock.now.advanced(milliseconds: 7000))
            clock.advance(milliseconds: 1_000_000_000_000)
            #expect(try await store.keys() == ["d", "e"])
        }
    }

    @Test(arguments: Engine.allCases)
    func aReplacedEntryKeepsItsAge(engine: Engine) async throws {
        try await engine.run { store, clock in
            let born = clock.now
            try await store.put("key", "old", lifetime: .milliseconds(5000), tags: ["old"])
            _ = try await store.read(EntryAddress("key"))
            try await store.flushCounters()
            clock.advance(milliseconds: 100)
            let outcome = try await store.put("key", "newer", tags: ["new"])
            #expect(!outcome.created)
            let metadata = try await store.metadata(EntryAddress("key"))
            #expect(metadata.createdAt == born)
            #expect(metadata.updatedAt == clock.now)
            #expect(metadata.hitCount == 1)
            #expect(metadata.sizeBytes == 5)
            #expect(metadata.tags.map(\.rawValue) == ["new"])
            #expect(metadata.entityTag == EntityTag(of: Array("newer".utf8)))
            #expect(try await store.keys(tag: "old") == [])
            #expect(try await store.keys(tag: "new") == ["key"])
            #expect(try await store.namespace(.n).entryCount == 1)
            #expect(try await store.namespace(.n).sizeBytes == 5)
        }
    }

    @Test(arguments: Engine.allCases)
    func inPlaceOfAnExpiredEntryStandsANewOne(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("key", "old", lifetime: .milliseconds(1000), tags: ["old"])
            for _ in 0..<3 { _ = try await store.read(EntryAddress("key")) }
            clock.advance(milliseconds: 1000)
            #expect(try await store.put("key", "new").created)
            try await store.flushCounters()
            let metadata = try await store.metadata(EntryAddress("key"))
            #expect(metadata.createdAt == clock.now)
            #expect(metadata.hitCount == 0)
            #expect(metadata.lastAccessedAt == nil)
            #expect(metadata.tags == [])
            #expect(try await store.namespace(.n).expirations == 1)
            #expect(try await store.namespace(.n).entryCount == 1)
            #expect(try await store.namespace(.n).sizeBytes == 3)
        }
    }

    @Test(arguments: Engine.allCases)
    func smallAndLargeReplaceEachOther(engine: Engine) async throws {
        try await engine.run { store, _ in
            for size in [10, 100_000, 0, 200_000, 150_000, 5] {
                let bytes = noise(size, seed: size)
                try await store.put("key", bytes)
                #expect(try await store.bytes("key") == bytes)
                #expect(try await store.namespace(.n).sizeBytes == size)
            }
        }
    }

    // MARK: Conditions

    @Test(arguments: Engine.allCases)
    func addStoresOnlyWhereNothingLives(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            #expect(try await store.put("key", "1", lifetime: .milliseconds(1000), condition: .add).created)
            #expect(await code { try await store.put("key", "2", condition: .add) } == .preconditionFailed)
            #expect(try await store.text("key") == "1")
            clock.advance(milliseconds: 1000)
            #expect(try await store.put("key", "3", condition: .add).created)
            #expect(try await store.text("key") == "3")
        }
    }

    @Test(arguments: Engine.allCases)
    func compareAndSetNeedsTheTag(engine: Engine) async throws {
        try await engine.run { store, _ in
            let tag = EntityTag(of: Array("1".utf8))
            let condition = EntityCondition(match: .strong(tag.hex))
            #expect(await code { try await store.put("key", "2", condition: condition) } == .preconditionFailed)
            #expect(await code { try await store.put("key", condition: .init(match: .any)) } == .preconditionFailed)
            #expect(await store.missReason("key") == .absent)
            try await store.put("key", "1")
            #expect(try await !store.put("key", "2", condition: condition).created)
            #expect(await code { try await store.put("key", "3", condition: condition) } == .preconditionFailed)
            #expect(try await store.text("key") == "2")
            try await store.put("key", "4", condition: EntityCondition(match: .any))
            #expect(try await store.text("key") == "4")
        }
    }

    @Test(arguments: Engine.allCases)
    func ifUnmodifiedSinceNeedsTheAge(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("key", "1")
            let since = EntityCondition(unmodifiedSince: clock.now)
            clock.advance(milliseconds: 2000)
            try await store.put("key", "2", condition: since)
            #expect(await code { try await store.put("key", "3", condition: since) } == .preconditionFailed)
            #expect(await code { try await store.delete(EntryAddress("key"), condition: since) } == .preconditionFailed)
            #expect(try await store.text("key") == "2")
        }
    }

    @Test(arguments: Engine.allCases)
    func whatIsRefusedLeavesNothing(engine: Engine) async throws {
        try await engine.run { store, _ in
            let condition = EntityCondition(match: .any)
            #expect(await code { try await store.put("key", condition: condition) } == .preconditionFailed)
            #expect(await code { try await store.namespace(.n) } == .namespaceNotFound)
            _ = try await store.setPolicy(CachePolicy(maxBytes: 10, maxEntryBytes: 5), of: .n)
            try await store.put("key", "12345", tags: ["t"])
            #expect(await code { try await store.put("key", "123456") } == .payloadTooLarge)
            #expect(await code { try await store.put("other", "123456") } == .payloadTooLarge)
            #expect(try await store.text("key") == "12345")
            #expect(try await store.keys() == ["key"])
            #expect(try await store.keys(tag: "t") == ["key"])
            #expect(try await store.namespace(.n).sizeBytes == 5)
        }
    }

    @Test(arguments: Engine.allCases)
    func aValueBeyondTheNamespacesBytesIsRefused(engine: Engine) async throws {
        try await engine.run { store, _ in
            _ = try await store.setPolicy(CachePolicy(maxBytes: 10), of: .n)
            try await store.put("key", "1234567890")
            #expect(await code { try await store.put("other", "12345678901") } == .payloadTooLarge)
            #expect(try await store.keys() == ["key"])
            let large = noise(100_000)
            #expect(await code { try await store.upload("other", large) } == .payloadTooLarge)
        }
    }

    // MARK: Deleting

    @Test(arguments: Engine.allCases)
    func deletingIsIdempotent(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.delete("key")
            try await store.put("key", lifetime: .milliseconds(1000), tags: ["t"])
            try await store.delete("key")
            try await store.delete("key")
            #expect(await store.missReason("key") == .deleted)
            #expect(try await store.keys(tag: "t") == [])
            #expect(try await store.namespace(.n).entryCount == 0)
            #expect(try await store.namespace(.n).sizeBytes == 0)
        }
    }

    @Test(arguments: Engine.allCases)
    func deletingTellsWhetherALiveEntryWasThere(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            let address = EntryAddress("key")
            #expect(try await !store.delete(address, condition: .none))
            try await store.put("key", lifetime: .milliseconds(1000))
            #expect(try await store.delete(address, condition: .none))
            #expect(try await !store.delete(address, condition: .none))
            try await store.put("key", lifetime: .milliseconds(1000))
            clock.advance(milliseconds: 1000)
            #expect(try await !store.delete(address, condition: .none))
        }
    }

    @Test(arguments: Engine.allCases)
    func aConditionalDeleteNeedsItsEntry(engine: Engine) async throws {
        try await engine.run { store, clock in
            let address = EntryAddress("key")
            let one = EntityCondition(match: .strong(EntityTag(of: Array("1".utf8)).hex))
            #expect(await code { try await store.delete(address, condition: one) } == .preconditionFailed)
            #expect(
                await code { try await store.delete(address, condition: .init(match: .any)) } == .preconditionFailed)
            try await store.put("key", "2", lifetime: .milliseconds(1000))
            #expect(await code { try await store.delete(address, condition: one) } == .preconditionFailed)
            #expect(try await store.text("key") == "2")
            try await store.put("key", "1", lifetime: .milliseconds(1000))
            try await store.delete(address, condition: one)
            #expect(await store.missReason("key") == .deleted)
            try await store.put("key", "1", lifetime: .milliseconds(1000))
            clock.advance(milliseconds: 1000)
            #expect(await code { try await store.delete(address, condition: one) } == .preconditionFailed)
        }
    }

    @Test(arguments: Engine.allCases)
    func deletingWhatExpiredIsAnExpiration(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("key", lifetime: .milliseconds(1000))
            clock.advance(milliseconds: 1000)
            try await store.delete("key")
            #expect(await store.missReason("key") == .expired)
            #expect(try await store.namespace(.n).expirations == 1)
        }
    }

    // MARK: Metadata

    @Test(arguments: Engine.allCases)
    func metadataIsEverythingButTheValue(engine: Engine) async throws {
        try await engine.run { store, clock in
            var write = CacheWrite("key", noise(70_000), lifetime: .milliseconds(60_000), tags: ["b", "a"])
            write.description = ContentDescription(type: nil, encoding: "br")
            write.computeSeconds = 1.25
            _ = try await store.write(write, namespace: .n)
            let born = clock.now
            clock.advance(milliseconds: 500)
            _ = try await store.read(EntryAddress("key"))
            let read = clock.now
            try await store.flushCounters()
            clock.advance(milliseconds: 500)
            let expected = CacheMetadata(
                address: EntryAddress("key"), sizeBytes: 70_000, description: write.description,
                entityTag: write.entityTag, createdAt: born, updatedAt: born,
                expiresAt: born.advanced(milliseconds: 60_000), timeToLive: .milliseconds(60_000), hitCount: 1,
                lastAccessedAt: read, tags: [Tag(stored: "a"), Tag(stored: "b")], computeSeconds: 1.25, asOf: clock.now)
            #expect(try await store.metadata(EntryAddress("key")) == expected)
            #expect(try await store.list(.n, filter: EntryFilter(), after: nil, limit: 1) == [expected])
        }
    }

    @Test(arguments: Engine.allCases)
    func metadataCountsNothing(engine: Engine) async throws {
        try await engine.run { store, clock in
            try await store.put("key", lifetime: .milliseconds(1000))
            _ = try await store.metadata(EntryAddress("key"))
            #expect(await failure { try await store.metadata(EntryAddress("absent")) }?.miss?.reason == .absent)
            clock.advance(milliseconds: 1000)
            #expect(await failure { try await store.metadata(EntryAddress("key")) }?.miss?.reason == .expired)
            let namespace = try await store.namespace(.n)
            #expect(namespace.hits == 0)
            #expect(namespace.missCount == 0)
        }
    }

    // MARK: Touching

    @Test(arguments: Engine.allCases)
    func touchingRenewsTheLifetimeFromNowOn(engine: Engine) async throws {
        try await engine.run { store, clock in
            let address = EntryAddress("key")
            try await store.put("key", lifetime: .milliseconds(1000), tags: ["t"])
            let before = try await store.metadata(address)
            clock.advance(milliseconds: 900)
            let own = try await store.touch(address, timeToLive: nil)
            #expect(own.expiresAt == clock.now.advanced(milliseconds: 1000))
            #expect(own.timeToLive == .milliseconds(1000))
            let given = try await store.touch(address, timeToLive: .milliseconds(5000))
            #expect(given.expiresAt == clock.now.advanced(milliseconds: 5000))
            clock.advance(milliseconds: 4000)
            // The given lifetime is the entry's own from then on.
            #expect(try await store.touch(address, timeToLive: nil).timeToLive == .milliseconds(5000))
            #expect(try await store.touch(address, timeToLive: .never).expiresAt == nil)
            let after = try await store.touch(address, timeToLive: nil)
            #expect(after.expiresAt == nil)
            #expect((after.updatedAt, after.entityTag) == (before.updatedAt, before.entityTag))
            #expect(after.tags == before.tags)
            #expect(after == (try await store.metadata(address)))
        }
    }

    @Test(arguments: Engine.allCases)
    func touchingAMissIsAMiss(engine: Engine) async throws {
        try await engine.run { store, clock in
            let address = EntryAddress("key")
            #expect(await failure { try await store.touch(address, timeToLive: nil) }?.miss?.reason == .absent)
            try await store.put("key", lifetime: .milliseconds(1000))
            clock.advance(milliseconds: 1000)
            #expect(await failure { try await store.touch(address, timeToLive: nil) }?.miss?.reason == .expired)
            #expect(await store.missReason("key") == .expired)
            #expect(
                await code { try await store.touch(EntryAddress("k", in: Name(stored: "m")), timeToLive: nil) }
                    == .cacheMiss)
            #expect(await code { try await store.namespace(Name(stored: "m")) } == .namespaceNotFound)
        }
    }

    @Test(arguments: Engine.allCases)
    func aConditionalTouchNeedsItsEntry(engine: Engine) async throws {
        try await engine.run { store, clock in
            let address = EntryAddress("key")
            try await store.put("key", "1", lifetime: .milliseconds(1000))
            let other = EntityCondition(match: .strong(EntityTag(of: Array("2".utf8)).hex))
            let refused = await code { try await store.touch(address, timeToLive: .never, condition: other) }
            #expect(refused == .preconditionFailed)
            #expect(try await store.metadata(address).expiresAt == clock.now.advanced(milliseconds: 1000))
            let same = EntityCondition(match: .strong(EntityTag(of: Array("1".utf8)).hex))
            #expect(try await store.touch(address, timeToLive: .never, condition: same).expiresAt == nil)
        }
    }

    // MARK: Incrementing

    private func increment(
        _ store: any CacheStore, by delta: Int64 = 1, from initial: Int64 = 0, lifetime: TimeToLive? = nil
    ) async throws -> Int64 {
        try await store.increment(
            CacheIncrement(key: Key(stored: "key"), delta: delta, initial: initial, timeToLive: lifetime),
            namespace: .n)
    }

    @Test(arguments: Engine.allCases)
    func incrementingAddsUp(engine: Engine) async throws {
        try await engine.run { store, _ in
            #expect(try await increment(store, by: 5, from: 100) == 105)
            #expect(try await increment(store, by: 5, from: 100) == 110)
            #expect(try await increment(store, by: -120) == -10)
            #expect(try await increment(store, by: 0) == -10)
            let hit = try await store.read(EntryAddress("key"))
            #expect(try await hit.bytes() == Array("-10".utf8))
            #expect(hit.description == ContentDescription(type: "application/json"))
            #expect(hit.entityTag == EntityTag(of: Array("-10".utf8)))
            #expect(try await store.namespace(.n).sizeBytes == 3)
        }
    }

    @Test(arguments: Engine.allCases)
    func incrementingKeepsTheExpiryUnlessToldOtherwise(engine: Engine) async throws {
        try await engine.run { store, clock in
            _ = try await increment(store, lifetime: .milliseconds(1000))
            let expiry = clock.now.advanced(milliseconds: 1000)
            clock.advance(milliseconds: 900)
            _ = try await increment(store)
            #expect(try await store.metadata(EntryAddress("key")).expiresAt == expiry)
            #expect(try await store.metadata(EntryAddress("key")).timeToLive == .milliseconds(1000))
            _ = try await increment(store, lifetime: .milliseconds(2000))
            #expect(try await store.metadata(EntryAddress("key")).expiresAt == clock.now.advanced(milliseconds: 2000))
            clock.advance(milliseconds: 2000)
            // Expired: it starts again, with the default lifetime.
            #expect(try await increment(store, from: 40) == 41)
            #expect(try await store.metadata(EntryAddress("key")).timeToLive == .milliseconds(300_000))
        }
    }

    @Test(
        arguments: Engine.allCases,
        ["", "1.5", "1e3", "\"1\"", "null", "1 2", "0x1", "+1", "1a", "9223372036854775808"])
    func whatIsNoIntegerIsNotAddedTo(engine: Engine, text: String) async throws {
        try await engine.run { store, _ in
            try await store.put("key", text)
            #expect(await code { try await increment(store) } == .notAnInteger)
            #expect(try await store.text("key") == text)
        }
    }

    @Test(arguments: Engine.allCases)
    func aLargeValueIsNoInteger(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await store.put("key", Array(repeating: UInt8(ascii: "1"), count: 100_000))
            #expect(await code { try await increment(store) } == .notAnInteger)
        }
    }

    @Test(arguments: Engine.allCases)
    func anyJSONIntegerIsAddedTo(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await store.put("key", " 41\r\n", tags: ["t"])
            #expect(try await increment(store) == 42)
            #expect(try await store.metadata(EntryAddress("key")).tags.map(\.rawValue) == ["t"])
            try await store.put("key", "-0")
            #expect(try await increment(store) == 1)
        }
    }

    @Test(arguments: Engine.allCases)
    func overflowChangesNothing(engine: Engine) async throws {
        try await engine.run { store, _ in
            #expect(await code { try await increment(store, by: 1, from: .max) } == .integerOverflow)
            #expect(await code { try await store.namespace(.n) } == .namespaceNotFound)
            #expect(try await increment(store, by: .max) == .max)
            #expect(await code { try await increment(store) } == .integerOverflow)
            #expect(try await store.text("key") == "9223372036854775807")
            try await store.put("key", "-9223372036854775808")
            #expect(await code { try await increment(store, by: -1) } == .integerOverflow)
            #expect(await code { try await increment(store, by: .min) } == .integerOverflow)
            #expect(try await store.text("key") == "-9223372036854775808")
            #expect(try await increment(store, by: .max) == -1)
        }
    }

    @Test(arguments: Engine.allCases)
    func aConditionalIncrementNeedsItsEntry(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            func add(_ condition: EntityCondition) async throws -> Int64 {
                try await store.increment(
                    CacheIncrement(key: Key(stored: "key"), timeToLive: .milliseconds(1000), condition: condition),
                    namespace: .n)
            }
            #expect(await code { try await add(EntityCondition(match: .any)) } == .preconditionFailed)
            #expect(try await add(.add) == 1)
            #expect(await code { try await add(.add) } == .preconditionFailed)
            #expect(try await add(EntityCondition(match: .any)) == 2)
            clock.advance(milliseconds: 1000)
            #expect(await code { try await add(EntityCondition(match: .any)) } == .preconditionFailed)
            #expect(try await add(.add) == 1)
        }
    }

    @Test(arguments: Engine.allCases)
    func aSumTooLongForItsNamespaceIsRefused(engine: Engine) async throws {
        try await engine.run { store, _ in
            _ = try await store.setPolicy(CachePolicy(maxEntryBytes: 1), of: .n)
            #expect(try await increment(store, by: 9) == 9)
            #expect(await code { try await increment(store) } == .payloadTooLarge)
            #expect(try await store.text("key") == "9")
        }
    }

    // MARK: Batches

    /// Each result as one word.
    private func words(_ results: [CacheOperationResult]) -> [String] {
        results.map { result in
            switch result {
            case .value(let hit, let bytes): "\(String(decoding: bytes, as: UTF8.self)) of \(hit.sizeBytes)"
            case .stored(let outcome): outcome.created ? "created" : "replaced"
            case .deleted: "deleted"
            case .touched(let metadata): "touched \(metadata.address.key)"
            case .counted(let sum): "\(sum)"
            case .failed(let failure): failure.code.rawValue
            }
        }
    }

    private func key(_ text: String) -> Key { Key(stored: text) }

    @Test(arguments: Engine.allCases, [false, true])
    func aBatchIsPerformedInOrder(engine: Engine, atomic: Bool) async throws {
        try await engine.run { store, _ in
            let operations: [CacheOperation] = [
                .get(key("a")), .set(CacheWrite("a", [0x31])), .get(key("a")), .set(CacheWrite("a", [0x32, 0x33])),
                .increment(CacheIncrement(key: key("a"))), .get(key("a")), .touch(key("a"), .never),
                .delete(key("a")), .get(key("a")), .delete(key("a")),
                .increment(CacheIncrement(key: key("b"), initial: 5)),
            ]
            let results = try await store.batch(operations, namespace: .n, atomic: atomic)
            #expect(
                words(results) == [
                    "cache_miss", "created", "1 of 1", "replaced", "24", "24 of 2", "touched a", "deleted",
                    "cache_miss",
                    "deleted", "6",
                ])
            #expect(try await store.keys() == ["b"])
        }
    }

    @Test(arguments: Engine.allCases)
    func inABatchEachSucceedsOrFailsOnItsOwn(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await store.put("text", "no number")
            let operations: [CacheOperation] = [
                .set(CacheWrite("a", [1])), .increment(CacheIncrement(key: key("text"))), .touch(key("absent"), nil),
                .set(CacheWrite("a", [2], condition: .add)), .set(CacheWrite("b", [1])),
            ]
            let results = try await store.batch(operations, namespace: .n, atomic: false)
            #expect(words(results) == ["created", "not_an_integer", "cache_miss", "precondition_failed", "created"])
            #expect(try await store.keys() == ["a", "b", "text"])
            #expect(try await store.bytes("a") == [1])
        }
    }

    /// Its changes before the failure are undone: here, the namespace that it would have created.
    @Test(arguments: Engine.allCases)
    func anOperationThatFailsInABatchLeavesNothing(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let needy = EntityCondition(match: .any)
            let operations: [CacheOperation] = [
                .set(CacheWrite("a", [1], condition: needy)),
                .increment(CacheIncrement(key: key("b"), condition: needy)),
            ]
            let results = try await store.batch(operations, namespace: .n, atomic: false)
            #expect(words(results) == ["precondition_failed", "precondition_failed"])
            #expect(await code { try await store.namespace(.n) } == .namespaceNotFound)
        }
    }

    @Test(arguments: Engine.allCases)
    func inAnAtomicBatchTheFirstThatFailsUndoesAll(engine: Engine) async throws {
        try await engine.run { store, _ in
            try await store.put("kept", "old")
            let operations: [CacheOperation] = [
                .set(CacheWrite("new", [1])), .delete(key("kept")), .get(key("absent")),
                .set(CacheWrite("new", [2], condition: .add)), .increment(CacheIncrement(key: key("counter"))),
            ]
            let results = try await store.batch(operations, namespace: .n, atomic: true)
            #expect(
                words(results) == [
                    "batch_aborted", "batch_aborted", "batch_aborted", "precondition_failed", "batch_aborted",
                ])
            #expect(try await store.keys() == ["kept"])
            #expect(try await store.text("kept") == "old")
        }
    }

    @Test(arguments: Engine.allCases)
    func anAtomicBatchThatFailsMakesNoNamespace(engine: Engine) async throws {
        try await engine.run { store, _ in
            let operations: [CacheOperation] = [
                .set(CacheWrite("a", [1])), .set(CacheWrite("b", [1], condition: EntityCondition(match: .any))),
            ]
            _ = try await store.batch(operations, namespace: .n, atomic: true)
            #expect(await code { try await store.namespace(.n) } == .namespaceNotFound)
        }
    }

    @Test(arguments: Engine.allCases)
    func getsInABatchAreCountedAndWhole(engine: Engine) async throws {
        try await engine.run { store, clock in
            let large = noise(300_000)
            try await store.put("large", large)
            try await store.put("short", lifetime: .milliseconds(1))
            clock.advance(milliseconds: 1)
            for operations: [CacheOperation] in [
                [.get(key("large")), .get(key("short")), .get(key("absent"))],
                [.get(key("large")), .get(key("short")), .get(key("absent")), .delete(key("absent"))],
            ] {
                let results = try await store.batch(operations, namespace: .n, atomic: false)
                guard case .value(let hit, let bytes) = results[0], case .failed(let miss) = results[1] else {
                    Issue.record("\(words(results))")
                    return
                }
                #expect(bytes == large)
                #expect(hit.entityTag == EntityTag(of: large))
                #expect(miss.miss?.reason == .expired)
            }
            let namespace = try await store.namespace(.n)
            #expect(namespace.hits == 2)
            #expect(namespace.misses == [.expired: 2, .absent: 2])
        }
    }

    @Test(arguments: Engine.allCases)
    func whatABatchAnswersIsBounded(engine: Engine) async throws {
        try await engine.run { store, _ in
            let half = [UInt8](repeating: 7, count: Limits.maxBatchAnswerBytes / 2)
            try await store.put("a", half)
            try await store.put("b", half)
            try await store.put("c", [1])
            let results = try await store.batch(
                [.get(key("a")), .get(key("b")), .get(key("c")), .get(key("absent"))], namespace: .n, atomic: false)
            guard case .value = results[0], case .value = results[1], case .failed(let refused) = results[2] else {
                Issue.record("two halves fit, and nothing more")
                return
            }
            #expect(refused.code == .payloadTooLarge)
        }
    }

    @Test(arguments: Engine.allCases)
    func anEmptyBatchIsEmpty(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            #expect(try await store.batch([], namespace: .n, atomic: true).isEmpty)
        }
    }

    // MARK: Listing

    /// In the order of their bytes.
    private static let unusualKeys = [
        " ", "%", "_", "a", "a%", "aZ", "a_", "a~", "aé", "a\u{10FFFF}", "b", "e\u{301}", "\u{A0}", "\u{E9}", "\u{7FF}",
        "\u{800}", "\u{D7FF}", "\u{E000}", "\u{FFFF}", "\u{10000}", "\u{10FFFF}", "\u{10FFFF}a",
        "\u{10FFFF}\u{10FFFF}",
    ]

    private func bytes(_ keys: [String]) -> [[UInt8]] { keys.map { Array($0.utf8) } }

    @Test(arguments: Engine.allCases)
    func entriesAreListedInTheByteOrderOfTheirKeys(engine: Engine) async throws {
        try await engine.run { store, _ in
            for key in Self.unusualKeys.reversed() { try await store.put(key, tags: ["t"]) }
            #expect(bytes(try await store.keys()) == bytes(Self.unusualKeys))
            #expect(bytes(try await store.keys(tag: "t")) == bytes(Self.unusualKeys))
        }
    }

    @Test(arguments: Engine.allCases)
    func aPrefixIsOneOfBytes(engine: Engine) async throws {
        try await engine.run { store, _ in
            for key in Self.unusualKeys { try await store.put(key, tags: ["t"]) }
            for prefix in Self.unusualKeys + ["", "c", "\u{10FFFE}", "é"] {
                let expected = bytes(Self.unusualKeys).filter { $0.starts(with: prefix.utf8) }
                #expect(bytes(try await store.keys(prefix: prefix)) == expected, "\(prefix)")
                #expect(bytes(try await store.keys(prefix: prefix, tag: "t")) == expected, "\(prefix)")
            }
        }
    }

    @Test(arguments: Engine.allCases, [1, 2, 7])
    func pagesFollowEachOther(engine: Engine, limit: Int) async throws {
        try await engine.run { store, _ in
            for key in Self.unusualKeys { try await store.put(key, tags: ["t"]) }
            for (prefix, tag) in [(nil, nil), ("a", nil), (nil, "t"), ("\u{10FFFF}", "t")] as [(String?, String?)] {
                var listed: [String] = []
                while true {
                    let page = try await store.keys(prefix: prefix, tag: tag, after: listed.last, limit: limit)
                    #expect(page.count <= limit)
                    if page.isEmpty { break }
                    listed += page
                }
                let all = try await store.keys(prefix: prefix, tag: tag)
                #expect(!all.isEmpty)
                #expect(bytes(listed) == bytes(all))
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func aPageMayBeginAfterAKeyThatIsGone(engine: Engine) async throws {
        try await engine.run { store, _ in
            for key in ["a1", "a3", "b1"] { try await store.put(key, tags: ["t"]) }
            #expect(try await store.keys(after: "a2") == ["a3", "b1"])
            #expect(try await store.keys(prefix: "a", after: "a2") == ["a3"])
            #expect(try await store.keys(prefix: "b", tag: "t", after: "a2") == ["b1"])
            #expect(try await store.keys(prefix: "a", after: "c") == [])
        }
    }

    @Test(arguments: Engine.allCases)
    func onlyLiveEntriesOfTheNamespaceAreListed(engine: Engine) async throws {
        try await engine.run { store, clock in
            #expect(try await store.keys() == [])
            try await store.put("a", lifetime: .milliseconds(1000), tags: ["t"])
            try await store.put("b", tags: ["t", "u"])
            try await store.put("c", tags: ["u"])
            try await store.put("d", in: Name(stored: "other"), tags: ["t"])
            clock.advance(milliseconds: 1000)
            #expect(try await store.keys() == ["b", "c"])
            #expect(try await store.keys(tag: "t") == ["b"])
            #expect(try await store.keys(tag: "u") == ["b", "c"])
            #expect(try await store.keys(tag: "v") == [])
            #expect(try await store.keys(in: Name(stored: "other"), tag: "t") == ["d"])
        }
    }
}
