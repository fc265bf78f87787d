// Positions in collections, opaque to callers.

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
