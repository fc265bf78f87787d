// What every storage engine promises about tokens.

/// Tokens, without their secrets.
///
/// Every request asks for one, so all of them, at most ``Limits/maxTokens``, are held in memory too.
public protocol TokenStore: Sendable {
    /// Whether there is any token. An expired one counts until it is removed: that a token expires must not open what
    /// it closed.
    var hasTokens: Bool { get }

    /// All tokens, expired ones included: the newest first, and by id among those of one millisecond.
    var tokens: [AccessToken] { get }

    /// A token by its id, expired or not; nil if there is none. From memory, in well under a microsecond.
    func token(_ id: String) -> AccessToken?

    /// Remembers that a token was used. It is written with the counters, at most once a minute for each token.
    func noteUse(ofToken id: String, at now: Instant)

    /// Stores a token, which is valid from then on.
    /// - Throws: `too_many_tokens`; the storage failures.
    func addToken(_ token: AccessToken) async throws

    /// Removes a token for good. Once this returns, nobody is admitted by it.
    /// - Throws: `token_not_found`; the storage failures.
    func removeToken(_ id: String) async throws
}
