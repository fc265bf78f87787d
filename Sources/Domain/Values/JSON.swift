// JSON texts as values. Why not JSONDecoder: docs/design/json.md.

/// A JSON text (RFC 8259), kept as it was sent: numbers keep their digits, so an integer beyond 64 bits or a decimal
/// no `Double` can hold comes back as it went in, and members keep their order.
public enum JSON: Sendable, Equatable {
    case null
    case bool(Bool)
    /// The number's own text, valid by RFC 8259's grammar.
    case number(String)
    case string(String)
    case array([JSON])
    case object([Member])
    /// A text known to be valid, written unchanged: stored values in an answer. The parser creates none.
    case verbatim(JSONText)

    /// One name and value of an object.
    public struct Member: Sendable, Equatable {
        public var name: String
        public var value: JSON

        public init(name: String, value: JSON) {
            self.name = name
            self.value = value
        }
    }
}

// MARK: Building

extension JSON: ExpressibleByDictionaryLiteral, ExpressibleByArrayLiteral, ExpressibleByStringLiteral,
    ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral, ExpressibleByNilLiteral
{
    public init(dictionaryLiteral elements: (String, JSON)...) {
        self = .object(elements.map { Member(name: $0.0, value: $0.1) })
    }
    public init(arrayLiteral elements: JSON...) { self = .array(elements) }
    public init(stringLiteral value: String) { self = .string(value) }
    public init(integerLiteral value: Int64) { self = .number(String(value)) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(nilLiteral: ()) { self = .null }

    public static func integer(_ value: some BinaryInteger) -> JSON { .number(String(value)) }
    /// The shortest decimal that reads back as `value`; null when it is not finite, which JSON cannot say.
    public static func decimal(_ value: Double) -> JSON {
        guard value.isFinite else { return .null }
        if value == value.rounded(), value.magnitude < 1e15 { return .number(String(Int64(value))) }
        return .number("\(value)")
    }
    /// Milliseconds as decimal seconds.
    public static func seconds(milliseconds: Int64) -> JSON {
        .number(DecimalSeconds.format(milliseconds: milliseconds))
    }
    public static func instant(_ instant: Instant) -> JSON { .string(instant.rfc3339) }

    /// `transform` of a value that may be missing; null without one.
    public static func optional<T>(_ value: T?, _ transform: (T) -> JSON) -> JSON {
        value.map(transform) ?? .null
    }
}

// MARK: Reading values

extension JSON {
    /// The integer this number is, written with or without a fraction of zeros; nil for anything else or beyond 64
    /// bits.
    public var integerValue: Int64? {
        guard case .number(let text) = self else { return nil }
        if let value = Int64(text) { return value }
        guard let value = Double(text), value == value.rounded(), value.magnitude < 9_007_199_254_740_992 else {
            return nil
        }
        return Int64(value)
    }

    /// The finite `Double` nearest to this number; nil for anything else.
    public var doubleValue: Double? {
        guard case .number(let text) = self, let value = Double(text), value.isFinite else { return nil }
        return value
    }

    public var stringValue: String? {
        guard case .string(let value) = self else { return nil }
        return value
    }

    /// The first member of this object called `name`.
    public subscript(name: String) -> JSON? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.name == name }?.value
    }
}

// MARK: Writing

extension JSON {
    /// The text, without insignificant white space, as UTF-8.
    public var utf8: [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(256)
        write(to: &out)
        return out
    }

    public var text: String { String(decoding: utf8, as: UTF8.self) }

