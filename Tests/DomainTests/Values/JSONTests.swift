// JSON texts: kept as they were sent, and nothing lost silently.

import Domain
import TestSupport
import Testing

struct JSONTests {
    private static let texts = [
        "null", "true", "false", "0", "-0", "0.10", "1e400", "1E+2", "-1.5e-3", "9223372036854775808",
        "123456789012345678901234567890.123456789012345678901234567890", #""""#, #""text""#, #""\"\\\n\r\t""#,
        #""\u0001\u001f""#, #""日本語 👩‍👩‍👧""#, "\"\u{7F}\u{2028}\"", "[]", "{}", "[1,[2,[3,[]]],{}]",
        #"{"b":1,"a":2,"":{"c":[null,true]}}"#, "{\"\u{E9}\":1,\"e\u{301}\":2}",
    ]

    private func parse(_ text: String) throws -> JSON { try JSON(parsing: text.utf8) }

    private func isMalformed(_ bytes: [UInt8]) -> Bool {
        do {
            _ = try JSON(parsing: bytes)
            return false
        } catch {
            return error.code == .malformedJSON
        }
    }

    @Test(arguments: texts)
    func comesBackAsItWasSent(text: String) throws {
        #expect(try parse(text).utf8 == Array(text.utf8))
    }

    @Test func escapesAreResolved() throws {
        #expect(try parse(#""\u00e9\/\b\f\ud83d\ude00\u0000""#) == .string("é/\u{8}\u{C}😀\u{0}"))
    }

    @Test func whiteSpaceIsInsignificant() throws {
        #expect(try parse(" \t\r\n{ \"a\" : [ 1 , 2 ] } \n") == ["a": [1, 2]])
    }

    @Test(arguments: [
        "", " ", "nul", "nullx", "True", "'a'", "{", "[", "[1", "[1,]", "[,1]", "{,}", #"{"a"}"#, #"{"a":}"#,
        #"{"a":1,}"#, "{a:1}", "{1:1}", "[1 2]", "1 2", "[]]", "//", "/**/1", "NaN", "Infinity", "\u{FEFF}1",
        "01", "-", "+1", ".5", "1.", "1.e1", "1e", "1e+", "0x1", "--1", "1_000",
        "\"", "\"\\", "\"a", #""\x""#, #""\u12""#, #""\u12G4""#, #""\U0041""#,
    ])
    func isMalformed(text: String) {
        #expect(isMalformed(Array(text.utf8)))
    }

    @Test func aNameTwiceInOneObjectIsRefused() throws {
        #expect(isMalformed(Array(#"{"a":1,"b":2,"a":3}"#.utf8)))
        #expect(isMalformed(Array(#"{"a":1,"\u0061":3}"#.utf8)))
        #expect(throws: Never.self) { try parse(#"{"a":{"a":1}}"#) }
    }

    @Test(arguments: [
        #""\ud83d""#, #""\ude00""#, #""\ud83dx""#, #""\ud83d\n""#, #""\ud83d\u0041""#, #""\ud83d\ud83d""#,
    ])
    func anUnpairedSurrogateIsRefused(text: String) {
        #expect(isMalformed(Array(text.utf8)))
    }

