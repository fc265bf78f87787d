// Prepared statements: values in, rows out. With Connection.swift, the only code that touches C pointers.

import CSQLite
import Domain

/// A value to bind. SQLite's storage classes, plus text whose bytes need not be UTF-8.
enum Value: Sendable, Equatable {
    case null
    case integer(Int64)
    case real(Double)
    case text(String)
    /// Bytes compared as text: the exclusive end of a range of keys.
    case textBytes([UInt8])
    case blob([UInt8])

    static func integer(_ value: Int) -> Value { .integer(Int64(value)) }
    static func instant(_ value: Instant) -> Value { .integer(value.milliseconds) }
    static func optional<T>(_ value: T?, _ transform: (T) -> Value) -> Value { value.map(transform) ?? .null }
}

/// A text that is not one statement.
enum StatementCountError: Error {
    case none, several
}

/// A prepared statement. Belongs to its connection and is finalized before it.
final class Statement {
    private let handle: OpaquePointer
    private let connection: OpaquePointer
    /// The columns read by name so far, each under the address of its name's literal.
    private var places: [(name: UnsafePointer<UInt8>, column: Int32)] = []

    /// - Throws: ``SQLiteError``.
    init(handle connection: OpaquePointer, sql: String) throws(SQLiteError) {
        var prepared: OpaquePointer?
        let code = sqlite3_prepare_v3(connection, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &prepared, nil)
        guard code == SQLITE_OK, let prepared else { throw SQLiteError(code: code, handle: connection) }
        handle = prepared
        self.connection = connection
    }

    /// The one statement in a caller's text.
    /// - Throws: ``SQLiteError``, with the position if SQLite knows it; ``StatementCountError``.
    init(handle connection: OpaquePointer, only text: String) throws {
        var text = text
        handle = try text.withUTF8 { buffer throws -> OpaquePointer in
            try buffer.withMemoryRebound(to: CChar.self) { chars throws -> OpaquePointer in
                var rest = chars[...]
                // Blanks, comments and semicolons may come first.
                guard let first = try Self.next(of: &rest, connection) else { throw StatementCountError.none }
                do {
                    guard let second = try Self.next(of: &rest, connection) else { return first }
                    sqlite3_finalize(second)
                } catch {
                    // What follows is not empty, even if it is not a statement.
                }
                sqlite3_finalize(first)
                throw StatementCountError.several
            }
        }
        self.connection = connection
    }

    /// Compiles the next statement of a text; nil if there is none left.
    private static func next(
        of rest: inout Slice<UnsafeBufferPointer<CChar>>, _ connection: OpaquePointer
    ) throws(SQLiteError) -> OpaquePointer? {
        while !rest.isEmpty {
            let start = UnsafeBufferPointer(rebasing: rest).baseAddress!
            var prepared: OpaquePointer?
            var tail: UnsafePointer<CChar>?
            let code = sqlite3_prepare_v3(connection, start, Int32(rest.count), 0, &prepared, &tail)
            guard code == SQLITE_OK, let tail else {
                let offset = Int(sqlite3_error_offset(connection))
                throw SQLiteError(code: code, handle: connection, offset: offset < 0 ? nil : offset + rest.startIndex)
            }
            rest = rest.dropFirst(max(start.distance(to: tail), 1))
            if let prepared { return prepared }
        }
        return nil
    }

    deinit { sqlite3_finalize(handle) }

    /// The names of the columns of its rows; empty for a statement without rows.
    var columnNames: [String] {
        (0..<sqlite3_column_count(handle)).map { String(cString: sqlite3_column_name(handle, $0)) }
    }

    /// The number of the column of a name. Looked up once: later rows find it by the literal's address, in a list that
    /// is short enough to need no hash. A name that no column or more than one has is a programming error.
    fileprivate func column(_ name: StaticString) -> Int32 {
        if let known = places.first(where: { $0.name == name.utf8Start }) { return known.column }
        let wanted = name.description
        let found = columnNames.indices.filter { columnNames[$0] == wanted }
        precondition(found.count == 1, "\(found.count) columns are named '\(wanted)'")
        places.append((name.utf8Start, Int32(found[0])))
        return Int32(found[0])
    }

