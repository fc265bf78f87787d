// Positions in collections, opaque to callers.

import Domain
import FoundationEssentials

/// The last item of a page, as URL-safe base64.
enum Cursor {
    static func encode(_ position: String) -> String {
        var text = Data(position.utf8).base64EncodedString()
        while text.last == "=" { text.removeLast() }
        return String(text.map { $0 == "+" ? "-" : $0 == "/" ? "_" : $0 })
    }

    static func decode(_ text: String) -> String? {
        guard !text.isEmpty, text.utf8.count <= 2048 else { return nil }
        var base64 = String(text.map { $0 == "-" ? "+" : $0 == "_" ? "/" : $0 })
        base64 += String(repeating: "=", count: (4 - base64.utf8.count % 4) % 4)
        guard let data = Data(base64Encoded: base64) else { return nil }
        return String(validating: data, as: UTF8.self)
    }
}

extension CollectionPosition {
    /// What a cursor carries.
    var text: String { "\(instant.milliseconds).\(number)" }

    init?(text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2, let instant = Int64(parts[0]), let number = Int64(parts[1]) else { return nil }
        self.init(instant: Instant(milliseconds: instant), number: number)
    }
}
