// Points in time, as the service stores and prints them.

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
public struct Instant: Hashable, Comparable, Sendable {
    public var milliseconds: Int64

    public init(milliseconds: Int64) {
        self.milliseconds = milliseconds
    }

    public static func < (a: Self, b: Self) -> Bool { a.milliseconds < b.milliseconds }

    /// The instant `milliseconds` later.
    public func advanced(milliseconds: Int64) -> Self {
        Self(milliseconds: self.milliseconds + milliseconds)
    }

    /// Milliseconds from `earlier` to here; negative when `earlier` is later.
    public func milliseconds(since earlier: Self) -> Int64 {
        milliseconds - earlier.milliseconds
    }
}

extension Instant {
    /// RFC 3339, UTC, milliseconds: `2026-11-23T07:14:00.123Z`.
    public var rfc3339: String {
        let c = CalendarTime(self)
        return String(unsafeUninitializedCapacity: 24) { out in
            var writer = DigitWriter(out)
            writer.number(c.year, width: 4)
            writer.byte("-")
            writer.number(c.month, width: 2)
            writer.byte("-")
            writer.number(c.day, width: 2)
            writer.byte("T")
            writer.time(c)
            writer.byte(".")
            writer.number(c.millisecond, width: 3)
            writer.byte("Z")
            return writer.count
        }
    }

    /// RFC 9110's IMF-fixdate, whole seconds: `Mon, 23 Nov 2026 07:14:00 GMT`.
    public var httpDate: String {
        let c = CalendarTime(self)
        return String(unsafeUninitializedCapacity: 29) { out in
            var writer = DigitWriter(out)
            writer.name(c.weekday, of: "SunMonTueWedThuFriSat")
            writer.byte(",")
            writer.byte(" ")
            writer.number(c.day, width: 2)
            writer.byte(" ")
            writer.name(c.month - 1, of: "JanFebMarAprMayJunJulAugSepOctNovDec")
            writer.byte(" ")
            writer.number(c.year, width: 4)
            writer.byte(" ")
            writer.time(c)
            for byte in " GMT".utf8 { writer.byte(Unicode.Scalar(byte)) }
            return writer.count
        }
    }
}

/// An instant taken apart in the proleptic Gregorian calendar, UTC.
struct CalendarTime {
    var year, month, day, hour, minute, second, millisecond: Int
    /// 0 is Sunday.
    var weekday: Int

    /// Years outside 0…9999 are clamped to that range: no four-digit form could print them.
    init(_ instant: Instant) {
        let first: Int64 = -62_167_219_200_000  // 0000-01-01
        let last: Int64 = 253_402_300_799_999  // 9999-12-31, its last millisecond
        let ms = min(max(instant.milliseconds, first), last)
        let days = ms.quotient(flooredBy: 86_400_000)
        let ofDay = Int(ms - days * 86_400_000)
        (hour, minute) = (ofDay / 3_600_000, ofDay / 60_000 % 60)
        (second, millisecond) = (ofDay / 1000 % 60, ofDay % 1000)
        weekday = Int((days + 4) - (days + 4).quotient(flooredBy: 7) * 7)

        // Days to year, month, day: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
        // Years begin in March there, so that the leap day is the last of its year.
        let shifted = Int(days) + 719_468
        let era = Int(Int64(shifted).quotient(flooredBy: 146_097))
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
        month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }
}

extension Int64 {
    fileprivate func quotient(flooredBy divisor: Int64) -> Int64 {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? quotient - 1 : quotient
    }
}

/// Writes fixed-width decimal fields into a string's storage: dates are printed on the hot path.
private struct DigitWriter {
    private let out: UnsafeMutableBufferPointer<UInt8>
    private(set) var count = 0

    init(_ out: UnsafeMutableBufferPointer<UInt8>) { self.out = out }

    mutating func byte(_ scalar: Unicode.Scalar) {
        out[count] = UInt8(truncatingIfNeeded: scalar.value)
        count += 1
    }

    mutating func number(_ value: Int, width: Int) {
        var rest = value
        for place in stride(from: count + width - 1, through: count, by: -1) {
            out[place] = 48 + UInt8(rest % 10)
            rest /= 10
        }
        count += width
    }

    mutating func time(_ c: CalendarTime) {
        number(c.hour, width: 2)
        byte(":")
        number(c.minute, width: 2)
        byte(":")
        number(c.second, width: 2)
    }

    /// The `index`-th of the three-letter names strung together in `names`.
    mutating func name(_ index: Int, of names: StaticString) {
        for offset in 0..<3 { byte(Unicode.Scalar(names.utf8Start[index * 3 + offset])) }
    }
}
