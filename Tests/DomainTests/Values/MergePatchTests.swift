// JSON Merge Patch against the RFC's own examples, and against inputs made to be slow.

import Domain
import Testing

struct MergePatchTests {
    /// RFC 7396, appendix A.
    @Test(arguments: [
        (#"{"a":"b"}"#, #"{"a":"c"}"#, #"{"a":"c"}"#),
        (#"{"a":"b"}"#, #"{"b":"c"}"#, #"{"a":"b","b":"c"}"#),
        (#"{"a":"b"}"#, #"{"a":null}"#, #"{}"#),
        (#"{"a":"b","b":"c"}"#, #"{"a":null}"#, #"{"b":"c"}"#),
        (#"{"a":["b"]}"#, #"{"a":"c"}"#, #"{"a":"c"}"#),
        (#"{"a":"c"}"#, #"{"a":["b"]}"#, #"{"a":["b"]}"#),
        (#"{"a":{"b":"c"}}"#, #"{"a":{"b":"d","c":null}}"#, #"{"a":{"b":"d"}}"#),
        (#"{"a":[{"b":"c"}]}"#, #"{"a":[1]}"#, #"{"a":[1]}"#),
        (#"["a","b"]"#, #"["c","d"]"#, #"["c","d"]"#),
        (#"{"a":"b"}"#, #"["c"]"#, #"["c"]"#),
        (#"{"a":"foo"}"#, #"null"#, #"null"#),
        (#"{"a":"foo"}"#, #""bar""#, #""bar""#),
        (#"{"e":null}"#, #"{"a":1}"#, #"{"e":null,"a":1}"#),
        (#"[1,2]"#, #"{"a":"b","c":null}"#, #"{"a":"b"}"#),
        (#"{}"#, #"{"a":{"bb":{"ccc":null}}}"#, #"{"a":{"bb":{}}}"#),
    ])
    func mergesAsTheRFCSays(target: String, patch: String, result: String) throws {
        let merged = try JSON(parsing: target.utf8).merged(with: JSON(parsing: patch.utf8))
        #expect(merged.text == result)
    }

    @Test func numbersKeepTheirDigits() throws {
        let merged = try JSON(parsing: #"{"a":1.50,"b":12345678901234567890}"#.utf8).merged(with: ["c": 1])
        #expect(merged.text == #"{"a":1.50,"b":12345678901234567890,"c":1}"#)
    }

    @Test func namesThatOnlyLookAlikeAreTwo() throws {
        let target = try JSON(parsing: "{\"caf\u{E9}\":1,\"cafe\u{301}\":2}".utf8)
        #expect(target.merged(with: ["cafe\u{301}": nil]).text == "{\"caf\u{E9}\":1}")
    }

    @Test func costDoesNotGrowWithTheProductOfTheSizes() {
        let members = (0..<20_000).map { JSON.Member(name: "k\($0)", value: .integer($0)) }
        let elapsed = ContinuousClock().measure {
            let merged = JSON.object(members).merged(
                with: .object(
                    members.reversed().map {
                        JSON.Member(name: $0.name, value: .null)
                    }))
            #expect(merged == .object([]))
        }
        #expect(elapsed < .seconds(5))
    }
}
