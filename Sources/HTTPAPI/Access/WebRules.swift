// What keeps other web pages out: they can make a browser send requests to this machine. docs/design/access.md.

import Domain
import HTTPTypes

/// Which hosts and origins requests may name, and what pages of other origins are told (CORS).
///
/// - A page whose name was made to resolve to this machine (DNS rebinding) is known by the `Host` that it still sends.
/// - A page that sends requests across origins is known by `Origin` and `Sec-Fetch-Site`, which no script can set.
struct WebRules: Sendable {
    private let checksHosts: Bool
    private let hosts: Set<String>
    private let origins: Set<String>

    /// - Parameter settings: `host`, `allowed_hosts` and `allowed_origins`; none of them changes at run time.
    init(_ settings: Settings) {
        hosts = Set(settings.list(.allowedHosts))
        origins = Set(settings.list(.allowedOrigins))
        checksHosts = HostName.isLoopback(settings.text(.host)) || !hosts.isEmpty
    }

    /// - Parameter isLocal: whether the request came over a Unix domain socket, which no page can reach.
    /// - Throws: `host_not_allowed`, `origin_not_allowed`.
    func check(_ request: HTTPRequest, isLocal: Bool) throws(Failure) {
        // Without a host it is HTTP/1.0, which no browser speaks.
        if checksHosts, !isLocal, let authority = request.authority { try checkHost(authority) }
        switch request.method {
        case .get, .head, .options: break
        default: try checkOrigin(request)
        }
    }

    private func checkHost(_ authority: String) throws(Failure) {
        if Self.isPlainLoopback(authority) { return }
        if let host = HostName.host(of: authority), HostName.isLoopback(host) || hosts.contains(host) { return }
        throw Failure(
            .hostNotAllowed,
            "The Host field names a host that is not in allowed_hosts. Add it to that setting if clients use it.")
    }

    /// Whether this is what nearly every local client sends; found out without an allocation.
    private static func isPlainLoopback(_ authority: String) -> Bool {
        let bytes = authority.utf8
        for name in ["127.0.0.1", "localhost"] where bytes.starts(with: name.utf8) {
            let port = bytes.dropFirst(name.utf8.count)
            let isPort = port.first == UInt8(ascii: ":") && port.dropFirst().allSatisfy { 0x30...0x39 ~= $0 }
            return port.isEmpty || isPort
        }
        return false
    }

    private func checkOrigin(_ request: HTTPRequest) throws(Failure) {
        if let origin = request.headerFields[.origin] {
            if isAllowed(origin) { return }
            guard Self.isOwn(origin, authority: request.authority ?? "") else { throw originNotAllowed }
        }
        let sites = request.headerFields[values: .secFetchSite]
        if sites.contains(where: { $0.lowercased() == "cross-site" }) { throw originNotAllowed }
    }

    private var originNotAllowed: Failure {
        Failure(
            .originNotAllowed,
            "A web page of another origin sent this. If it may, add its origin to the setting allowed_origins.")
    }

    private func isAllowed(_ origin: String) -> Bool {
        !origins.isEmpty && (HostName.origin(origin).map { origins.contains($0) } ?? false)
    }

    /// Whether an origin is the service's own: where a page of the service itself would come from. The scheme is not
    /// compared, because a proxy may speak TLS to browsers and plain HTTP to the service.
    private static func isOwn(_ origin: String, authority: String) -> Bool {
        guard let parsed = HostName.origin(origin), let host = HostName.origin("\(scheme(of: parsed))://\(authority)")
        else { return false }
        return parsed == host
    }

    private static func scheme(of origin: String) -> Substring { origin.prefix { $0 != ":" } }

    // MARK: CORS

