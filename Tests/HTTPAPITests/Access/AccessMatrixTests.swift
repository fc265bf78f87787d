// Every route with every kind of caller.

import Domain
import HTTPTypes
import HummingbirdTesting
import TestSupport
import Testing

@testable import HTTPAPI

struct AccessMatrixTests {
    /// Who sends a request.
    fileprivate enum Caller: CaseIterable {
        case nobody, unknown, misformed, expired, revoked, reader, writer, admin
        /// An admin of the namespace in the request, and of another one.
        case inNamespace, elsewhere
    }

    fileprivate enum Decision: Equatable { case admitted, unauthenticated, forbidden(required: String?) }

    /// The routes come from the router, so one without a decision, or with a wrong one, is noticed.
    @Test func everyRouteDecides() async throws {
        try await withAPI(settings: Settings()) { api in
            let headers = try await Self.headers(api)
            for route in api.services.routes.routes {
                let methods = route.method == .get ? [.get, .head] : [route.method]
                for caller in Caller.allCases {
                    for method in methods {
                        let answer = try await api.send(method, Self.path(of: route), headers: headers[caller]!)
                        let expected = Self.expected(route, caller)
                        let decision = try Self.decision(answer, method)
                        #expect(
                            decision == expected.ignoringScope(of: method), "\(method) \(route.path) by \(caller)")
                    }
                }
            }
        }
    }

    /// A token for each caller. The first one closes the service, so it has to be the admin's.
    private static func headers(_ api: API) async throws -> [Caller: HTTPFields] {
        let admin = try await api.makeToken(["admin"])
        func bearer(_ token: String) -> HTTPFields { [.authorization: "Bearer \(token)"] }
        let expired = try await api.makeToken(["admin"], as: admin, extra: ["expires_in_seconds": 1])
        let revoked = try await api.makeToken(["admin"], as: admin)
        api.clock.advance(milliseconds: 1000)
        let removal = try await api.send(
            .delete, "/v1/tokens/\(try #require(TokenText(revoked)).id)", headers: bearer(admin))
        #expect(removal.status == .noContent)
        return [
            .nobody: [:],
            .unknown: bearer(TokenText.random().text),
            .misformed: bearer("not-a-token"),
            .expired: bearer(expired),
            .revoked: bearer(revoked),
            .reader: bearer(try await api.makeToken(["read"], as: admin)),
            .writer: bearer(try await api.makeToken(["write"], as: admin)),
            .admin: bearer(admin),
            .inNamespace: bearer(try await api.makeToken(["admin"], as: admin, extra: ["namespaces": ["mine"]])),
            .elsewhere: bearer(
                try await api.makeToken(["admin"], as: admin, extra: ["namespaces": ["min", "mines*", "other"]])),
        ]
    }

    private static func path(of route: Route) -> String {
        route.path.split(separator: "/", omittingEmptySubsequences: false).map { part in
            part.first != "{" ? String(part) : part == "{namespace}" ? "mine" : "x"
        }.joined(separator: "/")
    }

    private static func expected(_ route: Route, _ caller: Caller) -> Decision {
        if route.scope == .open { return .admitted }
        switch caller {
        case .nobody, .unknown, .misformed, .expired, .revoked: return .unauthenticated
        case .admin: return .admitted
        case .reader:
            guard let scope = route.scope.required, scope > .read else { return .admitted }
            return .forbidden(required: scope.rawValue)
        case .writer: return route.scope == .admin ? .forbidden(required: "admin") : .admitted
        case .inNamespace:
            let isReached = route.path.contains("{namespace}") || route.path == "/v1/tokens/self"
            return isReached ? .admitted : .forbidden(required: nil)
        case .elsewhere: return route.path == "/v1/tokens/self" ? .admitted : .forbidden(required: nil)
        }
    }

    private static func decision(_ answer: TestResponse, _ method: HTTPRequest.Method) throws -> Decision {
        switch answer.status {
        case .unauthorized:
            let challenges = answer.headers[values: .wwwAuthenticate]
            #expect(challenges.count == 2)
            #expect(challenges.first?.hasPrefix("Bearer ") == true)
            #expect(challenges.last?.hasPrefix("Basic ") == true)
            return .unauthenticated
        case .forbidden:
            return .forbidden(required: method == .head ? nil : try answer.json["required_scope"]?.stringValue)
        default: return .admitted
        }
    }

    /// The scopes as the contract groups them, so that a route with a scope too low is noticed.
    @Test func scopesAreThoseOfTheContract() async throws {
        try await withAPI { api in
            for route in api.services.routes.routes {
                let path = route.path
                let administrative = [
                    "/v1/config", "/v1/maintenance", "/v1/backups", "/v1/sql", "/v1/tokens", "/v1/diagnostics",
                ]
                let isAdministrative = administrative.contains { path.hasPrefix($0) }
                let isOpen = path.hasPrefix("/health/") || path.hasPrefix("/dashboard/")
                // A batch may only read; what it may do is decided for each of its requests.
                let dataScope: RouteScope = route.method == .get || path == "/v1/batch" ? .read : .write
                let expected: RouteScope =
                    isOpen ? .open
                    : path == "/v1/tokens/self" ? .anyToken : isAdministrative ? .admin : dataScope
                #expect(route.scope == expected, "\(route.method) \(path)")
            }
        }
    }
}

extension AccessMatrixTests.Decision {
    /// A HEAD has no body to name a scope in.
    fileprivate func ignoringScope(of method: HTTPRequest.Method) -> Self {
        if case .forbidden = self, method == .head { return .forbidden(required: nil) }
        return self
    }
}

extension API {
    /// Makes a token and returns its text.
    func makeToken(_ scopes: [String], as token: String? = nil, extra: JSON = [:]) async throws -> String {
        var members: [JSON.Member] = [
            .init(name: "name", value: "test"), .init(name: "scopes", value: .array(scopes.map { .string($0) })),
        ]
        if case .object(let more) = extra { members += more }
        var headers: HTTPFields = [.contentType: "application/json"]
        if let token { headers[.authorization] = "Bearer \(token)" }
        let answer = try await send(.post, "/v1/tokens", JSON.object(members).text, headers: headers)
        #expect(answer.status == .created)
        return try #require(try answer.json["token"]?.stringValue)
    }
}
