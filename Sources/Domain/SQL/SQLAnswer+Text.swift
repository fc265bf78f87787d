// The rows of a query as JSON and as CSV, in pieces, because they may be megabytes.

import FoundationEssentials

extension SQLAnswer {
    /// Bytes of a piece, after which the next begins.
    private static let pieceBytes = 64 * 1024

    /// `{columns, rows, row_count, truncated, elapsed_seconds}` as JSON text, handed over piece by piece.
    public func writeJSON<Problem: Error>(_ write: ([UInt8]) async throws(Problem) -> Void) async throws(Problem) {
        var out = Array(#"{"columns":"#.utf8)
        JSON.array(columns.map(JSON.string)).write(to: &out)
        out += #","rows":["#.utf8
        for (index, row) in rows.enumerated() {
            if index > 0 { out.append(UInt8(ascii: ",")) }
            JSON.array(row.map(\.json)).write(to: &out)
            if out.count >= Self.pieceBytes {
                try await write(out)
                out.removeAll(keepingCapacity: true)
            }
        }
        out += #"],"row_count":\#(rows.count),"truncated":\#(isTruncated),"elapsed_seconds":"#.utf8
        JSON.decimal(elapsedSeconds).write(to: &out)
        out.append(UInt8(ascii: "}"))
        try await write(out)
    }

    /// Comma-separated values (RFC 4180) with a line of column names, handed over piece by piece. NULL is an empty
    /// field and an empty text `""`; blobs are in base64.
    public func writeCSV<Problem: Error>(_ write: ([UInt8]) async throws(Problem) -> Void) async throws(Problem) {
        var out: [UInt8] = []
        Self.writeRecord(columns.map(SQLValue.text), to: &out)
        for row in rows {
            Self.writeRecord(row, to: &out)
            if out.count >= Self.pieceBytes {
                try await write(out)
                out.removeAll(keepingCapacity: true)
            }
        }
        try await write(out)
    }

    private static func writeRecord(_ fields: [SQLValue], to out: inout [UInt8]) {
        for (index, field) in fields.enumerated() {
            if index > 0 { out.append(UInt8(ascii: ",")) }
            switch field {
            case .null: break
            case .text(let text): write(field: text, to: &out)
            case .blob(let bytes): out += Data(bytes).base64EncodedString().utf8
            // Not finite is null, as in JSON, so that both forms say the same.
            case .real(let value): if value.isFinite { field.json.write(to: &out) }
            case .integer: field.json.write(to: &out)
            }
        }
        out += "\r\n".utf8
    }

    private static func write(field text: String, to out: inout [UInt8]) {
        let quote = UInt8(ascii: "\"")
        let isPlain =
            !text.isEmpty
            && text.utf8.allSatisfy { $0 != quote && $0 != UInt8(ascii: ",") && $0 != 0x0A && $0 != 0x0D }
        if isPlain {
            out += text.utf8
            return
        }
        out.append(quote)
        for byte in text.utf8 {
            if byte == quote { out.append(quote) }
            out.append(byte)
        }
        out.append(quote)
    }
}

extension SQLValue {
    /// Integers keep all their digits and reals a point or an exponent; a real that is not finite is null, which is all
    /// JSON can say; a blob is `{"base64": "…"}`.
    public var json: JSON {
        switch self {
        case .null: .null
        case .integer(let value): .integer(value)
        case .real(let value): value.isFinite ? .number("\(value)") : .null
        case .text(let text): .string(text)
        case .blob(let bytes): ["base64": .string(Data(bytes).base64EncodedString())]
        }
    }
}
