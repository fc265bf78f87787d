// Who may do what: the one place where that is decided. docs/design/access.md.

import Crypto
import Domain
import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

/// Decides for every request whether its caller may make it.
public final class AccessControl: Sendable {
    /// Whom a request was admitted as.
    enum Identity: Sendable, Equatable {
        /// Nobody in particular: no token is needed, and none was sent that is known.
        case anyone
        /// The setting `admin_token`.
        case configuredAdmin
        /// Indirect, because it travels with the request's context, which is copied often.
        indirect case token(AccessToken)
    }

    private let tokens: any TokenStore
    private let clock: WallClock
    private let authentication: Authentication
    private let isLoopback: Bool
    private let adminDigest: SHA256Digest?
    /// Whether `admin_token` is so short that somebody could try all there are.
    private let isAdminGuessable: Bool
    private let pause: Pause
    let attempts = FailedAttempts()
    let refusals = RefusalCounts()

    typealias Pause = @Sendable (Duration) async throws -> Void

    /// - Parameters:
    ///   - settings: `authentication`, `admin_token` and `host`; none of them changes at run time.
    ///   - pause: how a caller is kept waiting.
    init(tokens: any TokenStore, settings: Settings, clock: WallClock, pause: @escaping Pause) {
        self.pause = pause
        self.tokens = tokens
        self.clock = clock
        authentication = Authentication(rawValue: settings.text(.authentication))!
        isLoopback = HostName.isLoopback(settings.text(.host))
        let admin = settings.text(.adminToken)
        isAdminGuessable = admin.utf8.count < Limits.minStrongTokenBytes
        adminDigest = admin.isEmpty ? nil : SHA256.hash(data: Array(admin.utf8))
    }

    /// Whether there is anything to enter with.
    public var hasAnyToken: Bool { adminDigest != nil || tokens.hasTokens }

    /// Whether no caller could enter: other machines can connect, so a token is needed, and there is none.
    public var lacksFirstToken: Bool { authentication != .none && !isLoopback && !hasAnyToken }

    /// Whether everybody who can connect from other machines may do everything, because the operator said so.
    public var isOpenToNetwork: Bool { authentication == .none && !isLoopback }

    /// Whether callers need a token.
    public var isRequired: Bool {
        switch authentication {
        case .none: false
        case .required: true
        case .auto: !isLoopback || hasAnyToken
        }
    }

    /// Admits a request, or throws why not.
    ///
    /// - Parameters:
    ///   - scope: what the route asks for.
    ///   - namespace: the cache namespace in the path, decoded; nil if the route has none.
    ///   - caller: for counting failed attempts.
    /// - Throws: ``Refusal``. Nothing is counted here, because a request may be asked about twice.
    func admit(
        _ request: HTTPRequest, to scope: RouteScope, namespace: @autoclosure () -> String?, from caller: Caller
    ) throws(Refusal) -> Identity {
        guard scope != .open, authentication != .none else { return .anyone }
        let identity: Identity
        switch Credentials(request) {
        case .token(let text): identity = try identify(text, caller)
        case .none where isRequired:
            throw refuse(.missing, "A token is needed: send it as Authorization: Bearer TOKEN, or as a password.")
        case .unreadable where isRequired:
            throw refuse(
                .invalid, "The field Authorization must be sent once: Bearer TOKEN, or Basic with a token as password.",
                tokenWasSent: true)
        case .none, .unreadable: identity = .anyone
        }
        guard case .token(let token) = identity else { return identity }
        try require(scope, of: token, namespace: namespace)
        return identity
    }

    /// Checks again, while a long body is on its way, that its token is still valid.
    /// - Throws: `unauthenticated`.
    func confirm(_ identity: Identity) throws(Failure) {
        guard case .token(let token) = identity else { return }
        if token.isExpired(at: clock.now()) {
            throw counted(refuse(.expired, "The token has expired.", tokenWasSent: true))
        }
        if tokens.token(token.id) == nil {
            throw counted(refuse(.invalid, "The token was revoked.", tokenWasSent: true))
        }
    }

    private func identify(_ text: String, _ caller: Caller) throws(Refusal) -> Identity {
        guard let form = TokenText(text) else {
            // Anything else can only be the configured token.
            if isAdminGuessable, attempts.isExhausted(caller) { throw tooManyAttempts }
            if let adminDigest, adminDigest == Self.digest(of: text) { return .configuredAdmin }
            // Without tokens, this is for somebody else: a proxy in front that asks for passwords of its own.
            guard isRequired else { return .anyone }
            throw refuse(.invalid, "The token is not valid.", tokenWasSent: true)
        }
        // An id is no secret, so it may be looked up.
        guard let token = tokens.token(form.id), Self.digest(of: form.text).equals(token.digest) else {
            if let adminDigest, adminDigest == Self.digest(of: text) { return .configuredAdmin }
            throw refuse(.invalid, "The token is not valid, or it was revoked.", tokenWasSent: true)
        }
        let now = clock.now()
        if let expiresAt = token.expiresAt, expiresAt <= now {
            throw refuse(.expired, "The token expired at \(expiresAt.rfc3339).", tokenWasSent: true)
        }
        // Precise to a second, because each note is another look-up.
        if token.lastUsedAt.map({ now.milliseconds(since: $0) >= 1000 }) ?? true {
            tokens.noteUse(ofToken: token.id, at: now)
        }
        return .token(token)
    }

