// Reading a request's object: all problems reported together, no field ignored.

import Domain
import Testing

struct ObjectReaderTests {
    @Test func readsEachKind() throws {
        var reader = try ObjectReader([
            "s": "text", "b": true, "i": 7, "d": .number("1.5"), "t": 2, "n": nil, "l": ["a", "b"], "j": ["x": 1],
        ])
        #expect(reader.string("s") == "text")
        #expect(reader.bool("b") == true)
        #expect(reader.integer("i", in: 1...7) == 7)
        #expect(reader.decimal("d", in: 0...2) == 1.5)
        #expect(reader.lifetime("t") == .finite(milliseconds: 2000))
        #expect(reader.lifetime("n") == .never)
        #expect(reader.strings("l") == ["a", "b"])
        #expect(reader.take("j") == ["x": 1])
        try reader.finish()
    }

    @Test func whatIsAbsentIsNil() throws {
        var reader = try ObjectReader(["null": nil])
        #expect(reader.string("a") == nil)
        #expect(reader.lifetime("b") == nil)
        #expect(reader.take("c") == nil)
        // Except for a lifetime, null means the same as leaving the field out.
        #expect(reader.integer("null") == nil)
        try reader.finish()
    }

    @Test func everythingWrongIsNamed() throws {
        var reader = try ObjectReader(
            ["s": 1, "i": .number("1.5"), "range": 11, "t": 0, "l": ["a", 1], "typo": 1, "other": 2],
            path: "operations[3]")
        #expect(reader.string("s") == nil)
        #expect(reader.integer("i") == nil)
        #expect(reader.integer("range", in: 1...10) == nil)
        #expect(reader.lifetime("t") == nil)
        #expect(reader.strings("l") == nil)
        #expect(
            invalidFields { try reader.finish() }
                == ["s", "i", "range", "t", "l", "typo", "other"].map { "operations[3].\($0)" })
    }

    @Test(arguments: ["-1", "0", "\"1\"", "true", "1e400", "3153600001"])
    func isNoLifetime(text: String) throws {
        var reader = try ObjectReader(["ttl_seconds": JSON(parsing: text.utf8)])
        #expect(reader.lifetime("ttl_seconds") == nil)
        #expect(invalidFields { try reader.finish() } == ["ttl_seconds"])
    }

    @Test func aFieldNobodyAskedForIsRefused() throws {
        var reader = try ObjectReader(["ttl_secons": 1, "colour": 2, "tag": 3, "tags": []])
        _ = reader.lifetime("ttl_seconds")
        _ = reader.strings("tags")
        let failure = #expect(throws: Failure.self) { try reader.finish() }
        #expect(failure?.errors.map(\.field) == ["ttl_secons", "colour", "tag"])
        // A field that is already present is not suggested.
        #expect(
            failure?.errors.map(\.message) == [
                "is not a known field. Did you mean 'ttl_seconds'?", "is not a known field.", "is not a known field.",
            ])
    }

    @Test(arguments: [JSON.null, 1, "text", [1], true])
    func onlyAnObjectIsRead(json: JSON) {
        #expect(invalidFields { _ = try ObjectReader(json) } == ["body"])
        #expect(invalidFields { _ = try ObjectReader(json, path: "defaults") } == ["defaults"])
    }

    @Test func reportsCollectWhatOthersSay() throws {
        var reader = try ObjectReader([:], path: "a")
        reader.report("b", "must be there.")
        reader.report(Failure.invalid("c", "is wrong."))
        #expect(invalidFields { try reader.finish() } == ["a.b", "c"])
    }
}
