// The result of incrementing a value.

import Domain
import TestSupport
import Testing

struct CacheIncrementTests {
    private static let now = Instant(milliseconds: 1_800_000_000_000)

    private func increment(by delta: Int64 = 1, from initial: Int64 = 0, lifetime: TimeToLive? = nil) -> CacheIncrement
    {
        CacheIncrement(key: Key(stored: "k"), delta: delta, initial: initial, timeToLive: lifetime)
    }

    @Test func withoutAnEntryItCountsFromItsStart() throws {
        #expect(try increment().apply(to: nil) == 1)
        #expect(try increment(by: -5, from: 40).apply(to: nil) == 35)
    }

    @Test(
        arguments: [
            ("0", 7), ("-0", 7), (" 41\r\n\t", 48), ("-7", 0), ("9223372036854775800", 9_223_372_036_854_775_807),
        ] as [(String, Int64)])
    func itAddsToAJSONInteger(text: String, sum: Int64) throws {
        #expect(try increment(by: 7, from: 1000).apply(to: Array(text.utf8)) == sum)
    }

    @Test(
        arguments: [
            "", " ", "x", "1.5", "1.0", "1e3", "\"1\"", "null", "[1]", "1 2", "0x1", "+1", "1a", "01", "\u{FEFF}1",
            "9223372036854775808", "-9223372036854775809",
        ])
    func whatIsNoIntegerIsRefused(text: String) async {
        #expect(await code { try increment().apply(to: Array(text.utf8)) } == .notAnInteger)
        #expect(await code { try increment().apply(to: [0x31, 0xFF]) } == .notAnInteger)
    }

    @Test func theSumStaysWithin64Bits() async throws {
        #expect(try increment(by: .max, from: 0).apply(to: nil) == .max)
        #expect(await code { try increment(by: 1, from: .max).apply(to: nil) } == .integerOverflow)
        #expect(await code { try increment(by: -1).apply(to: Array("-9223372036854775808".utf8)) } == .integerOverflow)
        #expect(try increment(by: .min).apply(to: Array("9223372036854775807".utf8)) == -1)
    }

    @Test func aSumIsStoredAsItsDigits() {
        #expect(CacheIncrement.bytes(of: -10) == Array("-10".utf8))
        #expect(CacheIncrement.bytes(of: .min) == Array("-9223372036854775808".utf8))
    }

    @Test func theExpiryStaysUnlessALifetimeIsBrought() {
        let current = (timeToLive: TimeToLive.finite(milliseconds: 1000), expiresAt: Instant?.some(Self.now))
        #expect(increment().lifetime(keeping: current, now: Self.now) == current)
        let new = increment(lifetime: .finite(milliseconds: 50)).lifetime(keeping: current, now: Self.now)
        #expect(new == (.finite(milliseconds: 50), Self.now.advanced(milliseconds: 50)))
        #expect(increment(lifetime: .never).lifetime(keeping: current, now: Self.now) == (.never, nil))
    }
}