    /// Whether it does not change the file. https://sqlite.org/c3ref/stmt_readonly.html
    var isReadOnly: Bool { sqlite3_stmt_readonly(handle) != 0 }

    /// Its text from its first word on, without what was before and after it: blanks, comments, semicolons.
    var text: String {
        var rest = Array(String(cString: sqlite3_sql(handle)).utf8)[...]
        while true {
            rest = rest.drop { $0 == UInt8(ascii: ";") || $0 == UInt8(ascii: " ") || (0x09...0x0D).contains($0) }
            if rest.starts(with: "--".utf8) {
                rest = rest.drop { $0 != UInt8(ascii: "\n") }
            } else if rest.starts(with: "/*".utf8) {
                let end = rest.indices.dropFirst(3).first {
                    rest[$0 - 1] == UInt8(ascii: "*") && rest[$0] == UInt8(ascii: "/")
                }
                rest = end.map { rest[($0 + 1)...] } ?? []
            } else {
                return String(decoding: rest, as: UTF8.self)
            }
        }
    }

    /// Whether it only tells how another statement would run.
    var isExplanation: Bool { sqlite3_stmt_isexplain(handle) != 0 }

    /// How many values it takes, and the names of those that have one, with their first character.
    var parameterNames: [String?] {
        (0..<sqlite3_bind_parameter_count(handle)).map { index in
            sqlite3_bind_parameter_name(handle, index + 1).map { String(cString: $0) }
        }
    }

    /// Whether it is between its first row and its reset.
    var isBusy: Bool { sqlite3_stmt_busy(handle) != 0 }

    /// Binds one value for each parameter.
    func bind(_ values: [Value]) throws(SQLiteError) {
        precondition(values.count == Int(sqlite3_bind_parameter_count(handle)), "a value for each parameter")
        for (index, value) in values.enumerated() {
            let place = Int32(index + 1)
            let code =
                switch value {
                case .null: sqlite3_bind_null(handle, place)
                case .integer(let value): sqlite3_bind_int64(handle, place, value)
                case .real(let value): sqlite3_bind_double(handle, place, value)
                case .text(var value): value.withUTF8 { bindText($0, place) }
                case .textBytes(let bytes): bytes.withUnsafeBufferPointer { bindText($0, place) }
                case .blob(let bytes): bytes.withUnsafeBytes { bindBlob($0, place) }
                }
            guard code == SQLITE_OK else { throw SQLiteError(code: code, handle: connection) }
        }
    }

    private func bindText(_ bytes: UnsafeBufferPointer<UInt8>, _ place: Int32) -> Int32 {
        bytes.withMemoryRebound(to: CChar.self) { chars in
            // An empty buffer may have no address, which SQLite would treat as NULL.
            guard let start = chars.baseAddress else { return reprise_sqlite3_bind_text(handle, place, "", 0) }
            return reprise_sqlite3_bind_text(handle, place, start, Int32(chars.count))
        }
    }

    private func bindBlob(_ bytes: UnsafeRawBufferPointer, _ place: Int32) -> Int32 {
        guard let start = bytes.baseAddress, !bytes.isEmpty else { return sqlite3_bind_zeroblob(handle, place, 0) }
        return reprise_sqlite3_bind_blob(handle, place, start, UInt64(bytes.count))
    }

    /// Goes to the next row; false at the end.
    func step() throws(SQLiteError) -> Bool {
        let code = sqlite3_step(handle)
        switch code {
        case SQLITE_ROW: return true
        case SQLITE_DONE: return false
        default: throw SQLiteError(code: code, handle: connection)
        }
    }

