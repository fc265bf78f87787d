// One range of bytes (RFC 9110, section 14).

import Domain
import Hummingbird
import NIOCore

enum ByteRange {
    /// The bytes that a `Range` header requests of a value of `length` bytes.
    ///
    /// - Returns: nil if the whole value is to be sent: for a unit other than bytes, and for several ranges, which a
    ///   server may ignore and no client of a cache needs.
    /// - Throws: `range_not_satisfiable` if the range is outside the value or invalid.
    static func parse(_ header: String, length: Int) throws(Failure) -> Range<Int>? {
        let parts = header.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].trimmed.lowercased() == "bytes" else { return nil }
        if parts[1].contains(",") { return nil }
        guard let range = resolve(parts[1].trimmed, length: length), !range.isEmpty else {
            var failure = Failure(
                .rangeNotSatisfiable, "There are \(length) bytes, and the range '\(header)' is outside of them.")
            failure.completeLength = length
            throw failure
        }
        return range
    }

    private static func resolve(_ text: String, length: Int) -> Range<Int>? {
        guard let dash = text.firstIndex(of: "-") else { return nil }
        let (first, last) = (text[..<dash], text[text.index(after: dash)...])
        if first.isEmpty {
            guard let count = number(last) else { return nil }
            return max(0, length - count)..<length
        }
        guard let start = number(first), start < length else { return nil }
        if last.isEmpty { return start..<length }
        guard let end = number(last), end >= start else { return nil }
        return start..<min(end, length - 1) + 1
    }

    /// Digits only. A number too large for `Int` becomes the largest `Int`.
    private static func number(_ text: Substring) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) else {
            return nil
        }
        return Int(text) ?? .max
    }
}

extension ResponseBody {
    /// Some bytes of a large value, read piece by piece as the client takes them.
    init(_ value: any LargeValue, _ range: Range<Int>) {
        self.init(contentLength: range.count) { writer in
            // Nothing but the part itself may be held while it waits.
            func part(from offset: Int) async throws -> ByteBuffer {
                let count = min(Downloads.all.partBytes, range.upperBound - offset)
                return ByteBuffer(bytes: try await value.read(from: offset, atMost: count))
            }
            try await Downloads.all.counting {
                var offset = range.lowerBound
                while offset < range.upperBound {
                    let part = try await part(from: offset)
                    offset += part.readableBytes
                    try await writer.write(part)
                }
            }
            try await writer.finish(nil)
        }
    }
}
