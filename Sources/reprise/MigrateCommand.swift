// reprise migrate: updates the database's schema without serving it.

import ArgumentParser
import Domain

struct MigrateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "migrate",
        abstract: "Updates the database's schema to this version and exits.",
        discussion: """
            'reprise serve' does the same when it starts. Migrations only go forward, each in one transaction: if one \
            fails, nothing of it remains. The server must not be running.
            """)

    @OptionGroup var options: SettingsOptions

    func run() async throws {
        do {
            let settings = LiveSettings(try await options.load())
            let storage = try openStorage(settings, for: .command, logger: StructuredLogHandler.bootstrap(settings))
            let version = try await storage.health.checkReadiness()
            await storage.close()
            announce("\(settings.current.text(.database)) is at schema version \(version)\n")
        } catch let error as ExitMessage {
            error.exit()
        }
    }
}
