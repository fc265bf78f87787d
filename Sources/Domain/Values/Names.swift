// The names callers choose: validated once, at the edge, and a type of their own from there on.

/// A namespace, template, debounce or session name: 1–128 of `A–Z a–z 0–9 . _ ~ : -`, except `.` and `..`, which
/// URL normalisation would swallow.
public struct Name: Hashable, Sendable, CustomStringConvertible {
    public let rawValue: String
    public var description: String { rawValue }

    /// - Throws: `validation_failed` naming `field`.
    public init(_ rawValue: String, field: String) throws(Failure) {
        guard Self.isValid(rawValue) else {
            throw .invalid(
                field, "must be 1 to \(Limits.maxNameBytes) characters from A-Z a-z 0-9 . _ ~ : - but not '.' or '..'.")
        }
        self.rawValue = rawValue
    }

    /// A name read back from storage, where only valid ones are.
    public init(stored rawValue: String) {
        self.rawValue = rawValue
    }

    /// 128 random bits as 32 hexadecimal digits: cannot be guessed, and never comes twice.
    public static func random() -> Name {
        let digits = (0..<2).map { _ in
            let half = String(UInt64.random(in: .min ... .max), radix: 16)
            return String(repeating: "0", count: 16 - half.utf8.count) + half
        }
        return Name(stored: digits.joined())
    }

    private static func isValid(_ text: String) -> Bool {
        let bytes = text.utf8
        guard (1...Limits.maxNameBytes).contains(bytes.count), text != ".", text != ".." else { return false }
        return bytes.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"):
                true
            case UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"), UInt8(ascii: ":"), UInt8(ascii: "-"): true
            default: false
            }
        }
    }
}

/// A cache or state key: any UTF-8 without control characters, 1–512 bytes.
public struct Key: Hashable, Sendable, CustomStringConvertible {
    public let rawValue: String
    public var description: String { rawValue }

    /// - Throws: `validation_failed` naming `field`.
    public init(_ rawValue: String, field: String) throws(Failure) {
        guard (1...Limits.maxKeyBytes).contains(rawValue.utf8.count) else {
            throw .invalid(field, "must be 1 to \(Limits.maxKeyBytes) bytes of UTF-8.")
        }
        guard !rawValue.containsControlCharacter else {
            throw .invalid(field, "must not contain control characters.")
        }
        self.rawValue = rawValue
    }

    /// A key read back from storage, where only valid ones are.
    public init(stored rawValue: String) {
        self.rawValue = rawValue
    }

    /// The keys in a list, each once, in the order in which they come first.
    /// - Throws: `validation_failed` naming `field`, or the place in it.
    public static func distinct(_ texts: [String], field: String, atMost limit: Int) throws(Failure) -> [Key] {
        guard texts.count <= limit else { throw .invalid(field, "must be at most \(limit) keys.") }
        var keys: [Key] = []
        var known: Set<Key> = []
        for (index, text) in texts.enumerated() {
            let key = try Key(text, field: "\(field)[\(index)]")
            if known.insert(key).inserted { keys.append(key) }
        }
        return keys
    }

    /// Keys are the same when their bytes are, as in storage.
    public static func == (a: Self, b: Self) -> Bool { ExactText(a.rawValue) == ExactText(b.rawValue) }

    public func hash(into hasher: inout Hasher) { ExactText(rawValue).hash(into: &hasher) }
}

/// A tag: 1–128 visible ASCII characters without a comma, for a comma separates tags in their header.
public struct Tag: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let rawValue: String
    public var description: String { rawValue }

    public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }

    /// - Throws: `validation_failed` naming `field`.
    public init(_ rawValue: String, field: String) throws(Failure) {
        let bytes = rawValue.utf8
        guard (1...Limits.maxTagBytes).contains(bytes.count),
            bytes.allSatisfy({ (0x21...0x7E).contains($0) && $0 != UInt8(ascii: ",") })
        else {
            throw .invalid(
                field, "must be tags of 1 to \(Limits.maxTagBytes) visible ASCII characters without a comma.")
        }
        self.rawValue = rawValue
    }

    /// A tag read back from storage, where only valid ones are.
    public init(stored rawValue: String) {
        self.rawValue = rawValue
    }

    /// The distinct tags of a list, in order.
    /// - Throws: `validation_failed` naming `field` when one is invalid or there are too many.
    public static func set(of names: some Sequence<String>, field: String) throws(Failure) -> [Tag] {
        var tags: [Tag] = []
        for name in names {
            let tag = try Tag(name, field: field)
            if !tags.contains(tag) { tags.append(tag) }
            guard tags.count <= Limits.maxTagsPerEntry else {
                throw .invalid(field, "must be at most \(Limits.maxTagsPerEntry) tags.")
            }
        }
        return tags.sorted()
    }
}

extension String {
    /// Whether a C0 or C1 control character or DEL occurs.
    package var containsControlCharacter: Bool {
        // C1 controls are U+0080…U+009F, in UTF-8 C2 80 … C2 9F.
        var previous: UInt8 = 0
        for byte in utf8 {
            if byte < 0x20 || byte == 0x7F || (previous == 0xC2 && byte < 0xA0) { return true }
            previous = byte
        }
        return false
    }
}
