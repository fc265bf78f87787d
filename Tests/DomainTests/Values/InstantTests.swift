// Instants: RFC 3339 and HTTP dates, both ways.

import Domain
import TestSupport
import Testing

struct InstantTests {
    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00.000Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (-1, "1969-12-31T23:59:59.999Z", "Wed, 31 Dec 1969 23:59:59 GMT"),
            (784_111_777_000, "1994-11-06T08:49:37.000Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_795_418_040_123, "2026-11-23T07:14:00.123Z", "Mon, 23 Nov 2026 07:14:00 GMT"),
            // 2000 is a leap year, 1900 and 2100 are not.
            (951_782_400_000, "2000-02-29T00:00:00.000Z", "Tue, 29 Feb 2000 00:00:00 GMT"),
            (-2_203_891_200_000, "1900-03-01T00:00:00.000Z", "Thu, 01 Mar 1900 00:00:00 GMT"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z", "Mon, 01 Mar 2100 00:00:00 GMT"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z", "Thu, 29 Feb 2024 23:59:59 GMT"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z", "Fri, 31 Dec 9999 23:59:59 GMT"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z", "Sat, 01 Jan 0000 00:00:00 GMT"),
        ] as [(Int64, String, String)])
    func isPrinted(milliseconds: Int64, rfc3339: String, httpDate: String) {
        let instant = Instant(milliseconds: milliseconds)
        #expect(instant.rfc3339 == rfc3339)
        #expect(instant.httpDate == httpDate)
    }

    @Test func extremesAreClampedToFourDigitYears() {
        #expect(Instant(milliseconds: .max).rfc3339 == "9999-12-31T23:59:59.999Z")
        #expect(Instant(milliseconds: .min).rfc3339 == "0000-01-01T00:00:00.000Z")
        #expect(Instant(milliseconds: .max).httpDate == "Fri, 31 Dec 9999 23:59:59 GMT")
    }

    @Test func aDateComesBackAsItWasPrinted() {
        var numbers = RepeatableNumbers()
        for _ in 0..<2000 {
            let second = Int64.random(in: -62_167_219_200...253_402_300_799, using: &numbers)
            let instant = Instant(milliseconds: second * 1000)
            #expect(Instant(httpDate: instant.httpDate) == instant, "\(instant.httpDate)")
        }
    }

    /// RFC 9110, section 5.6.7.
    @Test(arguments: [
        "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
    ])
    func theThreeFormsMeanTheSame(text: String) {
        let now = Instant(milliseconds: 1_795_418_040_000)
        #expect(Instant(httpDate: text, now: now) == Instant(milliseconds: 784_111_777_000))
    }

    @Test func aTwoDigitYearIsAtMostFiftyYearsAhead() {
        let in2026 = Instant(milliseconds: 1_795_418_040_000)
        let fifty = Instant(httpDate: "Monday, 23-Nov-76 07:14:00 GMT", now: in2026)
        let fiftyOne = Instant(httpDate: "Monday, 23-Nov-77 07:14:00 GMT", now: in2026)
        #expect(fifty?.rfc3339 == "2076-11-23T07:14:00.000Z")
        #expect(fiftyOne?.rfc3339 == "1977-11-23T07:14:00.000Z")
    }

    @Test func theDayOfTheWeekIsNotChecked() {
        #expect(Instant(httpDate: "Mon, 06 Nov 1994 08:49:37 GMT") == Instant(milliseconds: 784_111_777_000))
    }

    @Test func aLeapSecondIsTheNextMinute() {
        #expect(
            Instant(httpDate: "Sat, 31 Dec 2016 23:59:60 GMT") == Instant(httpDate: "Sun, 01 Jan 2017 00:00:00 GMT"))
    }

    @Test(arguments: [
        "", "yesterday", "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT", "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 31 Jun 1994 08:49:37 GMT", "Sun, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 06 Nov 10000 08:49:37 GMT", "784111777",
        "Sun, 9223372036854775807 Nov 1994 08:49:37 GMT", "Sun, 99999999999999999 Nov 1994 08:49:37 GMT",
        "Sun Nov 9223372036854775807 08:49:37 1994",
    ])
    func junkIsNoDate(text: String) {
        #expect(Instant(httpDate: text) == nil)
    }

    @Test func generatedJunkIsReadOrRefused() {
        var numbers = RepeatableNumbers()
        let dates = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        for _ in 0..<5000 {
            let bytes = mutated(Array(dates.randomElement(using: &numbers)!.utf8), using: &numbers)
            guard let instant = Instant(httpDate: String(decoding: bytes, as: UTF8.self)) else { continue }
            #expect(Instant(httpDate: instant.httpDate) == instant)
        }
    }

    @Test func distancesAreSigned() {
        let instant = Instant(milliseconds: 5)
        #expect(instant.advanced(milliseconds: 7) == Instant(milliseconds: 12))
        #expect(instant.milliseconds(since: Instant(milliseconds: 12)) == -7)
        #expect(instant < Instant(milliseconds: 6))
    }
}
