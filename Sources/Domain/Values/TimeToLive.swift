// How long something lives, and the decimal seconds it is spoken in.

/// A lifetime: a positive number of milliseconds, or for ever.
public enum TimeToLive: Hashable, Sendable {
    case finite(milliseconds: Int64)
    case never

    /// The instant at which something that starts to live at `start` is gone, or nil for never.
    public func expiry(from start: Instant) -> Instant? {
        switch self {
        case .finite(let milliseconds): start.advanced(milliseconds: milliseconds)
        case .never: nil
        }
    }

    /// Milliseconds, or nil for never: the stored form.
    public var milliseconds: Int64? {
        switch self {
        case .finite(let milliseconds): milliseconds
        case .never: nil
        }
    }

    public init(storedMilliseconds: Int64?) {
        self = storedMilliseconds.map { .finite(milliseconds: $0) } ?? .never
    }

    /// A lifetime in seconds, rounded up to whole milliseconds.
    /// - Throws: `validation_failed` naming `field` unless it is positive and at most 100 years.
    public init(seconds: Double, field: String) throws(Failure) {
        guard seconds.isFinite, seconds > 0 else {
            throw .invalid(field, "must be a positive number of seconds.")
        }
        // 0.069 * 1000 is a little over 69: what a decimal of milliseconds says is taken as it says it.
        let nearest = (seconds * 1000).rounded()
        let milliseconds = nearest / 1000 == seconds ? nearest : (seconds * 1000).rounded(.up)
        guard milliseconds <= Double(Limits.maxLifetimeMilliseconds) else {
            throw .invalid(field, "must be at most \(Limits.maxLifetimeMilliseconds / 1000) seconds.")
        }
        self = .finite(milliseconds: Int64(milliseconds))
    }
}

/// Decimal seconds, as headers carry them.
public enum DecimalSeconds {
    /// Digits with an optional fraction, nothing else: no sign, no exponent, no blanks.
    /// - Returns: nil when `text` is anything else.
    public static func parse(_ text: some StringProtocol) -> Double? {
        var digits = 0
        var points = 0
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digits += 1
            case UInt8(ascii: ".") where points == 0 && digits > 0: points = 1
            default: return nil
            }
        }
        guard digits > 0, digits <= 40, !text.hasSuffix(".") else { return nil }
        return Double(text)
    }

    /// The shortest decimal of `milliseconds` in seconds: `1800`, `0.5`, `12.345`.
    public static func format(milliseconds: Int64) -> String {
        let sign = milliseconds < 0 ? "-" : ""
        let (seconds, fraction) = milliseconds.magnitude.quotientAndRemainder(dividingBy: 1000)
        guard fraction != 0 else { return "\(sign)\(seconds)" }
        var digits = String(fraction + 1000).dropFirst()
        while digits.last == "0" { digits.removeLast() }
        return "\(sign)\(seconds).\(digits)"
    }
}