    private static func digest(of text: String) -> SHA256Digest {
        var text = text
        return text.withUTF8 { bytes in
            var hasher = SHA256()
            hasher.update(bufferPointer: UnsafeRawBufferPointer(bytes))
            return hasher.finalize()
        }
    }

    private func require(_ scope: RouteScope, of token: AccessToken, namespace: () -> String?) throws(Refusal) {
        if let required = scope.required, !token.includes(required) {
            var refusal = refuse(.scope, "The token lacks the scope \(required.rawValue).")
            refusal.failure.requiredScope = required
            throw refusal
        }
        guard scope != .anyToken, let patterns = token.namespaces else { return }
        guard let namespace = namespace(), patterns.contains(where: { $0.matches(namespace) }) else {
            let names = patterns.map(\.description).joined(separator: ", ")
            throw refuse(.namespace, "The token reaches only the cache namespaces \(names).")
        }
    }

    private func refuse(_ reason: RefusalCounts.Reason, _ detail: String, tokenWasSent: Bool = false) -> Refusal {
        var failure = Failure(reason.isForbidden ? .forbidden : .unauthenticated, detail)
        failure.tokenWasSent = tokenWasSent
        return Refusal(reason: reason, failure: failure)
    }

    /// The failure of a refusal that is about to be answered.
    func counted(_ refusal: Refusal) -> Failure {
        refusals.count(refusal.reason)
        return refusal.failure
    }

    private var tooManyAttempts: Refusal {
        var failure = Failure(.tooManyAttempts, "Too many wrong tokens came from this address.")
        failure.retryAfterSeconds = 1
        return Refusal(reason: .attempts, failure: failure)
    }

    /// Makes an address wait that sends wrong tokens again and again, so that guessing takes long.
    /// - Throws: `too_many_attempts` if too many of its attempts wait already; `CancellationError`.
    func slowDown(_ caller: Caller) async throws {
        switch attempts.fail(caller) {
        case .answer: return
        case .refuse: throw counted(tooManyAttempts)
        case .wait(let milliseconds):
            defer { attempts.waited(caller) }
            try await pause(.milliseconds(milliseconds))
        }
    }
}

extension AccessControl {
    /// A request whose body ends with an error when its token is revoked or expires. Short ones are not watched.
    func watch(_ request: Request, _ context: APIContext) -> Request {
        let identity = context.identity
        guard case .token = identity, request.hasBody,
            request.declaredLength.map({ $0 > Limits.maxInlineValueBytes }) ?? true
        else { return request }
        var request = request
        let parts = request.body
        request.body = RequestBody(
            asyncSequence: parts.map { part in
                try self.confirm(identity)
                return part
            })
        return request
    }

    /// The same for an answer.
    func watch(_ response: Response, _ context: APIContext) -> Response {
        let identity = context.identity
        let length = response.body.contentLength
        guard case .token = identity, length.map({ $0 > Limits.maxInlineValueBytes }) ?? true else { return response }
        var response = response
        let parts = response.body.map { part in
            try self.confirm(identity)
            return part
        }
        response.body = ResponseBody(contentLength: length) { writer in try await parts.write(writer) }
        return response
    }
}

extension SHA256Digest {
    /// Whether it consists of these bytes. Looks at all of them, however many agree, so that the time tells nothing.
    ///
    /// `==` does that, too, but through generic code that is not specialized, which takes longer than the hash.
    func equals(_ bytes: [UInt8]) -> Bool {
        withUnsafeBytes { own in
            guard own.count == bytes.count else { return false }
            var difference: UInt8 = 0
            for index in bytes.indices { difference |= own[index] ^ bytes[index] }
            return difference == 0
        }
    }
}

/// Why a request is not admitted.
struct Refusal: Error {
    let reason: RefusalCounts.Reason
    /// `unauthenticated`, `forbidden` or `too_many_attempts`.
    var failure: Failure
}

/// The setting `authentication`.
enum Authentication: String, CaseIterable {
    case auto, required, none
}

/// How many requests were refused, and why, since the process started.
final class RefusalCounts: Sendable {
    enum Reason: String, CaseIterable {
        case missing, invalid, expired, attempts, scope, namespace, host, origin

        var isForbidden: Bool { self == .scope || self == .namespace }
    }

    private let counts = Mutex<[Reason: Int]>([:])

    func count(_ reason: Reason) { counts.withLock { $0[reason, default: 0] += 1 } }

    var all: [Reason: Int] { counts.withLock { $0 } }
}
