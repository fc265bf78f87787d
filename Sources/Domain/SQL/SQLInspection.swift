// Ad-hoc SQL queries: the query, its answer, and what an engine promises.

/// A value of a row, or of a parameter: SQLite's storage classes.
public enum SQLValue: Sendable, Equatable {
    case null
    case integer(Int64)
    case real(Double)
    /// Bytes that are not valid UTF-8 become U+FFFD.
    case text(String)
    case blob([UInt8])

    /// Its share of ``Limits/maxSQLAnswerBytes``: about the memory it takes.
    public var weight: Int {
        switch self {
        case .null, .integer, .real: 24
        case .text(let text): 24 + text.utf8.count
        case .blob(let bytes): 24 + bytes.count
        }
    }
}

/// What a query's parameters stand for.
public enum SQLParameters: Sendable, Equatable {
    /// `?1`, `?2` …, in order.
    case positional([SQLValue])
    /// `:a`, `@a` or `$a`, by name with or without that character.
    case named([(name: String, value: SQLValue)])

    public static func == (a: SQLParameters, b: SQLParameters) -> Bool {
        switch (a, b) {
        case (.positional(let a), .positional(let b)): a == b
        case (.named(let a), .named(let b)): a.elementsEqual(b) { $0.name == $1.name && $0.value == $1.value }
        default: false
        }
    }
}

/// One read-only statement.
public struct SQLQuery: Sendable, Equatable {
    public let text: String
    public let parameters: SQLParameters
    /// Maximum number of rows to return.
    public let limit: Int

    /// - Throws: `invalid_sql` for a text with a zero byte, where SQLite would stop reading; `validation_failed` for a
    ///   text, a number of parameters or a limit beyond its bounds.
    public init(
        _ text: String, parameters: SQLParameters = .positional([]), limit: Int = Limits.defaultSQLRows
    ) throws(Failure) {
        guard text.utf8.count <= Limits.maxSQLBytes else {
            throw .invalid("query", "must be at most \(Limits.maxSQLBytes) bytes.")
        }
        guard (1...Limits.maxSQLRows).contains(limit) else {
            throw .invalid("limit", "must be a whole number from 1 to \(Limits.maxSQLRows).")
        }
        let count =
            switch parameters {
            case .positional(let values): values.count
            case .named(let values): values.count
            }
        guard count <= Limits.maxSQLParameters else {
            throw .invalid("params", "must be at most \(Limits.maxSQLParameters) values.")
        }
        if let zero = text.utf8.firstIndex(of: 0) {
            let offset = text.utf8.distance(from: text.utf8.startIndex, to: zero)
            throw .invalidSQL("The query contains a zero byte.", at: offset)
        }
        self.text = text
        self.parameters = parameters
        self.limit = limit
    }
}

/// The rows of a query.
public struct SQLAnswer: Sendable, Equatable {
    /// As the statement names them; two may have the same name.
    public var columns: [String]
    /// Each with a value for each column.
    public var rows: [[SQLValue]]
    /// Whether there are more rows than the limit or the bound on an answer's size let through.
    public var isTruncated: Bool
    public var elapsedSeconds: Double

    /// About the memory it takes.
    public var weight: Int { rows.reduce(0) { $1.reduce($0 + 40) { $0 + $1.weight } } }

    public init(columns: [String], rows: [[SQLValue]], isTruncated: Bool, elapsedSeconds: Double) {
        self.columns = columns
        self.rows = rows
        self.isTruncated = isTruncated
        self.elapsedSeconds = elapsedSeconds
    }
}

/// A table or view that queries may read.
public struct SQLRelation: Sendable, Equatable {
    public enum Kind: String, Sendable {
        case view, table
    }

    public let name: String
    public let kind: Kind
    /// One line for a person.
    public let summary: String

    public init(_ name: String, _ kind: Kind, _ summary: String) {
        self.name = name
        self.kind = kind
        self.summary = summary
    }
}

/// SQL from outside, over the documented views and tables, read-only.
///
/// Whatever the text is, the engine changes nothing, reads nothing but ``relations``, and bounds time, memory, and the
/// number of queries at once, so that other requests are answered as if no query were running.
public protocol SQLInspection: Sendable {
    /// What may be read.
    var relations: [SQLRelation] { get }

    /// Runs a query on the latest committed state.
    /// - Throws: `invalid_sql` for anything but a single statement, or one that fails, with the place if it is known;
    ///   `sql_not_allowed` for one that does anything but read ``relations``; `sql_limit_exceeded` for one that needs
    ///   more memory, or is larger when compiled, than the bounds; `validation_failed` for parameters that do not fit;
    ///   `deadline_exceeded`, `overloaded`, `shutting_down` and the storage failures.
    func answer(_ query: SQLQuery) async throws -> SQLAnswer
}
