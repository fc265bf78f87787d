// Rows as a table for people: aligned columns, long texts cut, no control characters.

import Domain

struct SQLTable {
    /// Longest cell, in characters.
    static let maxCellCharacters = 60
    /// Characters of a query shown around an error.
    private static let shownCharacters = 30

    private let header: [String]
    private let rows: [[String]]
    /// Numbers are aligned to the right.
    private let isNumeric: [Bool]

    /// Rows of texts.
    init(columns: [String], rows: [[String]]) {
        header = columns
        self.rows = rows.map { $0.map(Self.cut) }
        isNumeric = columns.map { _ in false }
    }

    init(_ answer: SQLAnswer) {
        header = answer.columns.map(Self.cut)
        rows = answer.rows.map { $0.map(Self.cell) }
        isNumeric = answer.columns.indices.map { column in
            var found = false
            for row in answer.rows {
                switch row[column] {
                case .integer, .real: found = true
                case .null: continue
                case .text, .blob: return false
                }
            }
            return found
        }
    }

    var text: String {
        let widths = header.indices.map { column in
            max(header[column].count, rows.lazy.map { $0[column].count }.max() ?? 0)
        }
        var lines = [line(header, widths), widths.map { String(repeating: "-", count: $0) }.joined(separator: "  ")]
        lines += rows.map { line($0, widths) }
        lines.append("(\(rows.count) \(rows.count == 1 ? "row" : "rows"))")
        return lines.joined(separator: "\n") + "\n"
    }

    private func line(_ cells: [String], _ widths: [Int]) -> String {
        var line = ""
        for (column, cell) in cells.enumerated() {
            if column > 0 { line += "  " }
            let blanks = String(repeating: " ", count: widths[column] - cell.count)
            // No blanks at the end of a line.
            line += isNumeric[column] ? blanks + cell : column == cells.count - 1 ? cell : cell + blanks
        }
        return line
    }

    private static func cell(_ value: SQLValue) -> String {
        switch value {
        case .null: "NULL"
        case .integer(let value): String(value)
        case .real(let value): "\(value)"
        case .text("NULL"): "'NULL'"
        case .text(let text): cut(text)
        case .blob(let bytes): cut("x'" + bytes.prefix(maxCellCharacters).map(hex).joined() + "'")
        }
    }

    private static func hex(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }

    /// On one line, with … where it is cut. Control characters, with which a stored text could rewrite what the
    /// terminal shows, are written as escapes.
    private static func cut(_ text: String) -> String {
        var shown = ""
        var count = 0
        for scalar in text.unicodeScalars.prefix(maxCellCharacters * 4) {
            switch scalar {
            case "\n": shown += "\\n"
            case "\r": shown += "\\r"
            case "\t": shown += "\\t"
            case "\0"..<" ", "\u{7F}"..."\u{9F}", "\u{202A}"..."\u{202E}", "\u{2066}"..."\u{2069}":
                shown += "\\u{\(String(scalar.value, radix: 16))}"
            default: shown.unicodeScalars.append(scalar)
            }
            count += 1
        }
        let isWhole = count < maxCellCharacters * 4 || text.unicodeScalars.count == count
        guard shown.count > maxCellCharacters || !isWhole else { return shown }
        return shown.prefix(maxCellCharacters - 1) + "…"
    }

    /// The place of an error in a query, with a mark below it.
    static func place(of offset: Int, in query: String) -> String {
        let bytes = Array(query.utf8)
        let offset = min(offset, bytes.count)
        let before = cut(String(decoding: bytes[..<offset], as: UTF8.self).suffix(shownCharacters))
        let after = cut(String(decoding: bytes[offset...], as: UTF8.self).prefix(shownCharacters))
        return "    \(before)\(after)\n    \(String(repeating: " ", count: before.count))^"
    }

    private static func cut(_ text: Substring) -> String { cut(String(text)) }

    /// What can be read, shown when there is no query.
    static func list(_ relations: [SQLRelation]) -> String {
        let width = relations.map(\.name.count).max() ?? 0
        var lines: [String] = []
        for (kind, title) in [(SQLRelation.Kind.view, "Views:"), (.table, "Tables underneath:")] {
            lines.append((lines.isEmpty ? "" : "\n") + title)
            for relation in relations where relation.kind == kind {
                let blanks = String(repeating: " ", count: width - relation.name.count)
                lines.append("  \(relation.name)\(blanks)  \(relation.summary)")
            }
        }
        lines.append("\nTo list the columns of one: reprise sql \"PRAGMA table_info(cache_stats)\"")
        return lines.joined(separator: "\n")
    }
}
