// Tokens: rows of access_tokens, all of them in memory too.

import Domain
import Synchronization

extension SQLiteStorage: TokenStore {
    public var hasTokens: Bool { register.count.load(ordering: .acquiring) > 0 }

    public var tokens: [AccessToken] {
        register.all.sorted { ($1.createdAt, $0.id) < ($0.createdAt, $1.id) }
    }

    public func token(_ id: String) -> AccessToken? { register.token(id) }

    public func noteUse(ofToken id: String, at now: Instant) { register.noteUse(of: id, at: now) }

    public func addToken(_ token: AccessToken) async throws {
        try await writer.perform { connection in
            let count = try connection.first("SELECT count(*) FROM access_tokens") { $0.int(0) } ?? 0
            guard count < Limits.maxTokens else {
                throw Failure(
                    .tooManyTokens, "There are \(count) tokens already, which is the maximum. Revoke some of them.")
            }
            try connection.run(
                """
                INSERT INTO access_tokens (token_id, name, scopes, namespaces, created_at_ms, expires_at_ms, digest)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                """, .text(token.id), .text(token.name), .text(token.storedScopes),
                .optional(token.storedNamespaces, Value.text), .instant(token.createdAt),
                .optional(token.expiresAt, Value.instant), .blob(token.digest))
        }
        register.add(token)
    }

    public func removeToken(_ id: String) async throws {
        let isRemoved = try await writer.perform(.foreground, .durable, .shrinking) { connection in
            try connection.run("DELETE FROM access_tokens WHERE token_id = ?1", .text(id))
            return connection.changes > 0
        }
        register.remove(id)
        guard isRemoved else { throw Failure(.tokenNotFound, "There is no token with this id.") }
    }

    /// Whether any use is due to be written.
    var hasTokenUses: Bool { !register.usesToWrite(after: StorageLimits.tokenUseMilliseconds).isEmpty }

    /// Stores when tokens were last used. Not every use: a token that is used all the time costs a write a minute.
    /// - Parameter isClosing: whether this is the last chance.
    func writeTokenUses(isClosing: Bool) async throws {
        let uses = register.usesToWrite(after: isClosing ? 0 : StorageLimits.tokenUseMilliseconds)
        guard !uses.isEmpty else { return }
        try await writer.perform(.background, .durable, .shrinking) { connection in
            for (id, instant) in uses {
                try connection.run(
                    "UPDATE access_tokens SET last_used_at_ms = ?2 WHERE token_id = ?1", .text(id), .instant(instant))
            }
        }
        register.noteWritten(uses)
    }
}

extension Connection {
    /// All tokens there are.
    func tokens() throws(SQLiteError) -> [AccessToken] {
        try all("SELECT * FROM access_tokens") { AccessToken($0) }
    }
}

extension AccessToken {
    /// From all columns of `access_tokens`.
    fileprivate init(_ row: borrowing Row) {
        self.init(
            id: row.text("token_id"), name: row.text("name"),
            scopes: Set(row.text("scopes").split(separator: " ").compactMap { Scope(rawValue: String($0)) }),
            namespaces: row.optionalText("namespaces").map { text in
                text.split(separator: " ").map { NamespacePattern(stored: String($0)) }
            },
            createdAt: row.instant("created_at_ms"), expiresAt: row.optionalInstant("expires_at_ms"),
            lastUsedAt: row.optionalInstant("last_used_at_ms"), digest: row.blob("digest"))
    }

    fileprivate var storedScopes: String { scopes.sorted().map(\.rawValue).joined(separator: " ") }

    fileprivate var storedNamespaces: String? { namespaces?.map(\.description).joined(separator: " ") }
}
