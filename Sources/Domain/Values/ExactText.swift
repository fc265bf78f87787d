// Comparing texts as storage and other languages do.

/// A text that is the same as another when its bytes are. Swift's own comparison takes two spellings of one `é`, a
/// letter or a letter and an accent, for the same string; to SQLite and to JSON they are two.
/// So callers' texts are compared, ordered and looked up as this.
public struct ExactText: Hashable, Comparable, Sendable {
    public let text: String

    public init(_ text: String) { self.text = text }

    public static func == (a: Self, b: Self) -> Bool {
        a.text.utf8.count == b.text.utf8.count && a.text.utf8.elementsEqual(b.text.utf8)
    }

    /// By bytes, which is the order of code points and of SQLite.
    public static func < (a: Self, b: Self) -> Bool { a.text.utf8.lexicographicallyPrecedes(b.text.utf8) }

    public func hash(into hasher: inout Hasher) {
        var text = text
        text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    }
}