    @Test(
        arguments: [
            [0x80], [0xC3], [0xC0, 0x80], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xFF],
        ] as [[UInt8]])
    func invalidUTF8IsRefused(bytes: [UInt8]) {
        let quote = UInt8(ascii: "\"")
        #expect(isMalformed([quote] + bytes + [quote]))
        #expect(isMalformed([quote] + Array(#"\n"#.utf8) + bytes + [quote]))
        #expect(isMalformed(bytes))
    }

    @Test func everyControlCharacterMustBeEscaped() throws {
        for byte: UInt8 in 0..<0x20 {
            #expect(isMalformed([0x22, byte, 0x22]))
            let string = JSON.string(String(decoding: [byte], as: UTF8.self))
            #expect(!string.utf8.contains(byte))
            #expect(try JSON(parsing: string.utf8) == string)
        }
    }

    @Test func nestingIsBounded() throws {
        let opening = String(repeating: "[", count: 128)
        let closing = String(repeating: "]", count: 128)
        #expect(throws: Never.self) { try parse(opening + closing) }
        #expect(isMalformed(Array("[\(opening)\(closing)]".utf8)))
        #expect(isMalformed(Array(String(repeating: "{\"a\":", count: 100_000).utf8)))
    }

    @Test func theErrorTellsTheByte() {
        let error = #expect(throws: Failure.self) { try parse("[1,x]") }
        #expect(error?.detail.contains("byte 3") == true)
    }

    @Test func whatParsesParsesAgainToTheSame() throws {
        var numbers = RepeatableNumbers()
        var parsed = 0
        for _ in 0..<8000 {
            let bytes = mutated(Array(Self.texts.randomElement(using: &numbers)!.utf8), using: &numbers)
            guard let value = try? JSON(parsing: bytes) else { continue }
            parsed += 1
            let again = try JSON(parsing: value.utf8)
            #expect(again == value && again.utf8 == value.utf8, "\(bytes)")
        }
        // Otherwise nothing was tested.
        #expect(parsed > 500)
    }

    @Test(
        arguments: [
            ("1", 1), ("-9223372036854775808", .min), ("9223372036854775807", .max), ("9223372036854775808", nil),
            ("1.0", 1), ("1.5", nil), ("-0", 0), ("1e400", nil), ("\"1\"", nil), ("true", nil), ("null", nil),
        ] as [(String, Int64?)])
    func integerValue(text: String, value: Int64?) throws {
        #expect(try parse(text).integerValue == value)
    }

    @Test func doubleValueIsFinite() throws {
        #expect(try parse("1.5").doubleValue == 1.5)
        #expect(try parse("1e400").doubleValue == nil)
        #expect(try parse("\"1\"").doubleValue == nil)
    }

    @Test(
        arguments: [
            (0, "0"), (-0.0, "0"), (1.5, "1.5"), (300, "300"), (0.001, "0.001"), (1e16, "1e+16"), (.infinity, "null"),
            (.nan, "null"),
        ] as [(Double, String)])
    func decimalsArePrintedShort(value: Double, text: String) throws {
        #expect(JSON.decimal(value).text == text)
    }

    @Test func membersAreFoundByName() {
        let object: JSON = ["a": 1, "b": [true, nil], "c": "text"]
        #expect(object["a"] == 1)
        #expect(object["c"]?.stringValue == "text")
        #expect(object["d"] == nil)
        #expect(JSON.array([1])["a"] == nil)
    }

    /// With few names and with many, which are looked up differently.
    @Test(arguments: [1, 2, 15, 16, 17, 18, 40])
    func aNameOccursOnce(count: Int) throws {
        let members = (0..<count).map { "\"name\($0)\":0" }
        #expect(try parse("{" + members.joined(separator: ",") + "}").text.count > count * 8)
        for repeated in 0..<count {
            #expect(isMalformed(Array("{\(members.joined(separator: ",")),\(members[repeated])}".utf8)))
        }
    }

    // MARK: Memory

    /// Counts what a value takes, up to a limit.
    private final class Account: JSONMemory {
        private(set) var bytes = 0
        let limit: Int

        init(limit: Int = .max) { self.limit = limit }

        func take(_ count: Int) throws(Failure) {
            guard bytes + count <= limit else { throw .overloaded("full") }
            bytes += count
        }
    }

    @Test func whatItTakesIsAccountedFor() throws {
        let zeros = "[" + Array(repeating: "0", count: 100_000).joined(separator: ",") + "]"
        let text = "\"" + String(repeating: "x", count: 200_000) + "\""
        let nested = "[" + Array(repeating: "[]", count: 50_000).joined(separator: ",") + "]"
        let members = "{" + (0..<20_000).map { "\"k\($0)\":1" }.joined(separator: ",") + "}"
        let stride = MemoryLayout<JSON>.stride
        for (json, least) in [
            (zeros, 100_000 * stride), (text, 200_000), (nested, 50_000 * stride),
            (members, 20_000 * MemoryLayout<JSON.Member>.stride),
        ] {
            let account = Account()
            _ = try JSON(parsing: json.utf8, memory: account)
            #expect(account.bytes >= least)
            #expect(account.bytes <= 4 * least)
        }
    }

    /// The text is broken at its end, but nobody reads so far.
    @Test func parsingEndsWhereMemoryDoes() throws {
        let text = "[" + String(repeating: "0,", count: 100_000) + "broken"
        let failure = #expect(throws: Failure.self) {
            try JSON(parsing: text.utf8, memory: Account(limit: 1_000_000))
        }
        #expect(failure?.code == .overloaded)
    }

    @Test func aBoundedListEndsAtItsBound() throws {
        let bound = JSONListBound("items", maxItems: 3, otherwise: .invalid("items", "too many"))
        func parse(_ text: String) throws -> JSON { try JSON(parsing: text.utf8, bound: bound) }
        #expect(try parse(#"{"items": [1, 2, 3]}"#) == ["items": [1, 2, 3]])
        #expect(try parse(#"{"a": {"items": [1, 2, 3, 4]}, "b": [1, 2, 3, 4]}"#)["b"] == [1, 2, 3, 4])
        #expect(try parse("[1, 2, 3, 4]") == [1, 2, 3, 4])
        let failure = #expect(throws: Failure.self) { try parse(#"{"items" : [1, 2, 3, 4 broken"#) }
        #expect(failure?.code == .validationFailed)
    }

    @Test(arguments: texts)
    func checksWithoutKeeping(text: String) {
        #expect(JSON.isValid(text.utf8))
        #expect(!JSON.isValid((text + ",").utf8))
        #expect(!JSON.isValid("[".utf8) && !JSON.isValid(("{\"a\":" + text).utf8))
    }
}
