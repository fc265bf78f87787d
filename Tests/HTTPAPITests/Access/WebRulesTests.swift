// What other web pages can and cannot do.

import Domain
import HTTPTypes
import HummingbirdTesting
import TestSupport
import Testing

@testable import HTTPAPI

struct WebRulesTests {
    private static func settings(
        host: String = "127.0.0.1", hosts: String = "", origins: String = ""
    ) throws -> Settings {
        var settings = Settings()
        settings.set(.host, to: .text(host), source: .environment)
        settings.set(.allowedHosts, to: try Setting.allowedHosts.parse(hosts), source: .environment)
        settings.set(.allowedOrigins, to: try Setting.allowedOrigins.parse(origins), source: .environment)
        return settings
    }

    private static func code(
        _ settings: Settings, host: String? = "localhost:8080", method: HTTPRequest.Method = .post,
        isLocal: Bool = false, _ fields: HTTPFields = [:]
    ) -> Failure.Code? {
        let request = HTTPRequest(
            method: method, scheme: nil, authority: host, path: "/v1/sessions", headerFields: fields)
        do throws(Failure) {
            try WebRules(settings).check(request, isLocal: isLocal)
            return nil
        } catch {
            return error.code
        }
    }

    @Test(arguments: [
        "localhost", "LOCALHOST:8080", "localhost.", "app.localhost:1", "127.0.0.1", "127.0.0.1:8080", "127.9.8.7",
        "[::1]", "[::1]:8080",
    ])
    func loopbackNamesAreAllowed(host: String) throws {
        #expect(try Self.code(Self.settings(), host: host) == nil)
    }

    @Test(arguments: [
        "evil.example", "evil.example:8080", "localhost.evil.example", "notlocalhost", "127.0.0.1.evil.example",
        "128.0.0.1", "127.0.0", "127.0.0.256", "[::2]", "", "localhost:x", "user@localhost", "10.0.0.1",
    ])
    func otherHostsAreRefused(host: String) throws {
        for method in [HTTPRequest.Method.get, .options, .post] {
            #expect(try Self.code(Self.settings(), host: host, method: method) == .hostNotAllowed)
        }
        // No web page reaches a Unix domain socket.
        #expect(try Self.code(Self.settings(), host: host, isLocal: true) == nil)
        #expect(try Self.code(Self.settings(host: "0.0.0.0"), host: host) == nil)
        #expect(try Self.code(Self.settings(host: "0.0.0.0", hosts: "cache.example"), host: host) == .hostNotAllowed)
    }

    @Test func allowedHostsAreAllowed() throws {
        let settings = try Self.settings(hosts: "Cache.Example, other.example:9000,[fd00::1]")
        for host in ["cache.example", "cache.example:8080", "other.example", "[fd00::1]:1"] {
            #expect(Self.code(settings, host: host) == nil)
        }
        #expect(Self.code(settings, host: "more.cache.example") == .hostNotAllowed)
    }

    /// Old clients send none; browsers always do.
    @Test func aHostMayBeMissing() throws {
        #expect(try Self.code(Self.settings(), host: nil) == nil)
    }

    @Test(arguments: [
        "http://evil.example", "null", "http://localhost:8501", "http://127.0.0.1:8080", "https://localhost",
        "http://localhost:80800", "file://", "chrome-extension://abcdef",
    ])
    func otherOriginsChangeNothing(origin: String) throws {
        for method in [HTTPRequest.Method.post, .put, .patch, .delete] {
            #expect(try Self.code(Self.settings(), method: method, [.origin: origin]) == .originNotAllowed)
        }
        for method in [HTTPRequest.Method.get, .head, .options] {
            #expect(try Self.code(Self.settings(), method: method, [.origin: origin]) == nil)
        }
    }

    @Test func theOwnOriginMayDoEverything() throws {
        #expect(try Self.code(Self.settings(), [.origin: "http://localhost:8080"]) == nil)
        #expect(try Self.code(Self.settings(), [.origin: "http://LOCALHOST:8080", .secFetchSite: "same-origin"]) == nil)
        // A proxy speaks TLS to browsers.
        let behindProxy = try Self.settings(host: "0.0.0.0")
        #expect(Self.code(behindProxy, host: "cache.example", [.origin: "https://cache.example"]) == nil)
        #expect(Self.code(behindProxy, host: "cache.example:443", [.origin: "https://cache.example"]) == nil)
        #expect(Self.code(behindProxy, host: "cache.example", [.origin: "https://cache.example:8443"]) != nil)
    }

    @Test func allowedOriginsMayDoEverything() throws {
        let settings = try Self.settings(origins: "https://App.example, http://localhost:8501")
        let crossSite: HTTPFields = [.origin: "https://app.example", .secFetchSite: "cross-site"]
        #expect(Self.code(settings, crossSite) == nil)
        #expect(Self.code(settings, [.origin: "http://localhost:8501"]) == nil)
        #expect(Self.code(settings, [.origin: "http://app.example"]) == .originNotAllowed)
    }

    @Test func crossSiteRequestsWithoutAnOriginChangeNothing() throws {
        #expect(try Self.code(Self.settings(), [.secFetchSite: "cross-site"]) == .originNotAllowed)
        var two: HTTPFields = [.secFetchSite: "same-origin"]
        two.append(HTTPField(name: .secFetchSite, value: "cross-site"))
        #expect(try Self.code(Self.settings(), two) == .originNotAllowed)
        for site in ["same-origin", "same-site", "none"] {
            #expect(try Self.code(Self.settings(), [.secFetchSite: site]) == nil)
        }
        #expect(try Self.code(Self.settings(), method: .get, [.secFetchSite: "cross-site"]) == nil)
    }