    public func write(to out: inout [UInt8]) {
        switch self {
        case .null: out.append(contentsOf: "null".utf8)
        case .bool(let value): out.append(contentsOf: (value ? "true" : "false").utf8)
        case .number(let digits): out.append(contentsOf: digits.utf8)
        case .string(let value): Self.write(value, to: &out)
        case .array(let items):
            out.append(UInt8(ascii: "["))
            for (index, item) in items.enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                item.write(to: &out)
            }
            out.append(UInt8(ascii: "]"))
        case .object(let members):
            out.append(UInt8(ascii: "{"))
            for (index, member) in members.enumerated() {
                if index > 0 { out.append(UInt8(ascii: ",")) }
                Self.write(member.name, to: &out)
                out.append(UInt8(ascii: ":"))
                member.value.write(to: &out)
            }
            out.append(UInt8(ascii: "}"))
        case .verbatim(let text): out.append(contentsOf: text.bytes)
        }
    }

    private static func write(_ string: String, to out: inout [UInt8]) {
        var string = string
        out.append(UInt8(ascii: "\""))
        string.withUTF8 { bytes in
            var rest = bytes[...]
            while let escaped = rest.firstIndex(where: mustBeEscaped) {
                out.append(contentsOf: rest[..<escaped])
                writeEscape(of: rest[escaped], to: &out)
                rest = rest[(escaped + 1)...]
            }
            out.append(contentsOf: rest)
        }
        out.append(UInt8(ascii: "\""))
    }

    private static func mustBeEscaped(_ byte: UInt8) -> Bool {
        byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\")
    }

    private static func writeEscape(of byte: UInt8, to out: inout [UInt8]) {
        out.append(UInt8(ascii: "\\"))
        switch byte {
        case UInt8(ascii: "\n"): out.append(UInt8(ascii: "n"))
        case UInt8(ascii: "\r"): out.append(UInt8(ascii: "r"))
        case UInt8(ascii: "\t"): out.append(UInt8(ascii: "t"))
        case 0..<0x20:
            out.append(contentsOf: "u00".utf8)
            out.append(hexDigits[Int(byte >> 4)])
            out.append(hexDigits[Int(byte & 15)])
        default: out.append(byte)
        }
    }

    private static let hexDigits = Array("0123456789abcdef".utf8)
}

// MARK: Parsing

extension JSON {
    /// The value of a whole JSON text.
    ///
    /// Stricter than many parsers where leniency would lose data silently: a name twice in one object, an unpaired
    /// surrogate and invalid UTF-8 are refused.
    /// - Parameters:
    ///   - memory: where the memory that the value takes is counted, while it grows.
    ///   - bound: the list whose length is limited.
    /// - Throws: `malformed_json` with the byte at which reading stopped; what `memory` and `bound` throw.
    public init(
        parsing bytes: some Sequence<UInt8>, memory: (any JSONMemory)? = nil, bound: JSONListBound? = nil
    ) throws(Failure) {
        self = try Self.withParser(of: bytes, keepsValues: true, memory: memory, bound: bound)
    }

    /// Whether this is a JSON text, by the same rules. Takes no memory for its values.
    public static func isValid(_ bytes: some Sequence<UInt8>) -> Bool {
        (try? withParser(of: bytes, keepsValues: false)) != nil
    }

    private static func withParser(
        of bytes: some Sequence<UInt8>, keepsValues: Bool, memory: (any JSONMemory)? = nil, bound: JSONListBound? = nil
    ) throws(Failure) -> JSON {
        func parse(_ buffer: UnsafeBufferPointer<UInt8>) -> Result<JSON, Failure> {
            var parser = JSONParser(buffer, keepsValues: keepsValues, memory: memory, bound: bound)
            do throws(Failure) {
                return .success(try parser.parseText())
            } catch {
                return .failure(error)
            }
        }
        let result =
            bytes.withContiguousStorageIfAvailable(parse)
            ?? ContiguousArray(bytes).withUnsafeBufferPointer(parse)
        return try result.get()
    }
}

/// Where the memory of a value being parsed is accounted for.
public protocol JSONMemory {
    /// - Throws: a failure if `count` more bytes are too many.
    func take(_ count: Int) throws(Failure)
}

/// The most items that one array, a member of the outermost object, may have. A longer one is refused at the first item
/// too many, so that the rest is not parsed in vain.
public struct JSONListBound: Sendable {
    let name: String
    let maxItems: Int
    let failure: Failure

    public init(_ name: String, maxItems: Int, otherwise failure: Failure) {
        self.name = name
        self.maxItems = maxItems
        self.failure = failure
    }
}

/// A recursive-descent parser of RFC 8259, bounded by ``Limits/maxJSONDepth``.
private struct JSONParser {
    private let bytes: UnsafeBufferPointer<UInt8>
    /// Whether arrays, members and strings are kept. A text that is only checked needs none of them.
    private let keepsValues: Bool
    private let memory: (any JSONMemory)?
    private let bound: JSONListBound?
    private var position = 0
    private var depth = 0
    /// Bytes taken by values and not yet reported to `memory`.
    private var unreported = 0

