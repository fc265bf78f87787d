// reprise backup: makes and lists backups, through the server if one runs, otherwise from the file itself.

import ArgumentParser
import Domain
import Glibc
import Logging
import NIOHTTP1
import SQLiteStorage

struct BackupCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup",
        abstract: "Makes a backup of the database, or lists the backups.",
        discussion: """
            If a server runs on the database, or one is named with --url, that server makes the backup while it \
            continues to serve. Otherwise the file is read directly, and no server can start on it meanwhile.

                reprise backup
                reprise backup --output /mnt/other/reprise.db
                reprise backup list

            'reprise restore' puts a backup in the place of the database.
            """,
        subcommands: [Create.self, List.self], defaultSubcommand: Create.self)

    /// Who has the backups.
    fileprivate enum Place {
        case server(ServerClient)
        case file(StoppedDatabase, Settings)
        /// The database is not there.
        case lost(path: String)

        init(_ server: ServerOptions, _ settings: Settings) throws(ExitMessage) {
            guard !server.namesServer else {
                self = .server(try ServerClient(server, settings: settings))
                return
            }
            let path = try StorageSelection(settings).path
            guard access(path, F_OK) == 0 else {
                self = .lost(path: path)
                return
            }
            do throws(OpeningError) {
                self = .file(
                    try StoppedDatabase(path: path, backupDirectory: settings.text(.backupDirectory)), settings)
            } catch {
                guard error.isHeldByServer else { throw ExitMessage(failed: error) }
                self = .server(try ServerClient(server, settings: settings, serving: path))
            }
        }
    }

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create", abstract: "Makes a backup, verifies it and prints its name. The default.")

        @Option(help: ArgumentHelp("Also writes the backup to this file.", valueName: "file")) var output: String?
        @OptionGroup var server: ServerOptions
        @OptionGroup var options: SettingsOptions

        func run() async throws {
            do throws(ExitMessage) {
                let settings = try await options.load()
                let place = try Place(server, settings)
                // Before a backup is made for nothing.
                let export = try output.map { path throws(ExitMessage) in try BackupCommand.export(to: path) }
                let backup =
                    switch place {
                    case .server(let client): try await BackupCommand.create(through: client)
                    case .file(let database, let settings): try await BackupCommand.create(of: database, settings)
                    case .lost(let path):
                        throw ExitMessage(
                            message: "there is no database at \(path). Choose it with --database, or a server with "
                                + "--url.", code: ExitMessage.failed)
                    }
                announce(
                    "made \(backup.name): \(backup.sizeBytes) bytes in \(JSON.decimal(backup.durationSeconds).text) s, "
                        + "SHA-256 \(backup.entityTag.hex)\n")
                guard let export, let output else { return }
                switch place {
                case .server(let client): try await BackupCommand.fetch(backup, through: client, into: export)
                case .file(let database, _): try BackupCommand.copy(backup, of: database, into: export)
                case .lost: break
                }
                announce("wrote \(output)\n")
            } catch {
                error.exit()
            }
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list", abstract: "Lists the backups, the newest first.")

        @Flag(help: "Prints JSON, with the items of GET /v1/backups.") var json = false
        @OptionGroup var server: ServerOptions
        @OptionGroup var options: SettingsOptions

        func run() async throws {
            do throws(ExitMessage) {
                let settings = try await options.load()
                let (backups, folder) = try await BackupCommand.backups(of: try Place(server, settings), settings)
                if json {
                    announce(JSON.object([.init(name: "items", value: .array(backups.map(\.json)))]).text + "\n")
                } else if backups.isEmpty {
                    announce("there are no backups\(folder.map { " in \($0)" } ?? "")\n")
                } else {
                    announce(BackupCommand.table(of: backups))
                }
            } catch {
                error.exit()
            }
        }
    }

    /// Longest time a server may take to make a backup: that of a terabyte or so.
    private static let longestSeconds: Int64 = 6 * 3600

    /// - Returns: the backups, and the path of their folder if it is on this machine for sure.
    private static func backups(
        of place: Place, _ settings: Settings
    ) async throws(ExitMessage) -> (backups: [Backup], folder: String?) {
        switch place {
        case .server(let client): return (try await backups(at: client), nil)
        case .file(let database, _):
            do { return (try database.backups(), database.backupFolder) } catch { throw ExitMessage(failed: error) }
        case .lost(let path):
            let found: (backups: [Backup], folder: String)
            do {
                found = try StoppedDatabase.backups(
                    ofDatabase: path, backupDirectory: settings.text(.backupDirectory))
            } catch {
                throw ExitMessage(failed: error)
            }
            guard !found.backups.isEmpty else {
                throw ExitMessage(
                    message: "there is no database at \(path), and there are no backups in \(found.folder). Choose the "
                        + "database with --database, or a server with --url.", code: ExitMessage.failed)
            }
            return (found.backups, found.folder)
        }
    }

    // MARK: From the file

    private static func create(of database: StoppedDatabase, _ settings: Settings) async throws(ExitMessage) -> Backup {
        let progress = TerminalProgress("copying")
        defer { progress.end() }
        var logger = StructuredLogHandler.bootstrap(LiveSettings(settings))
        // The command itself says what happened.
        logger.logLevel = .critical
        do {
            return try await database.createBackup(keep: settings.integer(.backupKeep), logger: logger) { done, all in
                progress.report(done, of: all)
            }
        } catch {
            throw ExitMessage(failed: error)
        }
    }

    private static func copy(
        _ backup: Backup, of database: StoppedDatabase, into export: BackupExport
    ) throws(ExitMessage) {
        let progress = TerminalProgress("writing")
        defer { progress.end() }
        do {
            try export.write(contentsOf: database.file(meantBy: backup.name.rawValue)) {
                progress.report($0, of: backup.sizeBytes)
            }
            try export.finish(backup)
        } catch {
            throw ExitMessage(failed: error)
        }
    }

    private static func export(to path: String) throws(ExitMessage) -> BackupExport {
        do { return try BackupExport(path: path) } catch { throw ExitMessage(failed: error) }
    }

    // MARK: Through a server

    private static func create(through client: ServerClient) async throws(ExitMessage) -> Backup {
        let progress = TerminalProgress("the server makes a backup")
        defer { progress.end() }
        progress.report(0, of: nil)
        var client = client
        client.silenceSeconds = longestSeconds
        let answer = try await client.request(.POST, "/v1/backups")
        guard answer.status == 201, let backup = answer.json.flatMap(Backup.init(json:)) else {
            throw refusal(answer)
        }
        return backup
    }

    private static func backups(at client: ServerClient) async throws(ExitMessage) -> [Backup] {
        var backups: [Backup] = []
        var cursor = ""
        repeat {
            let answer = try await client.request(
                .GET, "/v1/backups?limit=\(Limits.maxPageItems)" + (cursor.isEmpty ? "" : "&cursor=\(cursor)"))
            guard answer.status == 200, let page = answer.json, case .array(let items)? = page["items"] else {
                throw refusal(answer)
            }
            backups += items.compactMap(Backup.init(json:))
            cursor = page["next_cursor"]?.stringValue ?? ""
        } while !cursor.isEmpty
        return backups
    }

    private static func fetch(
        _ backup: Backup, through client: ServerClient, into export: BackupExport
    ) async throws(ExitMessage) {
        let progress = TerminalProgress("fetching")
        defer { progress.end() }
        let answer = try await client.download("/v1/backups/\(backup.name)") { (bytes) throws(ExitMessage) in
            do {
                try bytes.withUnsafeBytes { try export.write($0) }
            } catch {
                throw ExitMessage(failed: error)
            }
        } progress: {
            progress.report($0, of: $1)
        }
        guard answer.status == 200 else { throw refusal(answer) }
        do {
            try export.finish(backup)
        } catch {
            throw ExitMessage(failed: error)
        }
    }

    private static func refusal(_ answer: ServerClient.Answer) -> ExitMessage {
        let explanation =
            answer.status == 401
            ? "it did not accept the token, or needs one: pass --token-file FILE, or set REPRISE_TOKEN"
            : answer.explanation
        return ExitMessage(message: "the server answered: \(explanation)", code: ExitMessage.failed)
    }

    // MARK: What is printed

    private static func table(of backups: [Backup]) -> String {
        let rows = backups.map { backup -> [SQLValue] in
            [
                .text(backup.name.rawValue), .text(backup.createdAt.rfc3339), .integer(Int64(backup.sizeBytes)),
                .real(backup.durationSeconds),
            ]
        }
        return SQLTable(
            SQLAnswer(
                columns: ["name", "created_at", "size_bytes", "duration_seconds"], rows: rows, isTruncated: false,
                elapsedSeconds: 0)
        ).text
    }
}
