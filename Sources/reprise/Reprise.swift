// The command line.

import ArgumentParser
import Domain
import Glibc

@main
struct Reprise: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reprise",
        abstract:
            "Durable cache, sessions, history and samples for apps that forget them: one process, one SQLite file.",
        discussion: """
            Start with 'reprise serve' and open http://127.0.0.1:8080/openapi.yaml.

            Exit codes: 0 done, 1 failed, 64 wrong usage, 78 wrong configuration. 'doctor' has its own.
            """,
        version: Version.current,
        subcommands: [
            ServeCommand.self, MigrateCommand.self, SQLCommand.self, DoctorCommand.self, TokenCommand.self,
            BackupCommand.self, RestoreCommand.self, HealthCommand.self,
        ])
}

/// Exits with a message for people and an exit code for scripts.
struct ExitMessage: Error {
    static let failed: Int32 = 1
    /// `EX_CONFIG` of sysexits.h.
    static let wrongConfiguration: Int32 = 78

    var message: String
    var code: Int32
    /// Whether the reason is a server that has the database open.
    var isServerRunning = false

    /// Prints the message and exits.
    func exit() -> Never {
        _ = "reprise: \(message)\n".withCString { write(STDERR_FILENO, $0, strlen($0)) }
        Glibc.exit(code)
    }
}