    init(
        _ bytes: UnsafeBufferPointer<UInt8>, keepsValues: Bool, memory: (any JSONMemory)?, bound: JSONListBound?
    ) {
        self.bytes = bytes
        self.keepsValues = keepsValues
        self.memory = memory
        self.bound = bound
    }

    mutating func parseText() throws(Failure) -> JSON {
        let value = try parseValue()
        skipWhiteSpace()
        guard position == bytes.count else { throw stopped("unexpected text after the value") }
        try report()
        return value
    }

    /// Accounts for `count` bytes, in portions, because this runs for every value.
    private mutating func account(_ count: Int) throws(Failure) {
        unreported += count
        if unreported >= 64 * 1024 { try report() }
    }

    private mutating func report() throws(Failure) {
        try memory?.take(unreported)
        unreported = 0
    }

    /// Appends, and accounts for the growth of the array's storage, which doubles.
    private mutating func append<Value>(_ value: Value, to values: inout [Value]) throws(Failure) {
        guard keepsValues else { return }
        let capacity = values.capacity
        values.append(value)
        if values.capacity > capacity {
            try account((values.capacity - capacity) * MemoryLayout<Value>.stride)
        }
    }

    private mutating func parseValue() throws(Failure) -> JSON {
        skipWhiteSpace()
        guard let byte = current else { throw stopped("expected a value") }
        switch byte {
        case UInt8(ascii: "{"): return try nested { (parser) throws(Failure) in try parser.parseObject() }
        case UInt8(ascii: "["): return try nested { (parser) throws(Failure) in try parser.parseArray() }
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "t"): return try parseLiteral("true", .bool(true))
        case UInt8(ascii: "f"): return try parseLiteral("false", .bool(false))
        case UInt8(ascii: "n"): return try parseLiteral("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try parseNumber()
        default: throw stopped("expected a value")
        }
    }

    private mutating func nested(
        _ body: (inout JSONParser) throws(Failure) -> JSON
    ) throws(Failure) -> JSON {
        guard depth < Limits.maxJSONDepth else { throw stopped("nested deeper than \(Limits.maxJSONDepth) levels") }
        depth += 1
        position += 1  // the opening bracket
        let value = try body(&self)
        depth -= 1
        return value
    }

    private mutating func parseObject() throws(Failure) -> JSON {
        var members: [JSON.Member] = []
        var names = MemberNames()
        let isOutermost = depth == 1
        skipWhiteSpace()
        if take(UInt8(ascii: "}")) { return .object([]) }
        while true {
            skipWhiteSpace()
            guard current == UInt8(ascii: "\"") else { throw stopped("expected a name in quotes") }
            let name = try parseString()
            guard names.insert(name) else { throw stopped("a name occurs twice in one object") }
            try account(MemoryLayout<ExactText>.stride * 2)
            skipWhiteSpace()
            guard take(UInt8(ascii: ":")) else { throw stopped("expected ':'") }
            skipWhiteSpace()
            let value: JSON
            if isOutermost, let bound, bound.name == name, current == UInt8(ascii: "[") {
                value = try nested { (parser) throws(Failure) in try parser.parseArray(bound) }
            } else {
                value = try parseValue()
            }
            try append(JSON.Member(name: name, value: value), to: &members)
            skipWhiteSpace()
            if take(UInt8(ascii: ",")) { continue }
            guard take(UInt8(ascii: "}")) else { throw stopped("expected ',' or '}'") }
            return .object(members)
        }
    }

    private mutating func parseArray(_ bound: JSONListBound? = nil) throws(Failure) -> JSON {
        var items: [JSON] = []
        skipWhiteSpace()
        if take(UInt8(ascii: "]")) { return .array([]) }
        while true {
            if let bound, items.count == bound.maxItems { throw bound.failure }
            try append(try parseValue(), to: &items)
            skipWhiteSpace()
            if take(UInt8(ascii: ",")) { continue }
            guard take(UInt8(ascii: "]")) else { throw stopped("expected ',' or ']'") }
            return .array(items)
        }
    }

