// reprise restore: puts a backup in the place of the database.

import ArgumentParser
import Domain
import SQLiteStorage

struct RestoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Verifies a backup and puts a copy of it in the place of the database.",
        discussion: """
            The server must not be running. The copy is verified completely before the database is touched: its \
            SHA-256, all pages, rows and indexes, and its schema. Then the two change places in one step, so a crash \
            at any moment leaves the old database or the new one. The old one is kept beside it; its new name is \
            printed.

                reprise backup list
                reprise restore reprise-20261123T071400.123Z.db --force
            """)

    @Argument(help: ArgumentHelp("A backup's name, or the path of a file.", valueName: "backup"))
    var backup: String
    @Flag(help: "Replaces the database that is there.") var force = false
    @OptionGroup var options: SettingsOptions

    func run() async throws {
        do throws(ExitMessage) {
            let settings = try await options.load()
            let database = try StoppedDatabase.open(settings)
            let progress = TerminalProgress("copying and verifying")
            let restored = try Self.reporting(progress) {
                try database.restore(from: database.file(meantBy: backup), isForced: force) { done, all in
                    progress.report(done, of: all)
                }
            }
            announce("restored \(restored.sizeBytes) bytes to \(database.path)\n")
            announce("SHA-256 \(restored.entityTag.hex)\n")
            if !restored.hadHash {
                announce(
                    "there is no .json with its hash beside the backup: its structure was verified, its values were "
                        + "not; 'reprise doctor --deep' does\n")
            }
            if let kept = restored.keptPath {
                announce("the database that was there is \(kept); remove it when you no longer need it\n")
            }
        } catch {
            error.exit()
        }
    }

    /// Runs `body` and turns what it throws into a message for people.
    private static func reporting<T>(
        _ progress: TerminalProgress, _ body: () throws -> T
    ) throws(ExitMessage) -> T {
        defer { progress.end() }
        do { return try body() } catch { throw ExitMessage(failed: error) }
    }
}

extension StoppedDatabase {
    /// The database that the settings choose.
    /// - Throws: ``ExitMessage``, also if a server has it open.
    static func open(_ settings: Settings) throws(ExitMessage) -> StoppedDatabase {
        let path = try StorageSelection(settings).path
        do {
            return try StoppedDatabase(path: path, backupDirectory: settings.text(.backupDirectory))
        } catch {
            throw ExitMessage(failed: error)
        }
    }
}

extension ExitMessage {
    /// What a failure says for people.
    init(failed error: any Error) {
        if let message = error as? ExitMessage {
            self = message
        } else {
            self.init(message: (error as? Failure)?.detail ?? "\(error)", code: Self.failed)
        }
    }
}
