// What ad-hoc SQL may do and read, as lists of what is allowed. Anything that is not on a list is refused, so a new
// table, pragma or function stays closed until it is added here.

import Domain

/// What SQLite asks about while it compiles a statement. https://sqlite.org/c3ref/c_alter_table.html
enum SQLAction: Equatable {
    case select
    case recursive
    /// An empty column when only rows are counted.
    case read(table: String, column: String)
    case function(String)
    case pragma(String, argument: String?)
    /// Anything that writes, attaches, begins or defines something.
    case other(code: Int32)
}

/// Decides for one connection, and remembers the first refusal. Like the connection, it is not thread-safe.
final class InspectionPolicy {
    private let tables: Set<String>

    /// Names of everything in the file and in the library that can supply rows, in lower case.
    ///
    /// For a table whose rows are only counted, SQLite asks with the name in the query, and asks in the same way for
    /// the names of WITH clauses. A name that is not in this set belongs to a WITH clause.
    private var closed: Set<String> = []

    /// What was refused, for the caller; nil if nothing was.
    private(set) var refusal: String?

    init(tables: [String] = SQLRelation.documented.map(\.name)) { self.tables = Set(tables) }

    func permits(_ action: SQLAction) -> Bool {
        let refusal: String? =
            switch action {
            case .select, .recursive: nil
            // The view through which a table is read must not matter: a WITH clause can have the name of any view.
            case .read(let table, let column):
                mayRead(table.lowercased(), isCounted: column.isEmpty) ? nil : "\(table) cannot be read"
            case .function(let name): Self.functions.contains(name) ? nil : "the function \(name)() is not available"
            case .pragma(let name, let argument): refusal(ofPragma: name.lowercased(), argument)
            case .other: "the statement is not read-only"
            }
        guard let refusal else { return true }
        if self.refusal == nil { self.refusal = refusal }
        return false
    }

    private func mayRead(_ table: String, isCounted: Bool) -> Bool {
        if tables.contains(table) || Self.tableFunctions.contains(table) { return true }
        if table.hasPrefix("pragma_") { return Self.pragmas.contains(String(table.dropFirst("pragma_".count))) }
        return isCounted && !closed.contains(table) && !table.hasPrefix("sqlite_")
    }

    private func refusal(ofPragma name: String, _ argument: String?) -> String? {
        guard Self.pragmas.contains(name) else { return "PRAGMA \(name) is not available" }
        guard let argument else { return name == "table_list" ? nil : "PRAGMA \(name) needs the name of a table" }
        return tables.contains(argument.lowercased()) ? nil : "\(argument) cannot be read"
    }

    /// They show the schema of readable tables, which is public. `table_list` shows all names.
    private static let pragmas: Set = ["table_info", "table_xinfo", "table_list", "index_list", "foreign_key_list"]

    /// Tables that are functions.
    private static let tableFunctions: Set = ["json_each", "json_tree"]

    /// Functions that have no side effects, reveal nothing, and take time in proportion to their arguments' length,
    /// because SQLite checks the clock only between calls. json_patch() takes the product of two lengths; printf() and
    /// format() count to any width of ten digits, in SQLite 3.40 without checking whether the text may get that long.
    private static let functions: Set = [
        // https://sqlite.org/lang_corefunc.html
        "abs", "char", "coalesce", "concat", "concat_ws", "glob", "hex", "if", "ifnull", "iif", "instr",
        "length", "like", "likelihood", "likely", "lower", "ltrim", "max", "min", "nullif", "octet_length", "quote",
        "random", "replace", "round", "rtrim", "sign", "sqlite_version", "substr", "substring", "trim",
        "typeof", "unhex", "unicode", "unistr", "unlikely", "upper",
        // https://sqlite.org/lang_aggfunc.html
        "avg", "count", "group_concat", "median", "percentile", "percentile_cont", "percentile_disc", "string_agg",
        "sum", "total",
        // https://sqlite.org/windowfunctions.html
        "cume_dist", "dense_rank", "first_value", "lag", "last_value", "lead", "nth_value", "ntile", "percent_rank",
        "rank", "row_number",
        // https://sqlite.org/lang_datefunc.html
        "current_date", "current_time", "current_timestamp", "date", "datetime", "julianday", "strftime", "time",
        "timediff", "unixepoch",
        // https://sqlite.org/json1.html
        "->", "->>", "json", "json_array", "json_array_length", "json_error_position", "json_extract",
        "json_group_array", "json_group_object", "json_insert", "json_object", "json_pretty", "json_quote",
        "json_remove", "json_replace", "json_set", "json_type", "json_valid",
        // https://sqlite.org/lang_mathfunc.html
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "ceiling", "cos", "cosh", "degrees", "exp",
        "floor", "ln", "log", "log10", "log2", "mod", "pi", "pow", "power", "radians", "sin", "sinh", "sqrt", "tan",
        "tanh", "trunc",
    ]
}

