// Marks and answers as rows: what is committed together, and what bounds their number.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct IdempotencyRowTests {
    private static func request(_ key: UInt8) -> KeyedRequest {
        KeyedRequest(key: Array(repeating: key, count: 32), content: [0])
    }

    private static func answer(bytes: Int) -> KeptAnswer { KeptAnswer(status: 200, fields: [], body: noise(bytes)) }

    private func marks(_ storage: SQLiteStorage) async throws -> Int64 {
        try await storage.number("SELECT count(*) FROM idempotency_marks")
    }

    /// The mark is in the transaction of the change, so that no crash comes between them.
    @Test func aMarkIsCommittedWithItsChange() async throws {
        try await withStorage { storage, _ in
            _ = try await storage.increment(CacheIncrement(key: "a", timeToLive: .never), namespace: .n)
            let groups = storage.writer.statistics.groups
            try await storage.marking(Self.request(1)) {
                _ = try await storage.increment(CacheIncrement(key: "a", timeToLive: .never), namespace: .n)
            }
            #expect(storage.writer.statistics.groups == groups + 1)
            #expect(try await marks(storage) == 1)
        }
    }

    /// In a group, the mark goes with the savepoint of its own change.
    @Test func aMarkIsRolledBackWithItsChange() async throws {
        try await withStorage { storage, _ in
            let gate = Gate()
            let holding = Task.immediate { try await storage.writer.perform { _ in gate.wait() } }
            let failing = Task.immediate {
                await code {
                    try await storage.marking(Self.request(1)) {
                        try await storage.writer.perform { connection in
                            try connection.execute("DELETE FROM runtime_settings_version")
                            throw Failure(.overloaded, "")
                        }
                    }
                }
            }
            let succeeding = Task.immediate {
                try await storage.marking(Self.request(2)) {
                    _ = try await storage.increment(CacheIncrement(key: "a", timeToLive: .never), namespace: .n)
                }
            }
            gate.open()
            try await holding.value
            #expect(await failing.value == .overloaded)
            try await succeeding.value
            #expect(try await storage.number("SELECT count(*) FROM runtime_settings_version") == 1)
            #expect(try await storage.earlierRequest(like: Self.request(1)) == nil)
            #expect(try await storage.earlierRequest(like: Self.request(2)) == .unanswered)
        }
    }

    /// A change whose mark cannot be written is not made.
    @Test func aChangeIsRolledBackWithItsMark() async throws {
        try await withStorage { storage, _ in
            try await storage.execute(
                """
                CREATE TRIGGER refusal BEFORE INSERT ON idempotency_marks BEGIN SELECT raise(ABORT, 'no'); END
                """)
            let refused = await failure {
                try await storage.marking(Self.request(1)) {
                    _ = try await storage.increment(CacheIncrement(key: "a", timeToLive: .never), namespace: .n)
                }
            }
            #expect(refused != nil)
            #expect(try await storage.number("SELECT count(*) FROM cache_entries") == 0)
        }
    }

    @Test func backgroundWorkLeavesNoMark() async throws {
        try await withStorage { storage, clock in
            try await storage.put("a", lifetime: .milliseconds(1))
            clock.advance(milliseconds: 1)
            let removal = try await storage.marking(Self.request(1)) {
                try await storage.perform(.cacheExpiry, isDryRun: false)
            }
            #expect(removal.removed == 1)
            #expect(try await marks(storage) == 0)
        }
    }

    @Test func theOldestKeysGiveWay() async throws {
        try await withStorage { storage, _ in
            let answer = Self.answer(bytes: 9)
            for key in 1...3 as ClosedRange<UInt8> { try await storage.keep(answer, of: Self.request(key)) }
            // As if there had been as many as are remembered.
            let last = Limits.maxRememberedKeys
            try await storage.execute("INSERT INTO idempotency_marks VALUES (\(last), x'00', x'00', 0)")
            try await storage.keep(answer, of: Self.request(4))
            #expect(try await storage.earlierRequest(like: Self.request(1)) == nil)
            #expect(try await storage.earlierRequest(like: Self.request(2)) != nil)
            try await storage.keep(nil, of: Self.request(5))
            #expect(try await storage.earlierRequest(like: Self.request(2)) == nil)
            // One that is known already takes the place of none.
            try await storage.keep(nil, of: Self.request(5))
            #expect(try await storage.earlierRequest(like: Self.request(3)) == .answered(answer))
            #expect(try await storage.number("SELECT count(*) FROM idempotency_answers") == 2)
        }
    }

    @Test func theTotalIsThatOfTheAnswers() async throws {
        try await withStorage { storage, clock in
            func isRight() async throws -> Bool {
                try await storage.number(
                    """
                    SELECT answer_bytes = (SELECT coalesce(sum(size_bytes), 0) FROM idempotency_answers)
                    FROM idempotency_totals
                    """) == 1
            }
            let half = Self.answer(bytes: Limits.maxKeptAnswerBytes / 2)
            for key in 0..<70 as Range<UInt8> { try await storage.keep(half, of: Self.request(key)) }
            #expect(try await isRight())
            #expect(
                try await storage.number("SELECT answer_bytes FROM idempotency_totals")
                    <= Int64(Limits.maxKeptAnswersBytes))
            clock.advance(milliseconds: Limits.keyMemoryMilliseconds)
            _ = try await storage.perform(.debounceMarks, isDryRun: false)
            #expect(try await storage.number("SELECT answer_bytes FROM idempotency_totals") == 0)
            #expect(try await isRight())
        }
    }

    /// After the clock was set back, a key would otherwise be known for longer than a day.
    @Test func marksOfTheFutureGetTheTimeOfNow() async throws {
        let folder = TemporaryFolder()
        let (clock, steady) = (ManualClock(), ManualClock(Instant(milliseconds: 0)))
        let storage = try SQLiteStorage(
            path: folder.file("reprise.db"), settings: LiveSettings(.quick), clock: clock.wallClock(steady: steady),
            logger: quietLogger)
        for key in 0..<200 as Range<UInt8> { try await storage.keep(nil, of: Self.request(key)) }
        storage.clockWatch.check()
        clock.advance(milliseconds: -30 * Limits.keyMemoryMilliseconds)
        storage.clockWatch.check()
        #expect(storage.clockWatch.needsRepair)
        try await storage.repairDeadlines()
        #expect(try await storage.earlierRequest(like: Self.request(199)) == .unanswered)
        for _ in 0..<2 { clock.advance(milliseconds: Limits.keyMemoryMilliseconds / 2) }
        #expect(try await storage.earlierRequest(like: Self.request(0)) == nil)
        #expect(try await storage.earlierRequest(like: Self.request(199)) == nil)
        await storage.close()
    }
}
