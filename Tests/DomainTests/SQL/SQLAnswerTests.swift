// The rows of a query as text: JSON that keeps every digit, CSV that any program can read.

import Domain
import TestSupport
import Testing

struct SQLAnswerTests {
    private func text(
        _ rows: [[SQLValue]], columns: [String],
        _ write: (SQLAnswer, ([UInt8]) async throws(Never) -> Void) async -> Void
    ) async -> (text: String, pieces: Int) {
        let answer = SQLAnswer(columns: columns, rows: rows, isTruncated: true, elapsedSeconds: 0.25)
        var bytes: [UInt8] = []
        var pieces = 0
        await write(answer) { piece in
            bytes += piece
            pieces += 1
        }
        return (String(decoding: bytes, as: UTF8.self), pieces)
    }

    private func json(_ rows: [[SQLValue]], columns: [String]) async -> (text: String, pieces: Int) {
        await text(rows, columns: columns) { answer, write in await answer.writeJSON(write) }
    }

    private func csv(_ rows: [[SQLValue]], columns: [String]) async -> (text: String, pieces: Int) {
        await text(rows, columns: columns) { answer, write in await answer.writeCSV(write) }
    }

    @Test func jsonKeepsEveryDigit() async {
        let row: [SQLValue] = [
            .integer(.min), .integer(.max), .real(3), .real(0.1), .real(1e300), .real(.nan), .real(-.infinity), .null,
            .text("\"\n\u{1}ä"), .blob([0, 255]), .blob([]),
        ]
        #expect(
            await json([row, []], columns: ["a", "a"]).text
                == #"{"columns":["a","a"],"rows":[[-9223372036854775808,9223372036854775807,3.0,0.1,1e+300,"#
                + "null,null,null,"
                + #""\"\n\u0001ä",{"base64":"AP8="},{"base64":""}],[]],"row_count":2,"truncated":true,"#
                + #""elapsed_seconds":0.25}"#)
    }

    @Test func csvQuotesWhatNeedsIt() async {
        let row: [SQLValue] = [
            .null, .text(""), .text("a b"), .text("a,b"), .text("say \"a\""), .text("a\r\nb"), .integer(-1), .real(0.5),
            .real(.infinity), .blob([0, 255]),
        ]
        #expect(
            await csv([row], columns: ["a,b", "c"]).text
                == "\"a,b\",c\r\n,\"\",a b,\"a,b\",\"say \"\"a\"\"\",\"a\r\nb\",-1,0.5,,AP8=\r\n")
    }

    @Test func largeAnswersComeInPieces() async throws {
        let rows = (0..<10_000).map { [SQLValue.integer($0), .text("a value of some length")] }
        let whole = await json(rows, columns: ["a", "b"])
        #expect(whole.pieces > 4)
        guard case .array(let items)? = try JSON(parsing: Array(whole.text.utf8))["rows"] else {
            Issue.record("no rows")
            return
        }
        #expect(items.count == 10_000 && items.last == [9999, "a value of some length"])
        let table = await csv(rows, columns: ["a", "b"])
        #expect(table.pieces > 4 && table.text.split(separator: "\r\n").count == 10_001)
    }

    @Test func queriesAreBounded() async {
        func refusal(
            _ text: String, _ parameters: SQLParameters = .positional([]), limit: Int = 1
        ) async -> Failure.Code? {
            await code { try SQLQuery(text, parameters: parameters, limit: limit) }
        }
        #expect(await refusal(String(repeating: " ", count: Limits.maxSQLBytes)) == nil)
        #expect(await refusal(String(repeating: " ", count: Limits.maxSQLBytes + 1)) == .validationFailed)
        #expect(await refusal("", limit: 0) == .validationFailed)
        #expect(await refusal("", limit: Limits.maxSQLRows + 1) == .validationFailed)
        #expect(await refusal("", .positional(Array(repeating: .null, count: 101))) == .validationFailed)
        #expect(await refusal("", .named(Array(repeating: ("a", .null), count: 101))) == .validationFailed)
        #expect(await refusal("SELECT 1\0") == .invalidSQL)
    }
}
