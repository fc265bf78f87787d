// What every storage engine promises about requests with an idempotency key.

/// A request with an `Idempotency-Key`, as digests: what the caller sent is not kept.
public struct KeyedRequest: Hashable, Sendable {
    /// Of the caller, the method, the path with its query, and the key.
    public let key: [UInt8]
    /// Of what was sent: a repetition of the same request has the same.
    public let content: [UInt8]

    public init(key: [UInt8], content: [UInt8]) {
        self.key = key
        self.content = content
    }
}

/// An answer that can be given again.
public struct KeptAnswer: Equatable, Sendable {
    public struct Field: Equatable, Sendable {
        public let name: String
        public let value: String

        public init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    public let status: Int
    /// Its header fields, in order. A name may occur more than once.
    public let fields: [Field]
    public let body: [UInt8]

    public init(status: Int, fields: [Field], body: [UInt8]) {
        self.status = status
        self.fields = fields
        self.body = body
    }
}

/// What is known of an earlier request with the same key.
public enum EarlierRequest: Equatable, Sendable {
    /// Its content was another one.
    case different
    /// It was carried out, and this is its answer.
    case answered(KeptAnswer)
    /// It was carried out, at least in part, but there is no answer: it was not kept, or it was lost in a crash.
    case unanswered
}

/// Remembers requests by their keys for ``Limits/keyMemoryMilliseconds``, so that none is carried out twice.
///
/// The caller makes sure that no two requests with the same key are under way at the same time.
///
/// At most ``Limits/maxRememberedKeys`` are remembered, and ``Limits/maxKeptAnswersBytes`` of answers. Beyond that the
/// oldest go: of the answers first, so that a key whose answer is gone still keeps its request from being repeated.
public protocol IdempotencyStore: Sendable {
    /// The earlier request with this key that was carried out; nil if there is none, or it is too long ago.
    /// - Throws: the storage failures.
    func earlierRequest(like request: KeyedRequest) async throws -> EarlierRequest?

    /// Runs `body`, and marks the request as carried out in the same transaction in which `body` first changes
    /// something. If that fails, or changes nothing, there is no mark. A crash leaves both or neither.
    ///
    /// Changes that the store makes at any time, such as noting activity, and background tasks leave no mark.
    /// - Throws: what `body` throws.
    func marking<Answer: Sendable>(
        _ request: KeyedRequest, _ body: @escaping @Sendable () async throws -> Answer
    ) async throws -> Answer

    /// Keeps a request's answer, and marks the request if it is not marked yet. After a crash of the process it is
    /// there; a power cut can lose it, but not the mark.
    /// - Parameter answer: nil to have the mark only.
    /// - Throws: the storage failures.
    func keep(_ answer: KeptAnswer?, of request: KeyedRequest) async throws
}
