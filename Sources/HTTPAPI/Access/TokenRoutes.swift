// /v1/tokens: creating, listing and revoking.

import Crypto
import Domain
import HTTPTypes
import Hummingbird

/// The tokens.
struct TokenRoutes: Sendable {
    let tokens: any TokenStore
    let clock: WallClock

    var routes: [Route] {
        [
            Route(.get, "/v1/tokens", scope: .admin, list),
            Route(.post, "/v1/tokens", scope: .admin, repetition: .refusal, create),
            Route(.get, "/v1/tokens/self", scope: .anyToken, own),
            Route(.delete, "/v1/tokens/{id}", scope: .admin, answersJSON: false, revoke),
        ]
    }

    @Sendable func list(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let limit = query.limit()
        let position = query.cursor { TokenPosition(text: $0) }
        try query.finish()
        let rest = tokens.tokens.drop { token in position.map { !$0.isBefore(token) } ?? false }
        let page = Array(rest.prefix(limit))
        let next = page.count < rest.count ? page.last.map { TokenPosition($0).text } : nil
        return try .page(page.map(\.json), next: next, for: request)
    }

    @Sendable func create(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        let draft = TokenDraft(&body)
        try body.finish()
        let (token, text) = draft.token(now: clock.now())
        try await tokens.addToken(token)
        guard case .object(var members) = token.json else { preconditionFailure("a token is an object") }
        members.append(.init(name: "token", value: .string(text)))
        return .json(
            .object(members), status: .created,
            headers: [.location: "/v1/tokens/\(token.id)", .cacheControl: "no-store"])
    }

    @Sendable func own(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        switch context.identity {
        case .token(let token): return .json(token.json, headers: [.cacheControl: "no-store"])
        case .configuredAdmin: return .json(Self.configuredAdmin, headers: [.cacheControl: "no-store"])
        case .anyone:
            throw Failure(.tokenNotFound, "The request was admitted without a token.")
        }
    }

    /// The setting `admin_token`, which is in no list.
    private static let configuredAdmin: JSON = [
        "id": "admin_token", "name": "admin_token", "scopes": ["admin"], "namespaces": .null, "created_at": .null,
        "expires_at": .null, "last_used_at": .null,
    ]

    @Sendable func revoke(_ request: Request, _ context: APIContext) async throws -> Response {
        let id = try context.pathParameter("id")
        try request.refuseQuery()
        try await tokens.removeToken(AccessToken.id(meantBy: id))
        return Response(status: .noContent)
    }
}

/// What a token's maker decides.
public struct TokenDraft: Sendable {
    public var name: String
    public var scopes: Set<Scope>
    public var namespaces: [NamespacePattern]?
    public var timeToLive: TimeToLive

    /// Takes the fields `name`, `scopes`, `namespaces` and `expires_in_seconds`, and reports what is wrong with them.
    public init(_ body: inout ObjectReader) {
        name = body.string("name") ?? ""
        scopes = []
        timeToLive = body.lifetime("expires_in_seconds") ?? .never
        if !(1...Limits.maxTokenNameBytes).contains(name.utf8.count) || name.containsControlCharacter {
            body.report(
                "name", "must be a text of 1 to \(Limits.maxTokenNameBytes) bytes without control characters.")
        }
        readScopes(&body)
        readNamespaces(&body)
    }

    private mutating func readScopes(_ body: inout ObjectReader) {
        guard let names = body.strings("scopes") else {
            if !body.hasError("scopes") { body.report("scopes", "must be one or more of read, write, admin.") }
            return
        }
        for (index, name) in names.enumerated() {
            do throws(Failure) {
                scopes.insert(try Scope(choice: name, field: body.fieldPath("scopes[\(index)]")))
            } catch {
                body.report(error)
            }
        }
        if names.isEmpty { body.report("scopes", "must be one or more of read, write, admin.") }
    }

    private mutating func readNamespaces(_ body: inout ObjectReader) {
        guard let texts = body.strings("namespaces") else { return }
        guard (1...Limits.maxTokenNamespaces).contains(texts.count) else {
            return body.report(
                "namespaces", "must be 1 to \(Limits.maxTokenNamespaces) namespaces. Leave it out for all.")
        }
        var patterns: [NamespacePattern] = []
        for (index, text) in texts.enumerated() {
            do throws(Failure) {
                let pattern = try NamespacePattern(text, field: body.fieldPath("namespaces[\(index)]"))
                if !patterns.contains(pattern) { patterns.append(pattern) }
            } catch {
                body.report(error)
            }
        }
        namespaces = patterns
    }

    /// Makes the token, and the text that is shown to its maker once and kept nowhere.
    public func token(now: Instant) -> (token: AccessToken, text: String) {
        let form = TokenText.random()
        let token = AccessToken(
            id: form.id, name: name, scopes: scopes, namespaces: namespaces, createdAt: now,
            expiresAt: timeToLive.expiry(from: now), digest: Array(SHA256.hash(data: Array(form.text.utf8))))
        return (token, form.text)
    }
}

/// A place in the list of tokens, which has the newest first.
private struct TokenPosition {
    let milliseconds: Int64
    let id: String

    init(_ token: AccessToken) {
        milliseconds = token.createdAt.milliseconds
        id = token.id
    }

    init?(text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 2, let milliseconds = Int64(parts[0]) else { return nil }
        self.milliseconds = milliseconds
        id = String(parts[1])
    }

    var text: String { "\(milliseconds).\(id)" }

    /// Whether a token comes after this place.
    func isBefore(_ token: AccessToken) -> Bool {
        (token.createdAt.milliseconds, id) < (milliseconds, token.id)
    }
}

extension AccessToken {
    /// Everything but the secret.
    public var json: JSON {
        [
            "id": .string(id),
            "name": .string(name),
            "scopes": .array(scopes.sorted().map { .string($0.rawValue) }),
            "namespaces": .optional(namespaces) { .array($0.map { .string($0.description) }) },
            "created_at": .instant(createdAt),
            "expires_at": .optional(expiresAt) { .instant($0) },
            "last_used_at": .optional(lastUsedAt) { .instant($0) },
        ]
    }
}
