// The contract of IdempotencyStore, run over every storage engine.

import Domain
import TestSupport
import Testing

struct IdempotencyStoreTests {
    private static func request(_ key: UInt8, content: UInt8 = 0) -> KeyedRequest {
        KeyedRequest(key: Array(repeating: key, count: 32), content: Array(repeating: content, count: 32))
    }

    private static let answer = KeptAnswer(
        status: 201,
        fields: [
            .init(name: "Content-Type", value: "application/json"), .init(name: "Vary", value: "a"),
            .init(name: "Vary", value: "Größe, \"b\""),
        ],
        body: [0, 1, 255])

    private static func increment(_ store: any CacheStore, by delta: Int64 = 1) async throws -> Int64 {
        try await store.increment(
            CacheIncrement(key: "count", delta: delta, initial: 0, timeToLive: .never), namespace: .n)
    }

    @Test(arguments: Engine.allCases)
    func aChangeIsMarkedAndAnsweredAgain(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let keys = store.idempotency
            #expect(try await keys.earlierRequest(like: Self.request(1)) == nil)
            #expect(try await keys.marking(Self.request(1)) { try await Self.increment(store) } == 1)
            #expect(try await keys.earlierRequest(like: Self.request(1)) == .unanswered)
            #expect(try await keys.earlierRequest(like: Self.request(1, content: 9)) == .different)
            #expect(try await keys.earlierRequest(like: Self.request(2)) == nil)
            try await keys.keep(Self.answer, of: Self.request(1))
            #expect(try await keys.earlierRequest(like: Self.request(1)) == .answered(Self.answer))
            #expect(try await keys.earlierRequest(like: Self.request(1, content: 9)) == .different)
            _ = try await keys.marking(Self.request(3)) { try await Self.increment(store) }
        } reopened: { store, _ async throws in
            let keys = store.idempotency
            #expect(try await keys.earlierRequest(like: Self.request(1)) == .answered(Self.answer))
            #expect(try await keys.earlierRequest(like: Self.request(3)) == .unanswered)
        }
    }

    /// Whatever the first of several changes is, one mark is made.
    @Test(arguments: Engine.allCases)
    func severalChangesHaveOneMark(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let keys = store.idempotency
            try await keys.marking(Self.request(1)) {
                _ = try await Self.increment(store)
                try await store.create()
                _ = try await Self.increment(store)
            }
            try await keys.keep(Self.answer, of: Self.request(1))
            #expect(try await keys.earlierRequest(like: Self.request(1)) == .answered(Self.answer))
        }
    }

    @Test(arguments: Engine.allCases)
    func whatFailsOrChangesNothingHasNoMark(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            let keys = store.idempotency
            _ = try await Self.increment(store, by: .max)
            let overflow = await code {
                try await keys.marking(Self.request(1)) { try await Self.increment(store) }
            }
            #expect(overflow == .integerOverflow)
            #expect(try await keys.earlierRequest(like: Self.request(1)) == nil)
            try await keys.marking(Self.request(2)) { _ = try await store.read(EntryAddress("count")) }
            #expect(try await keys.earlierRequest(like: Self.request(2)) == nil)
            // Noting activity is not what a request is sent for.
            try await store.create()
            clock.advance(milliseconds: 5000)
            try await keys.marking(Self.request(3)) { _ = try await store.readSession(.s) }
            #expect(try await keys.earlierRequest(like: Self.request(3)) == nil)
            _ = try await keys.marking(Self.request(4)) {
                try await store.batch(
                    [.set(CacheWrite("a", [1])), .increment(CacheIncrement(key: "count", delta: 1))], namespace: .n,
                    atomic: true)
            }
            #expect(try await keys.earlierRequest(like: Self.request(4)) == nil)
            // Of another version, so that nothing is changed.
            let changed = try await keys.marking(Self.request(5)) {
                try await store.changeSettingOverrides(["debounce_delay": "1"], of: 99) != nil
            }
            #expect(!changed)
            #expect(try await keys.earlierRequest(like: Self.request(5)) == nil)
            // Their answers can be kept all the same.
            try await keys.keep(Self.answer, of: Self.request(1))
            #expect(try await keys.earlierRequest(like: Self.request(1)) == .answered(Self.answer))
            try await keys.keep(nil, of: Self.request(2))
            #expect(try await keys.earlierRequest(like: Self.request(2)) == .unanswered)
        }
    }

    @Test(arguments: Engine.allCases)
    func aKeyIsForgottenAfterADay(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            let keys = store.idempotency
            try await keys.keep(Self.answer, of: Self.request(1))
            clock.advance(milliseconds: 1000)
            _ = try await keys.marking(Self.request(2)) { try await Self.increment(store) }
            clock.advance(milliseconds: Limits.keyMemoryMilliseconds - 1001)
            #expect(try await keys.earlierRequest(like: Self.request(1)) == .answered(Self.answer))
            #expect(try await store.perform(.debounceMarks, isDryRun: true) == Removal())
            clock.advance(milliseconds: 1)
            #expect(try await keys.earlierRequest(like: Self.request(1)) == nil)
            #expect(try await keys.earlierRequest(like: Self.request(2)) == .unanswered)
            // It can be used again before it is swept, with another content too.
            let other = Self.request(1, content: 9)
            _ = try await keys.marking(other) { try await Self.increment(store) }
            #expect(try await keys.earlierRequest(like: other) == .unanswered)
            #expect(try await keys.earlierRequest(like: Self.request(1)) == .different)
        }
    }

    @Test(arguments: Engine.allCases)
    func forgottenKeysAreSwept(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            let keys = store.idempotency
            for key in 0..<200 as Range<UInt8> {
                try await keys.keep(key % 2 == 0 ? Self.answer : nil, of: Self.request(key))
            }
            clock.advance(milliseconds: Limits.keyMemoryMilliseconds)
            try await keys.keep(Self.answer, of: Self.request(255))
            let announced = try await store.perform(.debounceMarks, isDryRun: true)
            #expect(announced.removed == 200)
            #expect(announced.freedBytes > 100 * Self.answer.body.count)
            #expect(try await store.perform(.debounceMarks, isDryRun: false) == announced)
            #expect(try await store.perform(.debounceMarks, isDryRun: false) == Removal())
            #expect(try await keys.earlierRequest(like: Self.request(255)) == .answered(Self.answer))
        }
    }

    /// A key whose answer had to go still keeps its request from being carried out again.
    @Test(arguments: Engine.allCases)
    func theOldestAnswersGiveWay(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let keys = store.idempotency
            let large = KeptAnswer(
                status: 200, fields: [], body: noise(Limits.maxKeptAnswerBytes))
            let count = UInt8(Limits.maxKeptAnswersBytes / Limits.maxKeptAnswerBytes + 2)
            for key in 0..<count { try await keys.keep(large, of: Self.request(key)) }
            for key in 0..<count {
                let earlier = try await keys.earlierRequest(like: Self.request(key))
                #expect(earlier == (key < 3 ? .unanswered : .answered(large)), "\(key)")
            }
        }
    }
}
