// Strict percent-encoding (RFC 3986, section 2.1): malformed input is refused, not passed through.

import Domain

enum PercentEncoding {
    /// Decodes one path segment or query part.
    /// - Parameter plusIsSpace: whether `+` means a space, which is how HTML forms and most clients encode queries.
    /// - Throws: `bad_percent_encoding` for a `%` without two hexadecimal digits and for bytes that are not UTF-8.
    static func decode(_ text: Substring, plusIsSpace: Bool = false) throws(Failure) -> String {
        let percent = UInt8(ascii: "%")
        let plus = UInt8(ascii: "+")
        guard text.utf8.contains(where: { $0 == percent || (plusIsSpace && $0 == plus) }) else { return String(text) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        var iterator = text.utf8.makeIterator()
        while let byte = iterator.next() {
            if byte == percent {
                guard let high = iterator.next().flatMap(hexValue), let low = iterator.next().flatMap(hexValue) else {
                    throw Failure(.badPercentEncoding, "A % in the URL is not followed by two hexadecimal digits.")
                }
                bytes.append(high << 4 | low)
            } else {
                bytes.append(plusIsSpace && byte == plus ? UInt8(ascii: " ") : byte)
            }
        }
        guard let decoded = String(validating: bytes, as: UTF8.self) else {
            throw Failure(.badPercentEncoding, "The percent-encoded bytes in the URL are not UTF-8.")
        }
        return decoded
    }

    private static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