    private mutating func parseLiteral(_ text: StaticString, _ value: JSON) throws(Failure) -> JSON {
        for offset in 0..<text.utf8CodeUnitCount {
            guard take(text.utf8Start[offset]) else { throw stopped("expected '\(text)'") }
        }
        return value
    }

    private mutating func parseNumber() throws(Failure) -> JSON {
        let start = position
        _ = take(UInt8(ascii: "-"))
        if !take(UInt8(ascii: "0")) { try parseDigits() }
        if take(UInt8(ascii: ".")) { try parseDigits() }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            try parseDigits()
        }
        try account(heapBytes(of: position - start))
        return .number(keepsValues ? String(decoding: bytes[start..<position], as: UTF8.self) : "0")
    }

    private mutating func parseDigits() throws(Failure) {
        let start = position
        while let byte = current, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { position += 1 }
        guard position > start else { throw stopped("expected a digit") }
    }

    private mutating func parseString() throws(Failure) -> String {
        position += 1  // the opening quote
        let start = position
        // Most strings hold no escape and are taken as they stand.
        while let byte = current, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { position += 1 }
        if current == UInt8(ascii: "\"") {
            defer { position += 1 }
            return try validated(bytes[start..<position])
        }
        var unescaped = ContiguousArray(bytes[start..<position])
        while let byte = current {
            switch byte {
            case UInt8(ascii: "\""):
                position += 1
                return try unescaped.withUnsafeBufferPointer { (buffer) throws(Failure) in try validated(buffer[...]) }
            case UInt8(ascii: "\\"):
                position += 1
                try parseEscape(into: &unescaped)
            case 0..<0x20: throw stopped("a control character must be escaped")
            default:
                unescaped.append(byte)
                position += 1
            }
        }
        throw stopped("a string does not end")
    }

    private mutating func parseEscape(into out: inout ContiguousArray<UInt8>) throws(Failure) {
        guard let byte = current else { throw stopped("a string does not end") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): out.append(byte)
        case UInt8(ascii: "b"): out.append(0x08)
        case UInt8(ascii: "f"): out.append(0x0C)
        case UInt8(ascii: "n"): out.append(0x0A)
        case UInt8(ascii: "r"): out.append(0x0D)
        case UInt8(ascii: "t"): out.append(0x09)
        case UInt8(ascii: "u"):
            var value = try parseHexQuad()
            if (0xD800..<0xDC00).contains(value) {
                guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else { throw stopped("an unpaired surrogate") }
                let low = try parseHexQuad()
                guard (0xDC00..<0xE000).contains(low) else { throw stopped("an unpaired surrogate") }
                value = 0x10000 + (value - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(value) else { throw stopped("an unpaired surrogate") }
            out.append(contentsOf: UTF8.encode(scalar)!)
        default: throw stopped("an unknown escape")
        }
    }

    private mutating func parseHexQuad() throws(Failure) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw stopped("expected four hexadecimal digits")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }

    private mutating func validated(_ slice: Slice<UnsafeBufferPointer<UInt8>>) throws(Failure) -> String {
        try account(heapBytes(of: slice.count))
        guard let string = String(validating: slice, as: UTF8.self) else { throw stopped("invalid UTF-8") }
        return string
    }

    /// What a string of `count` bytes takes besides its place in a value, which holds up to 15 bytes itself.
    private func heapBytes(of count: Int) -> Int { count > 15 ? count + 48 : 0 }

    private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard current == byte else { return false }
        position += 1
        return true
    }

    private mutating func skipWhiteSpace() {
        while let byte = current, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    private func stopped(_ reason: String) -> Failure {
        Failure(.malformedJSON, "The body is not valid JSON: \(reason) at byte \(position).")
    }
}

/// The names in one object. Most objects have so few that comparing them costs less than hashing.
private struct MemberNames {
    private static let maxCompared = 16
    private var compared: [ExactText] = []
    private var hashed: Set<ExactText> = []

    /// - Returns: false for a name that is there already.
    mutating func insert(_ name: String) -> Bool {
        let name = ExactText(name)
        guard hashed.isEmpty else { return hashed.insert(name).inserted }
        if compared.contains(name) { return false }
        compared.append(name)
        if compared.count > Self.maxCompared { hashed = Set(compared) }
        return true
    }
}
