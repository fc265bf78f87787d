// Reading HTTP's dates. FoundationEssentials 6.3 has no parser for them, and Swift cannot see glibc's strptime.

extension Instant {
    /// An HTTP date in any of the three forms RFC 9110, section 5.6.7 has a recipient accept; nil for anything else.
    ///
    /// The day of the week is not checked against the date, as the RFC recommends for robustness.
    /// - Parameter now: places a two-digit year, which is never more than 50 years ahead.
    public init?(httpDate text: String, now: Instant = WallClock.system.now()) {
        let parts = text.split { " ,-:".contains($0) }
        // `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT`, `Sun Nov  6 08:49:37 1994`
        let order: (day: Int, month: Int, year: Int, time: Int)
        switch parts.count {
        case 8 where parts[7] == "GMT": order = (1, 2, 3, 4)
        case 7: order = (2, 1, 6, 3)
        default: return nil
        }
        guard let month = Self.months.firstIndex(of: parts[order.month]).map({ $0 + 1 }),
            let day = Int(parts[order.day]), let writtenYear = Int(parts[order.year]),
            let hour = Int(parts[order.time]), let minute = Int(parts[order.time + 1]),
            let second = Int(parts[order.time + 2]),
            (1...31).contains(day), (0...9999).contains(writtenYear), (0...23).contains(hour),
            (0...59).contains(minute),
            (0...60).contains(second)
        else { return nil }
        var year = writtenYear
        if parts[order.year].utf8.count == 2 {
            year += CalendarTime(now).year / 100 * 100
            if year > CalendarTime(now).year + 50 { year -= 100 }
        }
        let days = CalendarTime.days(year: year, month: month, day: day)
        let result = Instant(milliseconds: Int64(days) * 86_400_000 + Int64(hour * 3600 + minute * 60 + second) * 1000)
        // The 31st of June comes out as the 1st of July: refuse what does not come out as it went in.
        let written = CalendarTime(Instant(milliseconds: Int64(days) * 86_400_000))
        guard (written.month, written.day) == (month, day) else { return nil }
        self = result
    }

    private static let months: [Substring] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]
}

extension CalendarTime {
    /// Days from 1970-01-01: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
    static func days(year: Int, month: Int, day: Int) -> Int {
        let marchYear = month <= 2 ? year - 1 : year
        let era = (marchYear >= 0 ? marchYear : marchYear - 399) / 400
        let yearOfEra = marchYear - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }
}
