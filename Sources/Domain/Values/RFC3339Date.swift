// Reading RFC 3339's dates, in every form it allows.

extension Instant {
    /// A date and time with its offset from UTC (RFC 3339, section 5.6); nil for anything else.
    ///
    /// `T` and `Z` may be small, a space may stand for `T`. Fractions of a second may have any number of digits; what
    /// is finer than a millisecond is cut off. A leap second is the first instant of the next minute.
    public init?(rfc3339 text: String) {
        var reader = FieldReader(text.utf8)
        guard let year = reader.number(digits: 4), reader.take("-"),
            let month = reader.number(digits: 2), reader.take("-"),
            let day = reader.number(digits: 2), reader.take("T") || reader.take("t") || reader.take(" "),
            let hour = reader.number(digits: 2), reader.take(":"),
            let minute = reader.number(digits: 2), reader.take(":"),
            let second = reader.number(digits: 2), hour <= 23, minute <= 59, second <= 60
        else { return nil }
        var milliseconds = 0
        if reader.take(".") {
            guard let fraction = reader.fraction() else { return nil }
            milliseconds = fraction
        }
        guard let offset = reader.offsetMinutes(), reader.isAtEnd else { return nil }
        let days = CalendarTime.days(year: year, month: month, day: day)
        // The 31st of June comes out as the 1st of July: refuse what does not come out as it went in.
        let written = CalendarTime(Instant(milliseconds: Int64(days) * 86_400_000))
        guard (written.year, written.month, written.day) == (year, month, day) else { return nil }
        let seconds = hour * 3600 + minute * 60 + second - offset * 60
        self.init(milliseconds: Int64(days) * 86_400_000 + Int64(seconds) * 1000 + Int64(milliseconds))
    }
}

/// Takes fixed fields off the front of a text.
private struct FieldReader {
    private var rest: Substring.UTF8View

    init(_ text: String.UTF8View) { rest = text[...] }

    var isAtEnd: Bool { rest.isEmpty }

    mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard rest.first == UInt8(ascii: character) else { return false }
        rest.removeFirst()
        return true
    }

    private mutating func digit() -> Int? {
        guard let byte = rest.first, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
        rest.removeFirst()
        return Int(byte - UInt8(ascii: "0"))
    }

    mutating func number(digits: Int) -> Int? {
        var value = 0
        for _ in 0..<digits {
            guard let digit = digit() else { return nil }
            value = value * 10 + digit
        }
        return value
    }

    /// Milliseconds of one or more digits.
    mutating func fraction() -> Int? {
        guard var value = digit().map({ $0 * 100 }) else { return nil }
        var unit = 10
        while let digit = digit() {
            value += digit * unit
            unit /= 10
        }
        return value
    }

    mutating func offsetMinutes() -> Int? {
        if take("Z") || take("z") { return 0 }
        let sign = take("+") ? 1 : take("-") ? -1 : 0
        guard sign != 0, let hours = number(digits: 2), take(":"), let minutes = number(digits: 2), hours <= 23,
            minutes <= 59
        else { return nil }
        return sign * (hours * 60 + minutes)
    }
}
