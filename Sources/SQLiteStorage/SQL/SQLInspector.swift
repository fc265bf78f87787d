// Running ad-hoc SQL: a separate, confined connection for each query, and a bound on every resource it could exhaust.

import CAllocator
import Domain
import Glibc

/// Runs ad-hoc queries on one database file. See docs/design/sql-sandbox.md.
///
/// Each query has its own connection, which is closed when the query ends, and a thread that yields to the service's
/// other threads. Up to ``Limits/maxConcurrentSQL`` run at the same time and a few more wait; the rest are refused.
public final class SQLInspector: SQLInspection {
    public let relations = SQLRelation.documented
    private let path: String
    private let deadlineMilliseconds: Int64
    private let threads = BoundedThreads(
        count: Limits.maxConcurrentSQL, maxQueued: Limits.maxQueuedSQL, niceness: StorageLimits.sqlNiceness,
        refusal: "Too many SQL queries are waiting.")
    private let signal = StopSignal()

    /// - Parameters:
    ///   - path: a database file, which another process may be serving. It need not exist yet.
    ///   - deadlineMilliseconds: the time after which a query is ended.
    public init(path: String, deadlineMilliseconds: Int64 = Limits.sqlDeadlineMilliseconds) {
        self.path = path
        self.deadlineMilliseconds = deadlineMilliseconds
    }

    public func answer(_ query: SQLQuery) async throws -> SQLAnswer {
        try await threads.run { [path, deadlineMilliseconds, signal] in
            guard !signal.isRaised else { throw Failure.shuttingDown }
            var mostBytes = 0
            defer {
                // Memory that a large query has freed would otherwise stay with the allocator.
                if mostBytes > StorageLimits.maxSQLMemoryBytes / 8 { reprise_trim_malloc() }
            }
            let watch = Watch(signal: signal)
            do {
                return try Connection.withSandbox(
                    memoryBytes: StorageLimits.maxSQLMemoryBytes, watch: watch, mostBytes: &mostBytes
                ) {
                    try Self.run(query, path: path, watch: watch, deadlineMilliseconds)
                }
            } catch  where signal.isRaised {
                // Whatever the error says: it may be an allocation that failed because of the stop.
                throw Failure.shuttingDown
            }
        }
    }

    /// Ends running and waiting queries with `shutting_down`, and refuses later ones.
    public func stop() { signal.raise() }

    /// Does the same as ``stop()``, and waits for running queries to end.
    public func close() async {
        stop()
        await threads.close()
    }

    // MARK: One query

    private static func run(
        _ query: SQLQuery, path: String, watch: Watch, _ deadlineMilliseconds: Int64
    ) throws -> SQLAnswer {
        let connection = try open(path, watch)
        let policy = InspectionPolicy()
        do {
            try connection.configureInspector()
            try policy.open(connection)
            try connection.confine(to: policy)
            return try connection.withDeadline(milliseconds: deadlineMilliseconds) { connection in
                do {
                    return try rows(of: query, on: connection, watch)
                } catch is SQLiteError where watch.isOver {
                    throw SQLiteError.interruption
                }
            }
        } catch let error as SQLiteError {
            throw error.inspectionFailure(refusal: policy.refusal, deadlineMilliseconds: deadlineMilliseconds)
        } catch let error as StatementCountError {
            switch error {
            case .none: throw Failure.invalidSQL("The query contains no statement.")
            case .several: throw Failure.invalidSQL("The query contains more than one statement. Send one at a time.")
            }
        }
    }

    /// - Throws: the storage failures; ``OpeningError`` for another program's file, which a command line may name.
    private static func open(_ path: String, _ watch: Watch) throws -> Connection {
        do {
            do {
                return try open(path, .reader, watch)
            } catch let error as SQLiteError where error.isOfReadingWithoutLog && access(path + "-wal", F_OK) != 0 {
                // No process has the file open, and this one is not permitted to write the log's index next to it.
                return try open(path, .immutable, watch)
            }
        } catch {
            throw storageFailure(error)
        }
    }

    private static func open(_ path: String, _ mode: Connection.Mode, _ watch: Watch) throws -> Connection {
        let connection = try Connection(path: path, mode: mode, watch: watch, isSandboxed: true)
        // Reads from the file, which shows whether it is readable.
        try Migrator().checkOwnership(connection)
        return connection
    }

    private static func rows(of query: SQLQuery, on connection: Connection, _ watch: Watch) throws -> SQLAnswer {
        let started = ContinuousClock.now
        let statement = try connection.prepare(query.text)
        let columns = statement.columnNames
        // The policy has refused anything that writes; this covers kinds of statements for which SQLite does not ask
        // it.
        guard statement.isReadOnly, !columns.isEmpty else {
            throw Failure.sqlNotAllowed("the statement is not read-only")
        }
        try connection.checkWork(of: statement)
        try statement.bind(try values(for: statement.parameterNames, from: query.parameters))
        var answer = SQLAnswer(columns: columns, rows: [], isTruncated: false, elapsedSeconds: 0)
        var bytes = 0
        while try statement.step() {
            // SQLite may return rows without having checked.
            guard !watch.isOver else { throw SQLiteError.interruption }
            guard answer.rows.count < query.limit else {
                answer.isTruncated = true
                break
            }
            var row: [SQLValue] = []
            row.reserveCapacity(columns.count)
            for column in columns.indices {
                let value = statement.value(Int32(column))
                bytes += value.weight
                // Checked for each value, because one row may be as large as the memory budget.
                guard bytes <= Limits.maxSQLAnswerBytes else { break }
                row.append(value)
            }
            guard bytes <= Limits.maxSQLAnswerBytes else {
                answer.isTruncated = true
                break
            }
            answer.rows.append(row)
        }
        let (seconds, attoseconds) = (ContinuousClock.now - started).components
        answer.elapsedSeconds = Double(seconds) + Double(attoseconds / 1_000_000_000_000) / 1e6
        return answer
    }

    /// The values to bind, in the order of the statement's parameters.
    private static func values(for names: [String?], from parameters: SQLParameters) throws(Failure) -> [Value] {
        switch parameters {
        case .positional(let values):
            guard values.count == names.count else {
                throw .invalid("params", "must be \(names.count) values, one for each parameter of the query.")
            }
            return values.map(Value.init)
        case .named(let values):
            var errors: [Failure.FieldError] = []
            var bound: [Value?] = Array(repeating: nil, count: names.count)
            for (name, value) in values {
                let places = names.indices.filter { names[$0] == name || names[$0]?.dropFirst() == name[...] }
                if places.isEmpty {
                    errors.append(.init(field: "params.\(name)", message: "is not a parameter of the query."))
                }
                for place in places { bound[place] = Value(value) }
            }
            for (index, value) in bound.enumerated() where value == nil {
                let name = names[index].map { String($0.dropFirst()) } ?? "?\(index + 1)"
                errors.append(.init(field: "params.\(name)", message: "is a parameter of the query but has no value."))
            }
            guard errors.isEmpty else { throw .invalid(errors) }
            return bound.compactMap { $0 }
        }
    }
}

extension Value {
    fileprivate init(_ value: SQLValue) {
        self =
            switch value {
            case .null: .null
            case .integer(let value): .integer(value)
            case .real(let value): .real(value)
            case .text(let text): .text(text)
            case .blob(let bytes): .blob(bytes)
            }
    }
}