    /// Answers the question of a browser whether a page of another origin may send a request; nil if this is none, or
    /// the page may not.
    func preflight(_ request: HTTPRequest, methods: @autoclosure () -> [HTTPRequest.Method]?) -> HTTPResponse? {
        guard request.method == .options, request.headerFields[.requestedMethod] != nil,
            let origin = request.headerFields[.origin], isAllowed(origin), let methods = methods()
        else { return nil }
        var answer = HTTPResponse(status: .noContent)
        answer.headerFields[.allowedMethods] = methods.map(\.rawValue).joined(separator: ", ")
        answer.headerFields[.allowedHeaders] = Self.requestHeaders
        answer.headerFields[.preflightMaxAge] = "600"
        // A page of a public address asks whether it may reach a private one.
        if request.headerFields[.requestedPrivateNetwork] == "true" {
            answer.headerFields[.allowedPrivateNetwork] = "true"
        }
        return answer
    }

    /// Adds to an answer what browsers may do with it, and what lets a page of an allowed origin read it.
    func describe(_ answer: inout HTTPResponse, for request: HTTPRequest) {
        if answer.status == .ok || answer.status == .partialContent { confine(&answer.headerFields) }
        guard !origins.isEmpty else { return }
        describe(&answer.headerFields, for: request)
    }

    /// Stored values can be pages with scripts. Opened from here, they must not run as part of the service, and a page
    /// of another site must not embed them. Only the service's own files, which bring a policy, are not confined.
    private func confine(_ fields: inout HTTPFields) {
        guard fields[.contentSecurityPolicy] == nil else { return }
        fields.append(HTTPField(name: .contentSecurityPolicy, value: "sandbox"))
        fields.append(HTTPField(name: .crossOriginResourcePolicy, value: resourcePolicy))
    }

    private func describe(_ fields: inout HTTPFields, for request: HTTPRequest) {
        // Also without an origin: a cache must not give the answer to a page that asks with one.
        fields.append(HTTPField(name: .vary, value: "Origin"))
        guard let origin = request.headerFields[.origin], isAllowed(origin) else { return }
        fields[.allowedOrigin] = origin
        fields[.exposedHeaders] = Self.responseHeaders
    }

    /// Who may embed stored values in a page: `Cross-Origin-Resource-Policy`.
    private var resourcePolicy: String { origins.isEmpty ? "same-origin" : "cross-origin" }

    private static let requestHeaders = [
        "Authorization", "Content-Encoding", "Content-Type", "Idempotency-Key", "If-Match", "If-Modified-Since",
        "If-None-Match", "If-Range", "If-Unmodified-Since", "Last-Event-ID", "Range", "Reprise-Compute-Seconds",
        "Reprise-Tags", "Reprise-TTL", "X-Request-Id",
    ].joined(separator: ", ")

    private static let responseHeaders = [
        "Accept-Ranges", "Age", "Allow", "Cache-Status", "Content-Disposition", "Content-Encoding", "Content-Range",
        "ETag", "Idempotency-Replayed", "Location", "Reprise-Expires-At", "Retry-After", "WWW-Authenticate",
        "X-Request-Id",
    ].joined(separator: ", ")
}

extension HTTPField.Name {
    static let secFetchSite = HTTPField.Name("Sec-Fetch-Site")!
    static let crossOriginResourcePolicy = HTTPField.Name("Cross-Origin-Resource-Policy")!
    fileprivate static let requestedMethod = HTTPField.Name("Access-Control-Request-Method")!
    fileprivate static let requestedPrivateNetwork = HTTPField.Name("Access-Control-Request-Private-Network")!
    fileprivate static let allowedOrigin = HTTPField.Name("Access-Control-Allow-Origin")!
    fileprivate static let allowedMethods = HTTPField.Name("Access-Control-Allow-Methods")!
    fileprivate static let allowedHeaders = HTTPField.Name("Access-Control-Allow-Headers")!
    fileprivate static let allowedPrivateNetwork = HTTPField.Name("Access-Control-Allow-Private-Network")!
    fileprivate static let exposedHeaders = HTTPField.Name("Access-Control-Expose-Headers")!
    fileprivate static let preflightMaxAge = HTTPField.Name("Access-Control-Max-Age")!
}