    /// Makes it ready for the next run and drops what was bound, because a cached statement must not keep a value
    /// alive.
    func reset() {
        sqlite3_reset(handle)
        sqlite3_clear_bindings(handle)
    }

    fileprivate func isNull(_ column: Int32) -> Bool { sqlite3_column_type(handle, column) == SQLITE_NULL }
    fileprivate func integer(_ column: Int32) -> Int64 { sqlite3_column_int64(handle, column) }
    fileprivate func real(_ column: Int32) -> Double { sqlite3_column_double(handle, column) }

    /// A column's value as it is.
    func value(_ column: Int32) -> SQLValue {
        switch sqlite3_column_type(handle, column) {
        case SQLITE_INTEGER: .integer(integer(column))
        case SQLITE_FLOAT: .real(real(column))
        case SQLITE_TEXT: .text(String(decoding: bytes(column), as: UTF8.self))
        case SQLITE_BLOB: .blob([UInt8](bytes(column)))
        default: .null
        }
    }

    fileprivate func bytes(_ column: Int32) -> UnsafeRawBufferPointer {
        // The order matters: column_blob may convert, and column_bytes then gives the converted length.
        let start = sqlite3_column_blob(handle, column)
        return UnsafeRawBufferPointer(start: start, count: start == nil ? 0 : Int(sqlite3_column_bytes(handle, column)))
    }
}

/// The current row of a query. A column is read by its number, counted from 0, if a statement has only a few and reads
/// them on the spot, and by its name if several statements read the same entity: then only the reader lists the
/// columns, and the statements use `SELECT *`.
struct Row: ~Copyable {
    private let statement: Statement

    init(_ statement: Statement) { self.statement = statement }

    func isNull(_ column: Int32) -> Bool { statement.isNull(column) }
    func integer(_ column: Int32) -> Int64 { statement.integer(column) }
    func int(_ column: Int32) -> Int { Int(statement.integer(column)) }
    func bool(_ column: Int32) -> Bool { statement.integer(column) != 0 }
    func real(_ column: Int32) -> Double { statement.real(column) }
    func text(_ column: Int32) -> String { String(decoding: statement.bytes(column), as: UTF8.self) }
    func blob(_ column: Int32) -> [UInt8] { [UInt8](statement.bytes(column)) }
    func instant(_ column: Int32) -> Instant { Instant(milliseconds: integer(column)) }

    func optionalInteger(_ column: Int32) -> Int64? { isNull(column) ? nil : integer(column) }
    func optionalInt(_ column: Int32) -> Int? { isNull(column) ? nil : int(column) }
    func optionalReal(_ column: Int32) -> Double? { isNull(column) ? nil : real(column) }
    func optionalText(_ column: Int32) -> String? { isNull(column) ? nil : text(column) }
    func optionalInstant(_ column: Int32) -> Instant? { isNull(column) ? nil : instant(column) }

    func isNull(_ column: StaticString) -> Bool { isNull(statement.column(column)) }
    func integer(_ column: StaticString) -> Int64 { integer(statement.column(column)) }
    func int(_ column: StaticString) -> Int { int(statement.column(column)) }
    func bool(_ column: StaticString) -> Bool { bool(statement.column(column)) }
    func real(_ column: StaticString) -> Double { real(statement.column(column)) }
    func text(_ column: StaticString) -> String { text(statement.column(column)) }
    func blob(_ column: StaticString) -> [UInt8] { blob(statement.column(column)) }
    func instant(_ column: StaticString) -> Instant { instant(statement.column(column)) }
    func optionalInteger(_ column: StaticString) -> Int64? { optionalInteger(statement.column(column)) }
    func optionalInt(_ column: StaticString) -> Int? { optionalInt(statement.column(column)) }
    func optionalReal(_ column: StaticString) -> Double? { optionalReal(statement.column(column)) }
    func optionalText(_ column: StaticString) -> String? { optionalText(statement.column(column)) }
    func optionalInstant(_ column: StaticString) -> Instant? { optionalInstant(statement.column(column)) }
}