    @Test(arguments: ["https://a.example/", "a.example", "*", "https://", "ftp://a.example", "https://a b"])
    func whatIsNoOriginIsRefusedAtStart(text: String) {
        #expect(throws: Failure.self) { try Setting.allowedOrigins.parse(text) }
    }

    // MARK: Over HTTP

    @Test func theRulesComeBeforeEverything() async throws {
        try await withAPI { api in
            try await api.send(.post, "/v1/sessions", headers: [.origin: "http://evil.example"])
                .expectProblem(.originNotAllowed, status: 403)
            let sessions = try await api.send(.get, "/v1/sessions").json
            #expect(sessions.items.isEmpty)
        }
    }

    /// What a form or a script may send without asking (fetch.spec.whatwg.org, "CORS-safelisted request-header").
    @Test(arguments: [
        nil, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/html",
    ])
    func jsonNeedsItsType(type: String?) async throws {
        try await withAPI { api in
            let headers: HTTPFields = type.map { [.contentType: $0] } ?? [:]
            for (method, path) in [
                (HTTPRequest.Method.post, "/v1/cache/x/batch"), (.post, "/v1/sessions"), (.put, "/v1/cache/x"),
                (.patch, "/v1/config"), (.post, "/v1/samples"), (.post, "/v1/sql"), (.post, "/v1/tokens"),
            ] {
                try await api.send(method, path, "{}", headers: headers)
                    .expectProblem(.unsupportedMediaType, status: 415)
            }
        }
    }

    @Test func bodilessRequestsNeedNoType() async throws {
        try await withAPI { api in
            for (path, status) in [("/v1/sessions", 201), ("/v1/maintenance/cleanup", 200)] {
                let answer = try await api.send(.post, path)
                #expect(answer.status.code == status)
            }
        }
    }

    @Test func storedPagesAreConfined() async throws {
        try await withAPI { api in
            let path = "/v1/cache/x/entries/page"
            try await api.send(
                .put, path, "<script>alert(1)</script>", headers: [.contentType: "text/html"])
            for method in [HTTPRequest.Method.get, .head] {
                let answer = try await api.send(method, path)
                #expect(answer.status == .ok)
                #expect(answer[header: "Content-Security-Policy"] == "sandbox")
                #expect(answer[header: "Cross-Origin-Resource-Policy"] == "same-origin")
                #expect(answer[header: "X-Content-Type-Options"] == "nosniff")
                #expect(answer[header: "Vary"] == nil)
            }
            let part = try await api.send(.get, path, headers: [.range: "bytes=0-3"])
            #expect(part.status == .partialContent)
            #expect(part[header: "Content-Security-Policy"] == "sandbox")
            // The service's own page brings its own policy.
            let page = try await api.send(.get, "/dashboard/")
            #expect(page[header: "Content-Security-Policy"]?.contains("script-src 'self'") == true)
        }
    }

    @Test func allowedOriginsAreToldSo() async throws {
        try await withAPI(settings: try Self.settings(origins: "https://app.example")) { api in
            let origin: HTTPFields = [.origin: "https://app.example"]
            for (path, status) in [("/v1/sessions", 200), ("/v1/sessions/none", 404), ("/nothing", 404)] {
                let answer = try await api.send(.get, path, headers: origin)
                #expect(answer.status.code == status)
                #expect(answer[header: "Access-Control-Allow-Origin"] == "https://app.example")
                #expect(answer[header: "Access-Control-Allow-Credentials"] == nil)
                #expect(answer[header: "Access-Control-Expose-Headers"]?.contains("ETag") == true)
                #expect(answer[header: "Vary"]?.contains("Origin") == true)
            }
            let other = try await api.send(.get, "/v1/sessions", headers: [.origin: "https://evil.example"])
            #expect(other[header: "Access-Control-Allow-Origin"] == nil)
            #expect(other[header: "Vary"] == "Origin")
            #expect(other[header: "Cross-Origin-Resource-Policy"] == "cross-origin")
        }
    }

    @Test func browsersAskFirst() async throws {
        try await withAPI(settings: try Self.settings(origins: "https://app.example")) { api in
            let question: HTTPFields = [
                .origin: "https://app.example", HTTPField.Name("Access-Control-Request-Method")!: "PUT",
                HTTPField.Name("Access-Control-Request-Headers")!: "reprise-ttl",
                HTTPField.Name("Access-Control-Request-Private-Network")!: "true",
            ]
            let answer = try await api.send(.options, "/v1/cache/x/entries/y", headers: question)
            #expect(answer.status == .noContent)
            #expect(answer[header: "Access-Control-Allow-Origin"] == "https://app.example")
            #expect(answer[header: "Access-Control-Allow-Methods"] == "DELETE, GET, HEAD, PUT")
            #expect(answer[header: "Access-Control-Allow-Headers"]?.contains("Reprise-TTL") == true)
            #expect(answer[header: "Access-Control-Allow-Private-Network"] == "true")
            var other = question
            other[.origin] = "https://evil.example"
            let refused = try await api.send(.options, "/v1/cache/x/entries/y", headers: other)
            #expect(refused.status == .methodNotAllowed)
            #expect(refused[header: "Access-Control-Allow-Origin"] == nil)
        }
    }
}
