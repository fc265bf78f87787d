// reprise health: asks a running server whether it is ready. For containers, whose images have no HTTP client.

import ArgumentParser
import Domain
import NIOCore
import NIOHTTP1

struct HealthCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "health",
        abstract: "Checks whether the server on this machine is ready: exit code 0 if it is, 1 if not.",
        discussion: """
            Looks for the server where the settings say it listens, over its Unix domain socket, HTTP or HTTPS; --url \
            names another. Made for HEALTHCHECK of a container:

                HEALTHCHECK CMD ["reprise", "health"]
            """)

    @OptionGroup var server: ServerOptions
    @OptionGroup var options: SettingsOptions

    /// Longest time to wait for the answer, in seconds.
    private static let deadlineSeconds: Int64 = 5

    func run() async throws {
        do throws(ExitMessage) {
            let client = try ServerClient(server, settings: try await options.load())
            let answer = try await client.request(.GET, "/health/ready", within: .seconds(Self.deadlineSeconds))
            guard answer.status == 200 else {
                throw ExitMessage(message: "the server is not ready: \(answer.explanation)", code: ExitMessage.failed)
            }
            announce("ready\n")
        } catch {
            error.exit()
        }
    }
}
