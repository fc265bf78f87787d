// Names, keys and tags: what is accepted, byte by byte.

import Domain
import Testing

struct NamesTests {
    private static let everyByte = (UInt8.min...UInt8.max).map { String(Character(Unicode.Scalar($0))) }

    private func accepts(_ text: String, as kind: (String) throws -> Void) -> Bool {
        invalidFields { try kind(text) } == nil
    }

    @Test func aNameIsMadeOfTheseBytesOnly() {
        let allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~:-"
        for byte in Self.everyByte {
            // Doubled, because "." alone is refused.
            let accepted = accepts("x" + byte) { _ = try Name($0, field: "namespace") }
            #expect(accepted == allowed.contains(byte), "\(byte.unicodeScalars.first!.value)")
        }
    }

    @Test(arguments: ["a", "...", ".a", "a.", "~", "-", "0", ":", String(repeating: "a", count: 128)])
    func isAName(text: String) throws {
        #expect(try Name(text, field: "namespace").rawValue == text)
    }

    @Test(arguments: ["", ".", "..", "a b", "a/b", "ä", "a\u{0}", String(repeating: "a", count: 129)])
    func isNoName(text: String) {
        #expect(invalidFields { _ = try Name(text, field: "namespace") } == ["namespace"])
    }

    @Test func aKeyHoldsAnythingButControlCharacters() {
        for byte in Self.everyByte {
            let value = byte.unicodeScalars.first!.value
            let isControl = value < 0x20 || (0x7F..<0xA0).contains(value)
            #expect(accepts(byte) { _ = try Key($0, field: "key") } == !isControl, "\(value)")
        }
    }

    @Test func aKeyIsMeasuredInBytes() {
        let longest = String(repeating: "ä", count: 256)
        #expect(accepts(longest) { _ = try Key($0, field: "key") })
        #expect(!accepts(longest + "a") { _ = try Key($0, field: "key") })
        #expect(!accepts("") { _ = try Key($0, field: "key") })
    }

    @Test(arguments: ["a/b c", "..", "日本語", "\u{10FFFF}", "e\u{301}", "\u{A0}", "\u{2028}", "👩‍👩‍👧"])
    func isAKey(text: String) throws {
        #expect(Array(try Key(text, field: "key").rawValue.utf8) == Array(text.utf8))
    }

    /// They look alike, but are two keys to a storage that compares bytes.
    @Test func keysOfOtherBytesAreOtherKeys() throws {
        let composed = try Key("\u{E9}", field: "key")
        let decomposed = try Key("e\u{301}", field: "key")
        #expect(composed != decomposed)
        #expect(Set([composed, decomposed]).count == 2)
    }

    @Test func aTagIsVisibleASCIIWithoutComma() {
        for byte in Self.everyByte {
            let value = byte.unicodeScalars.first!.value
            let isVisible = (0x21...0x7E).contains(value) && byte != ","
            #expect(accepts(byte) { _ = try Tag($0, field: "tags") } == isVisible, "\(value)")
        }
        #expect(accepts(String(repeating: "t", count: 128)) { _ = try Tag($0, field: "tags") })
        #expect(!accepts(String(repeating: "t", count: 129)) { _ = try Tag($0, field: "tags") })
    }

    @Test func tagsAreASetInOrder() throws {
        #expect(try Tag.set(of: ["b", "a", "b"], field: "tags").map(\.rawValue) == ["a", "b"])
        let sixteen = (0..<16).map { "tag\($0)" }
        #expect(try Tag.set(of: sixteen + sixteen, field: "tags").count == 16)
        #expect(invalidFields { _ = try Tag.set(of: sixteen + ["another"], field: "tags") } == ["tags"])
        #expect(invalidFields { _ = try Tag.set(of: ["a", ""], field: "tags") } == ["tags"])
    }
}
