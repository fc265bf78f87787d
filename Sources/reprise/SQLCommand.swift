// reprise sql: ad-hoc SQL queries, with or without a running server.

import ArgumentParser
import Domain
import Glibc
import SQLiteStorage

struct SQLCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sql",
        abstract: "Runs an ad-hoc SQL query and prints the rows.",
        discussion: """
            Opens the file read-only, whether a server runs on it or not, and allows what POST /v1/sql allows: one \
            SELECT over the documented views and tables. Without a query it lists those.

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
            let path = switch try StorageSelection(database: settings.text(.database)) { case .sqlite(let path): path }
            guard let query else {
                print(SQLTable.list(SQLInspector(path: path).relations))
                return
            }
            let answer = try await answer(to: query == "-" ? try Self.standardInput() : query, path: path)
            try await write(answer)
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
