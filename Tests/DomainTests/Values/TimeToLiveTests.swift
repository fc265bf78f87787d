// Lifetimes, and the decimal seconds that represent them.

import Domain
import Testing

struct TimeToLiveTests {
    @Test func everyMillisecondComesBack() throws {
        for milliseconds: Int64 in 1...20_000 {
            let text = DecimalSeconds.format(milliseconds: milliseconds)
            let seconds = try #require(DecimalSeconds.parse(text))
            let lifetime = try TimeToLive(seconds: seconds, field: "ttl")
            guard lifetime == .finite(milliseconds: milliseconds) else {
                Issue.record("\(text) became \(lifetime)")
                return
            }
        }
    }

    @Test(arguments: [(0.0001, 1), (0.0011, 2), (1.2341, 1235), (1e-300, 1)] as [(Double, Int64)])
    func isRoundedUpToWholeMilliseconds(seconds: Double, milliseconds: Int64) throws {
        #expect(try TimeToLive(seconds: seconds, field: "ttl") == .finite(milliseconds: milliseconds))
    }

    @Test func aHundredYearsAreTheLongest() throws {
        let longest = TimeToLive.finite(milliseconds: 3_153_600_000_000)
        #expect(try TimeToLive(seconds: 3_153_600_000, field: "ttl") == longest)
        #expect(invalidFields { _ = try TimeToLive(seconds: 3_153_600_000.001, field: "ttl") } == ["ttl"])
    }

    @Test(arguments: [0, -0.0, -1, -0.001, .infinity, -.infinity, .nan, 1e300])
    func whatIsNotPositiveOrTooLongIsRefused(seconds: Double) {
        #expect(invalidFields { _ = try TimeToLive(seconds: seconds, field: "ttl") } == ["ttl"])
    }

    @Test func expiryIsCountedFromTheStart() {
        let start = Instant(milliseconds: 1000)
        #expect(TimeToLive.finite(milliseconds: 500).expiry(from: start) == Instant(milliseconds: 1500))
        #expect(TimeToLive.never.expiry(from: start) == nil)
    }

    @Test(arguments: [TimeToLive.never, .finite(milliseconds: 1), .finite(milliseconds: 3_153_600_000_000)])
    func storedFormComesBack(lifetime: TimeToLive) {
        #expect(TimeToLive(storedMilliseconds: lifetime.milliseconds) == lifetime)
    }
}

struct DecimalSecondsTests {
    @Test(
        arguments: [("0", 0), ("1800", 1800), ("0.5", 0.5), ("12.345", 12.345), ("007", 7), ("1.", nil)]
            as [(String, Double?)])
    func isRead(text: String, seconds: Double?) {
        #expect(DecimalSeconds.parse(text) == seconds)
    }

    @Test(arguments: [
        "", ".", ".5", "1.2.3", "-1", "+1", "1e3", "0x10", " 1", "1 ", "1,5", "inf", "nan", "none", "１", "1\u{0}",
        String(repeating: "9", count: 41),
    ])
    func junkIsRefused(text: String) {
        #expect(DecimalSeconds.parse(text) == nil)
    }

    @Test(
        arguments: [
            (0, "0"), (1, "0.001"), (500, "0.5"), (1_800_000, "1800"), (12_345, "12.345"), (12_300, "12.3"),
            (-1500, "-1.5"),
            (.max, "9223372036854775.807"), (.min, "-9223372036854775.808"),
        ] as [(Int64, String)])
    func isPrintedAsShortAsPossible(milliseconds: Int64, text: String) {
        #expect(DecimalSeconds.format(milliseconds: milliseconds) == text)
    }
}
