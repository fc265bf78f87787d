// Cursors: the last item of a page, in a form that needs no escaping in a URL.

import Testing

@testable import HTTPAPI

struct CursorTests {
    /// Among them texts whose base64 contains `+` and `/` and ends in one or two `=`.
    @Test(arguments: ["a", "ab", "abc", "~~~", "??>", "???", "\u{FF}\u{FE}", "ÿþý~~?", "key with spaces", "日本語"])
    func comesBackAndIsSafeInAURL(position: String) {
        let cursor = Cursor.encode(position)
        #expect(cursor.utf8.allSatisfy { ($0 >= 0x30 && $0 != 0x3D && $0 != 0x3F && $0 < 0x7F) || $0 == 0x2D })
        #expect(!cursor.contains { "+/=".contains($0) })
        #expect(Cursor.decode(cursor) == position)
    }

    @Test func isBoundedAndRefusesWhatItIsNot() {
        let longest = String(repeating: "YWFh", count: 512)
        #expect(Cursor.decode(longest) == String(repeating: "a", count: 1536))
        #expect(Cursor.decode(longest + "YWFh") == nil)
        for text in ["", "!", "a", "YQ?", "/w", "_w", "gICA"] { #expect(Cursor.decode(text) == nil, "\(text)") }
    }
}
