// reprise token: makes, lists and revokes tokens, with or without a running server.

import ArgumentParser
import Domain
import Glibc
import HTTPAPI
import Logging
import NIOHTTP1

struct TokenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token",
        abstract: "Creates, lists and revokes tokens.",
        discussion: """
            Beside a running server it sends requests, with the token in --token-file or REPRISE_TOKEN if one is \
            needed. Without a server it opens the database. So somebody who lost all admin tokens can stop the server \
            and make one.
            """,
        subcommands: [Create.self, List.self, Revoke.self])

    struct Create: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Creates a token and prints it: the only time that it is shown.",
            discussion: """
                    reprise token create ci --scope admin
                    reprise token create melodai --scope write --namespace quality --namespace 'models*'
                """)

        @Argument(help: "What the token is for.") var name: String
        @Option(help: "read, write or admin; each includes the ones before it (default: read). Can be repeated.")
        var scope: [String] = []
        @Option(
            help: ArgumentHelp(
                "A cache namespace that the token is limited to, or the beginning of one followed by *. Can be "
                    + "repeated. Without any, it reaches everything.", valueName: "name"))
        var namespace: [String] = []
        @Option(
            name: .customLong("expires-in"),
            help: ArgumentHelp("When the token stops being valid (default: never).", valueName: "seconds"))
        var expiresIn: Double?
        @OptionGroup var server: ServerOptions
        @OptionGroup var options: SettingsOptions

        func run() async throws {
            do throws(ExitMessage) {
                var members: [JSON.Member] = [
                    .init(name: "name", value: .string(name)),
                    .init(
                        name: "scopes",
                        value: .array((scope.isEmpty ? ["read"] : scope).map { .string($0) })),
                ]
                if !namespace.isEmpty {
                    members.append(.init(name: "namespaces", value: .array(namespace.map { .string($0) })))
                }
                if let expiresIn { members.append(.init(name: "expires_in_seconds", value: .decimal(expiresIn))) }
                let (text, note) = try await TokenAccess(server, options, isCreating: true).create(.object(members))
                announce(text + "\n")
                if let note { _ = "reprise: \(note)\n".withCString { write(STDERR_FILENO, $0, strlen($0)) } }
            } catch {
                error.exit()
            }
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the tokens, without their secrets.")

        @Flag(help: "Prints JSON, as GET /v1/tokens answers it.") var json = false
        @OptionGroup var server: ServerOptions
        @OptionGroup var options: SettingsOptions

        func run() async throws {
            do throws(ExitMessage) {
                let tokens = try await TokenAccess(server, options).list()
                if json {
                    announce(JSON.object([.init(name: "items", value: .array(tokens))]).text + "\n")
                } else {
                    announce(Self.table(tokens))
                }
            } catch {
                error.exit()
            }
        }

        private static func table(_ tokens: [JSON]) -> String {
            let columns = ["id", "name", "scopes", "namespaces", "created_at", "expires_at", "last_used_at"]
            let rows = tokens.map { token in
                columns.map { column -> String in
                    switch token[column] {
                    case .string(let text): text
                    case .array(let items): items.compactMap(\.stringValue).joined(separator: " ")
                    default: column == "namespaces" ? "all" : column == "expires_at" ? "never" : "-"
                    }
                }
            }
            return SQLTable(columns: columns, rows: rows).text
        }
    }

    struct Revoke: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Revokes a token at once.", discussion: "'reprise token list' shows the ids.")

        @Argument(help: "The token's id: the digits after rpr_.") var id: String
        @OptionGroup var server: ServerOptions
        @OptionGroup var options: SettingsOptions

        func run() async throws {
            do throws(ExitMessage) {
                try await TokenAccess(server, options).revoke(id)
                announce("revoked \(AccessToken.id(meantBy: id))\n")
            } catch {
                error.exit()
            }
        }
    }
}

/// The tokens of a running server, or of the database if none runs.
private struct TokenAccess {
    private enum Place {
        case server(ServerClient)
        case file(any StorageEngine)
    }

    private let place: Place
    private let settings: Settings

