// What travels with a request.

import Domain
import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// Hummingbird's context, plus the id the request is known by and the connection it came over.
public struct APIContext: RequestContext {
    public var coreContext: CoreRequestContextStorage
    /// What `X-Request-Id` answers: the caller's id if it sent a valid one, else the server's.
    public internal(set) var requestID: String
    let channel: any Channel
    /// What the request's JSON body takes of the memory for all of them; nil without a body.
    var body: BodyReservation?
    /// Whom the request was admitted as.
    var identity = AccessControl.Identity.anyone
    /// The batch with an idempotency key that this is, or belongs to, and its place there; nil in any other.
    var keyedBatch: KeyedBatch?
    var batchPosition = 0
    /// When the request's head had arrived.
    let started = ContinuousClock.now

    public init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
        requestID = ""
    }
}

extension APIContext {
    /// The address at the other end of the connection; nil for one that the system does not tell.
    var remoteAddress: SocketAddress? { channel.remoteAddress }

    /// Whether the connection came over a Unix domain socket, so from a user of this machine who may open its file.
    var isOverUnixSocket: Bool { channel.isOverUnixSocket }

    /// Whom the connection comes from.
    var caller: Caller { Caller(remoteAddress) }

    /// A path parameter, percent-decoded. Hummingbird passes them on undecoded.
    /// - Throws: `bad_percent_encoding`.
    func pathParameter(_ name: Substring) throws(Failure) -> String {
        guard let raw = parameters[name] else { preconditionFailure("the route has no {\(name)}") }
        return try PercentEncoding.decode(raw)
    }

    /// - Throws: `bad_percent_encoding`, `validation_failed`.
    func namespace() throws(Failure) -> Name {
        try Name(try pathParameter("namespace"), field: "namespace")
    }

    /// - Throws: `bad_percent_encoding`, `validation_failed`.
    func entryAddress() throws(Failure) -> EntryAddress {
        EntryAddress(namespace: try namespace(), key: try Key(try pathParameter("key"), field: "key"))
    }
}

extension Channel {
    /// Whether it is a connection over a Unix domain socket.
    var isOverUnixSocket: Bool {
        if case .unixDomainSocket = localAddress { true } else { false }
    }
}

extension HTTPField.Name {
    static let requestID = HTTPField.Name("X-Request-Id")!
    static let cacheStatus = HTTPField.Name("Cache-Status")!
    static let contentTypeOptions = HTTPField.Name("X-Content-Type-Options")!
    static let repriseTTL = HTTPField.Name("Reprise-TTL")!
    static let repriseTags = HTTPField.Name("Reprise-Tags")!
    static let repriseComputeSeconds = HTTPField.Name("Reprise-Compute-Seconds")!
    static let repriseExpiresAt = HTTPField.Name("Reprise-Expires-At")!
}
