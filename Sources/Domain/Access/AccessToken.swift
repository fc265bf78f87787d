// Tokens: who may enter, and how far.

/// A token as it is stored: everything but the secret.
public struct AccessToken: Sendable, Equatable {
    /// 16 hexadecimal digits; part of the token's text, and no secret.
    public var id: String
    /// What its owner calls it.
    public var name: String
    public var scopes: Set<Scope>
    /// The cache namespaces it reaches, and then nothing else; nil for everything.
    public var namespaces: [NamespacePattern]?
    public var createdAt: Instant
    /// From this instant on it is refused; nil for never.
    public var expiresAt: Instant?
    /// When it last opened a door; up to a minute is lost if the process is killed.
    public var lastUsedAt: Instant?
    /// SHA-256 of its text.
    public var digest: [UInt8]

    public init(
        id: String, name: String, scopes: Set<Scope>, namespaces: [NamespacePattern]?, createdAt: Instant,
        expiresAt: Instant?, lastUsedAt: Instant? = nil, digest: [UInt8]
    ) {
        self.id = id
        self.name = name
        self.scopes = scopes
        self.namespaces = namespaces
        self.createdAt = createdAt
        self.expiresAt = expiresAt
        self.lastUsedAt = lastUsedAt
        self.digest = digest
    }

    /// The id that somebody means who names a token by it, by `rpr_` and it, or by the token's whole text.
    public static func id(meantBy text: String) -> String {
        if let form = TokenText(text) { return form.id }
        return text.hasPrefix(TokenText.prefix) ? String(text.dropFirst(TokenText.prefix.utf8.count)) : text
    }

    public func isExpired(at now: Instant) -> Bool { expiresAt.map { $0 <= now } ?? false }

    /// Whether a scope is among the token's, or included in one of them.
    public func includes(_ scope: Scope) -> Bool { scopes.contains { $0 >= scope } }
}

/// The text of a token: `rpr_`, the id, `_`, and 256 random bits as hexadecimal digits. The prefix and the fixed form
/// let secret scanners find tokens that leaked: `rpr_[0-9a-f]{16}_[0-9a-f]{64}`.
public struct TokenText: Sendable, Equatable {
    public static let prefix = "rpr_"
    static let idDigits = 16
    static let secretDigits = 64

    public let id: String
    public let text: String

    /// A new one, from the system's generator of random numbers.
    public static func random() -> TokenText {
        func digits(_ count: Int) -> String {
            (0..<count / 16).map { _ in
                let word = String(UInt64.random(in: .min ... .max), radix: 16)
                return String(repeating: "0", count: 16 - word.utf8.count) + word
            }.joined()
        }
        let id = digits(idDigits)
        return TokenText(id: id, text: "\(prefix)\(id)_\(digits(secretDigits))")
    }

    private init(id: String, text: String) {
        self.id = id
        self.text = text
    }

    /// - Returns: nil if `text` does not have the form of a token.
    public init?(_ text: String) {
        var text = text
        let id = text.withUTF8 { bytes -> String? in
            let idStart = Self.prefix.utf8.count
            let idEnd = idStart + Self.idDigits
            guard bytes.count == idEnd + 1 + Self.secretDigits, bytes[idEnd] == UInt8(ascii: "_"),
                bytes[..<idStart].elementsEqual(Self.prefix.utf8)
            else { return nil }
            func isHexadecimal(_ byte: UInt8) -> Bool {
                (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                    || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
            }
            guard bytes[idStart..<idEnd].allSatisfy(isHexadecimal), bytes[(idEnd + 1)...].allSatisfy(isHexadecimal)
            else { return nil }
            return String(decoding: bytes[idStart..<idEnd], as: UTF8.self)
        }
        guard let id else { return nil }
        self.init(id: id, text: text)
    }
}

/// The name of a cache namespace, or the beginning of one followed by `*`.
public struct NamespacePattern: Sendable, Hashable, CustomStringConvertible {
    public let description: String
    private let prefix: Substring?

    /// - Throws: `validation_failed` naming `field`.
    public init(_ text: String, field: String) throws(Failure) {
        let stem = text.hasSuffix("*") ? text.dropLast() : text[...]
        // What stands before the * is checked as a name, too; `*` alone is every namespace.
        let isBeginning = ["*", ".*", "..*"].contains(text)
        guard isBeginning || (try? Name(String(stem), field: field)) != nil else {
            throw .invalid(
                field, "must be a namespace, or the beginning of one followed by *: 1 to \(Limits.maxNameBytes) "
                    + "characters from A-Z a-z 0-9 . _ ~ : -, but not '.' or '..'.")
        }
        self.init(stored: text)
    }

    /// A pattern read back from storage, where only valid ones are.
    public init(stored text: String) {
        description = text
        prefix = text.hasSuffix("*") ? text.dropLast() : nil
    }

    public func matches(_ namespace: String) -> Bool {
        if let prefix { return namespace.hasPrefix(prefix) }
        return namespace == description
    }
}