    /// - Parameter isCreating: whether a missing database is created.
    init(_ server: ServerOptions, _ options: SettingsOptions, isCreating: Bool = false) async throws(ExitMessage) {
        let settings = try await options.load()
        self.settings = settings
        // Whoever says where a server is, or has a token for it, does not mean the file; whoever gives the flags of the
        // server does, when it is stopped.
        if server.namesServer || server.tokenFile != nil {
            place = .server(try ServerClient(server, settings: settings))
            return
        }
        if options.host != nil || options.port != nil {
            let client = try ServerClient(server, settings: settings)
            if (try? await client.request(.GET, "/health/live")) != nil {
                place = .server(client)
                return
            }
        }
        do throws(ExitMessage) {
            let live = LiveSettings(settings)
            let path = try StorageSelection(settings).path
            guard isCreating || access(path, F_OK) == 0 else {
                throw Self.failed("there is no database at \(path). Name it with --database, or a server with --url.")
            }
            var logger = StructuredLogHandler.bootstrap(live)
            // The command itself says what happened.
            if settings.source(of: .logLevel) == .default { logger.logLevel = .warning }
            place = .file(try openStorage(live, for: .command, logger: logger))
        } catch where error.isServerRunning {
            place = .server(try ServerClient(server, settings: settings, serving: settings.text(.database)))
        }
    }

    /// - Parameter draft: the body of `POST /v1/tokens`.
    /// - Returns: the token's text, and what its maker should know.
    func create(_ draft: JSON) async throws(ExitMessage) -> (text: String, note: String?) {
        switch place {
        case .server(let client):
            let answer = try await client.request(.POST, "/v1/tokens", draft)
            guard answer.status == 201, let text = answer.json?["token"]?.stringValue else {
                throw Self.failed(answer)
            }
            // Where no token was needed, one is now.
            let isAdmin = answer.json?["scopes"]?.text.contains("admin") == true
            let isStillAdmitted =
                if isAdmin { true } else { try await client.request(.GET, "/v1/tokens?limit=1").status != 401 }
            return (text, isStillAdmitted ? nil : Self.lockedOut)
        case .file(let storage):
            return try await closing(storage) {
                var reader = try ObjectReader(draft)
                let draft = TokenDraft(&reader)
                try reader.finish()
                let (token, text) = draft.token(now: WallClock.system.now())
                try await storage.accessTokens.addToken(token)
                let hasAdmin =
                    !settings.text(.adminToken).isEmpty
                    || storage.accessTokens.tokens.contains {
                        $0.includes(.admin) && $0.namespaces == nil && $0.expiresAt == nil
                    }
                return (text, hasAdmin ? nil : Self.lockedOut)
            }
        }
    }

    private static let lockedOut =
        "no lasting token has the scope admin, so nobody can manage tokens, settings or backups of the running server. "
        + "'reprise token create NAME --scope admin' makes one while the server is stopped."

    func list() async throws(ExitMessage) -> [JSON] {
        switch place {
        case .server(let client):
            var tokens: [JSON] = []
            var cursor = ""
            repeat {
                let answer = try await client.request(.GET, "/v1/tokens?limit=\(Limits.maxPageItems)\(cursor)")
                guard answer.status == 200, let page = answer.json, case .array(let items) = page["items"] else {
                    throw Self.failed(answer)
                }
                tokens += items
                cursor = page["next_cursor"]?.stringValue.map { "&cursor=\($0)" } ?? ""
            } while !cursor.isEmpty
            return tokens
        case .file(let storage):
            return try await closing(storage) { storage.accessTokens.tokens.map(\.json) }
        }
    }

    func revoke(_ text: String) async throws(ExitMessage) {
        let id = AccessToken.id(meantBy: text)
        switch place {
        case .server(let client):
            guard id.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x7A).contains($0) }), !id.isEmpty else {
                throw Self.failed("this is not the id of a token; 'reprise token list' shows the ids")
            }
            let answer = try await client.request(.DELETE, "/v1/tokens/\(id)")
            guard answer.status == 204 else { throw Self.failed(answer) }
        case .file(let storage):
            try await closing(storage) { try await storage.accessTokens.removeToken(id) }
        }
    }

    /// Runs `body` and closes the database, whatever happens.
    private func closing<T: Sendable>(
        _ storage: any StorageEngine, _ body: () async throws -> T
    ) async throws(ExitMessage) -> T {
        let result: Result<T, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        await storage.close()
        switch result {
        case .success(let value): return value
        case .failure(let error as Failure): throw Self.failed(error.detail)
        case .failure(let error): throw Self.failed("\(error)")
        }
    }

    private static func failed(_ answer: ServerClient.Answer) -> ExitMessage {
        guard answer.status == 401 else { return failed(answer.explanation) }
        return failed(
            "the server did not accept the token, or needs one: pass --token-file FILE, or set REPRISE_TOKEN")
    }

    private static func failed(_ message: String) -> ExitMessage {
        ExitMessage(message: message, code: ExitMessage.failed)
    }
}