extension InspectionPolicy {
    /// Prepares a connection before it is confined: registers the table-valued functions, for which SQLite runs a
    /// CREATE TABLE that the policy would refuse, and collects the names in ``closed``.
    func open(_ connection: Connection) throws(SQLiteError) {
        try connection.run(
            """
            SELECT 1 FROM json_each, json_tree, pragma_table_info, pragma_table_xinfo, pragma_table_list,
                pragma_index_list, pragma_foreign_key_list LIMIT 0
            """)
        closed = Set(
            try connection.all(
                """
                SELECT lower(name) FROM sqlite_schema WHERE type IN ('table', 'view')
                UNION SELECT lower(name) FROM pragma_module_list
                """
            ) { $0.text(0) })
    }
}

extension SQLRelation {
    /// Everything that ad-hoc SQL may read, as described in docs/sql.md. Nothing secret belongs here.
    static let documented = [
        SQLRelation("cache_stats", .view, "hits, misses by reason, live entries and bytes of each namespace"),
        SQLRelation("cache_overview", .view, "every live entry as the API shows it, without its value"),
        SQLRelation("session_sizes", .view, "keys, bytes and history of each live session"),
        SQLRelation("session_overview", .view, "every session as the API shows it"),
        SQLRelation("history_counts", .view, "history items and bytes of each live session, by kind"),
        SQLRelation("history_overview", .view, "every history item under its session's id"),
        SQLRelation("maintenance_log", .view, "what the background work did, and when"),
        SQLRelation("operation_stats", .view, "percentiles of each timed operation"),
        SQLRelation("operation_stats_hourly", .view, "the same by hour"),
        SQLRelation("memory_usage", .view, "memory of each process that was sampled"),
        SQLRelation("timing_values", .view, "every timing kept, or its bucket, with its count"),
        SQLRelation("timing_figures", .view, "counts, errors and extremes of timings by hour"),
        SQLRelation("cache_namespaces", .table, "namespaces: policy and counters"),
        SQLRelation("cache_misses", .table, "misses of each namespace by reason"),
        SQLRelation("cache_activity", .table, "look-ups, expirations and evictions by minute and hour"),
        SQLRelation("cache_generations", .table, "contents of namespaces, including cleared ones"),
        SQLRelation("cache_entries", .table, "entries without their values"),
        SQLRelation("cache_entry_tags", .table, "tags of entries"),
        SQLRelation("cache_values", .table, "values of up to 64 KiB"),
        SQLRelation("cache_blobs", .table, "larger values"),
        SQLRelation("cache_chunks", .table, "the chunks of larger values"),
        SQLRelation("cache_removals", .table, "why keys no longer have an entry"),
        SQLRelation("sessions", .table, "sessions and their figures"),
        SQLRelation("session_state", .table, "keys that sessions have set"),
        SQLRelation("session_templates", .table, "session templates"),
        SQLRelation("session_template_defaults", .table, "defaults of session templates"),
        SQLRelation("history_items", .table, "history items, in order of commit"),
        SQLRelation("debounce_marks", .table, "when debounces were last allowed"),
        SQLRelation("maintenance_runs", .table, "runs of background tasks"),
        SQLRelation("maintenance_activity", .table, "what background tasks did by minute and hour"),
        SQLRelation("sample_series", .table, "what is measured: names, variants, kinds"),
        SQLRelation("samples", .table, "individual performance samples"),
        SQLRelation("sample_rollups", .table, "figures of each series by minute, hour and six hours"),
        SQLRelation("sample_rollup_buckets", .table, "their distributions"),
        SQLRelation("sample_buckets", .table, "the value each bucket stands for"),
        SQLRelation("sample_progress", .table, "how far the roll-up has come"),
        SQLRelation("runtime_settings", .table, "settings changed at run time"),
        SQLRelation("schema_migrations", .table, "migrations applied to this file"),
    ]
}

extension Failure {
    /// - Parameter what: what was refused, as part of a sentence.
    static func sqlNotAllowed(_ what: String) -> Failure {
        Failure(
            .sqlNotAllowed,
            "Not allowed: \(what). Only a SELECT over the documented views and tables is allowed. docs/sql.md lists "
                + "them; PRAGMA table_info(NAME) shows the columns of one.")
    }
}
