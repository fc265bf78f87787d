// Rows as printed for people.

import ArgumentParser
import Domain
import Testing

@testable import reprise

struct SQLTableTests {
    private func table(_ rows: [[SQLValue]], columns: [String]) -> String {
        SQLTable(SQLAnswer(columns: columns, rows: rows, isTruncated: false, elapsedSeconds: 0)).text
    }

    @Test func columnsAreAligned() {
        #expect(
            table(
                [[.text("results"), .integer(1200), .real(0.5)], [.text("ä"), .integer(7), .null]],
                columns: ["namespace", "hits", "hit_ratio"])
                    == """
                    namespace  hits  hit_ratio
                    ---------  ----  ---------
                    results    1200        0.5
                    ä             7       NULL
                    (2 rows)

                    """)
        #expect(table([], columns: ["a"]) == "a\n-\n(0 rows)\n")
    }

    @Test func nullIsNotTheTextNull() {
        let text = table([[.null], [.text("NULL")], [.text("")]], columns: ["a"])
        #expect(text == "a\n------\nNULL\n'NULL'\n\n(3 rows)\n")
    }

    @Test func longTextsAreCut() {
        let row = table(
            [[.text(String(repeating: "ä", count: 61)), .text(String(repeating: "b", count: 60))]], columns: ["a", "b"]
        )
        .split(separator: "\n")[2]
        #expect(row == String(repeating: "ä", count: 59) + "…  " + String(repeating: "b", count: 60))
        #expect(table([[.text(String(repeating: "c", count: 1_000_000))]], columns: ["a"]).utf8.count < 250)
        #expect(
            table([[.blob([0, 255])], [.blob(Array(repeating: 1, count: 100))]], columns: ["a"]).contains("x'00ff'"))
    }

    /// A stored text must not move the reader's cursor.
    @Test func controlCharactersAreEscaped() {
        let text = table([[.text("a\n\r\t\u{1B}[31m\u{7F}\u{9B}\u{202E}b\0")]], columns: ["\u{7}"])
        #expect(text.contains(#"a\n\r\t\u{1b}[31m\u{7f}\u{9b}\u{202e}b\u{0}"#))
        #expect(text.hasPrefix(#"\u{7}"#))
    }

    @Test func theMarkIsBelowTheMistake() {
        #expect(SQLTable.place(of: 7, in: "SELECT x FROM t") == "    SELECT x FROM t\n           ^")
        #expect(SQLTable.place(of: 12, in: "SELECT 'ä', x") == "    SELECT 'ä', x\n               ^")
        #expect(SQLTable.place(of: 99, in: "SELECT").hasPrefix("    SELECT\n"))
    }

    @Test func everythingDocumentedIsListed() {
        let list = SQLTable.list([SQLRelation("a", .view, "one"), SQLRelation("longer", .table, "two")])
        #expect(list.hasPrefix("Views:\n  a       one\n\nTables underneath:\n  longer  two\n"))
    }

    @Test(arguments: [["--csv", "--json", "SELECT 1"], ["--limit", "0"], ["--limit", "10001"], ["a", "b"]])
    func refusesWhatItDoesNotUnderstand(arguments: [String]) {
        #expect(throws: (any Error).self) { try SQLCommand.parse(arguments) }
    }
}
