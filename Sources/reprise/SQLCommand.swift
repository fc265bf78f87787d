// reprise sql: ad-hoc SQL queries, with or without a running server.

import ArgumentParser
import Domain
import FoundationEssentials
import Glibc
import NIOHTTP1
import SQLiteStorage

struct SQLCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sql",
        abstract: "Runs an ad-hoc SQL query and prints the rows.",
        discussion: """
            Opens the file read-only, whether a server runs on it or not, and allows what POST /v1/sql allows: one \
            SELECT over the documented views and tables. Without a query it lists those. With --url, it asks a server \
            instead.

                reprise sql "SELECT namespace, hits, hit_ratio FROM cache_stats"
                reprise sql --csv - < report.sql > report.csv

            NULL is shown as NULL, and a text that reads so as 'NULL'. Long texts are cut in the table, not with \
            --csv and --json.
            """)

    @Argument(help: ArgumentHelp("One SQL statement, or - to read it from standard input.", valueName: "query"))
    var query: String?
    @Flag(help: "Prints comma-separated values (RFC 4180).") var csv = false
    @Flag(help: "Prints JSON, as POST /v1/sql answers it.") var json = false
    @Option(help: "Maximum number of rows to print.") var limit = Limits.defaultSQLRows
    @OptionGroup var server: ServerOptions
    @OptionGroup var options: SettingsOptions

    /// Nobody else is waiting here, so a query may take longer than on the server.
    private static let deadlineMilliseconds: Int64 = 60_000

    func validate() throws {
        if csv && json { throw ValidationError("--csv and --json cannot be used together.") }
        guard (1...Limits.maxSQLRows).contains(limit) else {
            throw ValidationError("--limit must be from 1 to \(Limits.maxSQLRows).")
        }
    }

    func run() async throws {
        do throws(ExitMessage) {
            let settings = try await options.load()
            let path = try StorageSelection(settings).path
            guard let query else {
                print(SQLTable.list(SQLInspector(path: path).relations))
                return
            }
            let text = query == "-" ? try Self.standardInput() : query
            if server.namesServer {
                try await write(answer(to: text, from: try ServerClient(server, settings: settings)))
            } else {
                try await write(answer(to: text, path: path))
            }
        } catch {
            error.exit()
        }
    }

    private func answer(to text: String, path: String) async throws(ExitMessage) -> SQLAnswer {
        guard access(path, R_OK) == 0 else {
            throw Self.failed(
                "\(path): cannot be read: \(String(cString: strerror(errno))). Choose the database with --database.")
        }
        let inspector = SQLInspector(path: path, deadlineMilliseconds: Self.deadlineMilliseconds)
        do {
            let answer = try await inspector.answer(try SQLQuery(text, limit: limit))
            await inspector.close()
            return answer
        } catch let failure as Failure {
            await inspector.close()
            let place = failure.queryOffset.map { "\n" + SQLTable.place(of: $0, in: text) } ?? ""
            throw Self.failed(Self.explain(failure, path) + place)
        } catch {
            await inspector.close()
            throw Self.failed("\(path): \(error)")
        }
    }

    private func answer(to text: String, from server: ServerClient) async throws(ExitMessage) -> SQLAnswer {
        let answer = try await server.request(
            .POST, "/v1/sql", ["query": .string(text), "limit": .integer(limit)])
        guard answer.status == 200 else {
            let place = answer.json?["offset"]?.integerValue.map { "\n" + SQLTable.place(of: Int($0), in: text) } ?? ""
            throw Self.failed(answer.explanation + place)
        }
        guard let rows = answer.json.flatMap({ SQLAnswer($0) }) else {
            throw Self.failed("\(server.description) does not answer as a Reprise server does.")
        }
        return rows
    }

    private func write(_ answer: SQLAnswer) async throws(ExitMessage) {
        if csv {
            try await answer.writeCSV { (bytes) throws(ExitMessage) in try Self.write(bytes) }
        } else if json {
            try await answer.writeJSON { (bytes) throws(ExitMessage) in try Self.write(bytes) }
            try Self.write([UInt8(ascii: "\n")])
        } else {
            try Self.write(Array(SQLTable(answer).text.utf8))
        }
        // JSON says it itself.
        if answer.isTruncated, !json {
            let note =
                answer.rows.count < limit
                ? "the first \(answer.rows.count) rows are \(Limits.maxSQLAnswerBytes >> 20) MiB; there are more"
                : "the first \(limit) rows; there are more, --limit shows up to \(Limits.maxSQLRows)"
            _ = "reprise: \(note)\n".withCString { Glibc.write(STDERR_FILENO, $0, strlen($0)) }
        }
    }

    /// Writes all of it.
    private static func write(_ bytes: [UInt8]) throws(ExitMessage) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let written = rest.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            guard written > 0 || errno == EINTR else {
                throw failed("cannot write the rows: \(String(cString: strerror(errno)))")
            }
            rest = rest.dropFirst(max(written, 0))
        }
    }

    private static func standardInput() throws(ExitMessage) -> String {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(STDIN_FILENO, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failed("cannot read the query: \(String(cString: strerror(errno)))") }
            bytes += buffer.prefix(count)
            // One byte more than the limit is enough to be refused.
            if count == 0 || bytes.count > Limits.maxSQLBytes { break }
        }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw failed("the query is not valid UTF-8.") }
        return text
    }

    /// What a failure means to someone who has the file, but perhaps no server.
    private static func explain(_ failure: Failure, _ path: String) -> String {
        switch failure.code {
        case .databaseDamaged:
            "\(path): not an SQLite database, or damaged. Choose another --database, or restore a backup."
        case .databaseBusy: "\(path): locked by another program. Try again."
        case .storageUnavailable, .databaseReadOnly:
            "\(path): cannot be read: the file system failed, or you may not read its -wal and -shm beside it."
        default: failure.detail
        }
    }

    private static func failed(_ message: String) -> ExitMessage {
        ExitMessage(message: message, code: ExitMessage.failed)
    }
}

extension SQLAnswer {
    /// - Parameter json: an answer of `POST /v1/sql`.
    fileprivate init?(_ json: JSON) {
        guard case .array(let columns)? = json["columns"], case .array(let rows)? = json["rows"],
            case .bool(let isTruncated)? = json["truncated"]
        else { return nil }
        self.init(
            columns: columns.compactMap(\.stringValue),
            rows: rows.map { row in
                guard case .array(let values) = row else { return [] }
                return values.map { SQLValue($0) }
            },
            isTruncated: isTruncated, elapsedSeconds: json["elapsed_seconds"]?.doubleValue ?? 0)
    }
}

extension SQLValue {
    fileprivate init(_ json: JSON) {
        switch json {
        case .string(let text): self = .text(text)
        case .object:
            let bytes = json["base64"]?.stringValue.flatMap { Data(base64Encoded: $0) } ?? Data()
            self = .blob(Array(bytes))
        case .number(let text):
            // A real is written with a point or an exponent.
            if let value = json.integerValue, text.utf8.allSatisfy({ $0 != UInt8(ascii: ".") && $0 | 0x20 != 0x65 }) {
                self = .integer(value)
            } else {
                self = json.doubleValue.map { .real($0) } ?? .null
            }
        default: self = .null
        }
    }
}
