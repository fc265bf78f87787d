// Decisions about sessions that need no database: bounds, names, texts passed on.

import Domain
import Testing

struct SessionDomainTests {
    @Test func aStateOverItsBoundsMayShrink() throws {
        try StateBounds.check(keys: 1000, bytes: Limits.maxStateBytes)
        try StateBounds.check(keys: 1500, keysBefore: 1500, bytes: 0)
        try StateBounds.check(keys: 1, bytes: Limits.maxStateBytes + 5, bytesBefore: Limits.maxStateBytes + 6)
        #expect(throws: Failure.self) { try StateBounds.check(keys: 1001, bytes: 0) }
        #expect(throws: Failure.self) { try StateBounds.check(keys: 1501, keysBefore: 1500, bytes: 0) }
        #expect(throws: Failure.self) { try StateBounds.check(keys: 1, bytes: Limits.maxStateBytes + 1) }
    }

    @Test func randomNamesAreNames() throws {
        let names = (0..<1000).map { _ in Name.random() }
        #expect(Set(names).count == names.count)
        for name in names {
            #expect(try Name(name.rawValue, field: "id") == name)
            #expect(name.rawValue.utf8.count == 32 && UInt64(name.rawValue.prefix(16), radix: 16) != nil)
        }
    }

    @Test func keysAreTheSameWhenTheirBytesAre() {
        let composed = Key(stored: "caf\u{E9}")
        let decomposed = Key(stored: "cafe\u{301}")
        #expect(composed.rawValue == decomposed.rawValue, "Swift takes them for the same")
        #expect(composed != decomposed)
        #expect(Set([composed, decomposed, composed]).count == 2)
    }

    @Test func textsArePassedOnAsTheyAre() throws {
        let text = JSONText(try JSON(parsing: #" {"a" : [1.50, 1e400, "\u00e9"]} "#.utf8))
        #expect(String(decoding: text.bytes, as: UTF8.self) == #"{"a":[1.50,1e400,"é"]}"#)
        #expect((["x": .verbatim(text)] as JSON).text == #"{"x":{"a":[1.50,1e400,"é"]}}"#)
        #expect(try text.parsed() == JSON(parsing: text.bytes))
    }
}
