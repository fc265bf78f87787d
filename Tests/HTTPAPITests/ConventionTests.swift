// What holds for every route: problems, request ids, methods, entity tags, and the contract itself.

import Domain
import FoundationEssentials
import HTTPTypes
import HummingbirdCore
import HummingbirdTesting
import NIOCore
import SQLiteStorage
import Testing

@testable import HTTPAPI

@Suite struct ConventionTests {
    private static let requestID = HTTPField.Name("X-Request-Id")!

    @Test func answersOtherMethodsWithTheOnesThereAre() async throws {
        try await withAPI { api in
            let all: [HTTPRequest.Method] = [.get, .head, .put, .post, .patch, .delete, .options]
            let byPath = Dictionary(grouping: api.services.routes.routes, by: \.path)
            for (path, routes) in byPath {
                let uri = path.split(separator: "/").map { $0.first == "{" ? "/x" : "/\($0)" }.joined()
                var allowed = routes.map(\.method)
                if allowed.contains(.get) { allowed.append(.head) }
                for method in all where !allowed.contains(method) {
                    let answer = try await api.send(method, uri)
                    #expect(answer.status == .methodNotAllowed, "\(method) \(uri)")
                    #expect(answer.headers[.allow] == allowed.map(\.rawValue).sorted().joined(separator: ", "))
                    if method != .head { try answer.expectProblem(.methodNotAllowed, status: 405) }
                }
            }
            let odd = HTTPRequest.Method("BREW")!
            try await api.send(odd, "/v1/cache").expectProblem(.methodNotAllowed, status: 405)
            try await api.send(odd, "/teapot").expectProblem(.notFound, status: 404)
        }
    }

    @Test func keepsSaneRequestIDs() async throws {
        try await withAPI { api in
            for uri in ["/health/live", "/v1/cache/n/entries/none", "/nowhere"] {
                let kept = try await api.send(.get, uri, headers: [Self.requestID: "run-7:a/b"])
                #expect(kept.headers[Self.requestID] == "run-7:a/b")
                for odd in ["", "two words", "\"quoted\"", String(repeating: "x", count: 129)] {
                    let id = try await api.send(.get, uri, headers: [Self.requestID: odd]).headers[Self.requestID]
                    #expect(id != odd)
                    #expect(id?.isEmpty == false)
                }
            }
            let ids = try await [api.send(.get, "/health/live"), api.send(.get, "/health/live")].map {
                $0.headers[Self.requestID]
            }
            #expect(ids[0] != ids[1])
            #expect(ids.allSatisfy { $0?.utf8.count == 32 })
        }
    }

    @Test func fillsRequestIDsUpTo32Digits() {
        #expect(RequestMiddleware.ofFullLength("1" + String(repeating: "f", count: 16)).utf8.count == 32)
        #expect(RequestMiddleware.ofFullLength("").allSatisfy { $0 == "0" })
        let whole = String(repeating: "a", count: 32)
        #expect(RequestMiddleware.ofFullLength(whole) == whole)
    }

    @Test func tagsJSONEntities() async throws {
        try await withAPI { api in
            try await api.json(.put, "/v1/cache/n", [:])
            for uri in [
                "/v1/cache/n", "/v1/cache", "/v1/cache/n/entries", "/v1/config", "/v1/config/port", "/openapi.yaml",
            ] {
                let first = try await api.send(.get, uri)
                let tag = try #require(first.headers[.eTag])
                #expect(first.status == .ok)
                #expect(try await api.send(.get, uri, headers: [.ifNoneMatch: tag]).status == .notModified)
                #expect(try await api.send(.get, uri, headers: [.ifNoneMatch: "\"x\""]).status == .ok)
                let head = try await api.send(.head, uri)
                #expect(head.headers[.contentLength] == String(first.body.readableBytes))
                #expect(head.body.readableBytes == 0)
            }
        }
    }

    @Test func tellsItsHealth() async throws {
        try await withAPI { api in
            #expect(try await api.send(.get, "/health/live").json == ["status": "live"])
            let ready = try await api.send(.get, "/health/ready").json
            #expect(ready["status"] == "ready")
            #expect(ready["version"] == .string(Version.current))
        }
    }

    /// `openapi.yaml` and the router have the same methods on the same paths, for the same callers.
    @Test func describesExactlyItsRoutes() async throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let document = try String(contentsOf: root.appending(path: "openapi.yaml"), encoding: .utf8)
        var described: Set<String> = []
        var scopes: [String: String] = [:]
        var keyed: Set<String> = []
        var operation = ""
        var path: Substring?
        var isInPaths = false
        for line in document.split(separator: "\n") {
            if line.first != " " { isInPaths = line == "paths:" }
            guard isInPaths else { continue }
            if line.hasPrefix("  /") { path = line.dropFirst(2).dropLast() }
            if let path, line.hasPrefix("    "), line.last == ":", !line.hasPrefix("     ") {
                let name = line.dropFirst(4).dropLast().uppercased()
                operation = "\(name) \(path)"
                if name != "PARAMETERS" { described.insert(operation) }
            }
            if line == "        - $ref: '#/components/parameters/IdempotencyKey'" { keyed.insert(operation) }
            let security = "      security: [{bearer: ["
            if line.hasPrefix(security) {
                scopes[operation] = String(line.dropFirst(security.count).prefix { $0 != "]" })
            }
        }
        #expect(keyed == described.filter { $0.hasPrefix("POST ") || $0.hasPrefix("PATCH ") })
        try await withAPI { [described, scopes] api in
            let routed = api.services.routes.routes.flatMap { route in
                (route.method == .get ? ["GET", "HEAD"] : [route.method.rawValue]).map { "\($0) \(route.path)" }
            }
            #expect(described.symmetricDifference(routed).sorted() == [])
            for route in api.services.routes.routes {
                let expected = route.scope == .open ? nil : route.scope.required?.rawValue ?? ""
                #expect(scopes["\(route.method.rawValue) \(route.path)"] == expected, "\(route.method) \(route.path)")
            }
            let served = try await api.send(.get, "/openapi.yaml")
            #expect(served.text == document)
        }
    }

    /// A write with a condition that names a tag must not happen on a resource that never has one.
    @Test func keepsWhatAConditionDoesNotName() async throws {
        try await withAPI { api in
            try await api.json(.put, "/v1/sessions/s", ["state": ["a": 1]])
            try await api.json(.post, "/v1/sessions/s/history", ["id": "i", "data": ["rating": 1]])
            try await api.send(.put, "/v1/cache/n/entries/k", "v")
            try await api.json(.patch, "/v1/config", ["debounce_delay": 2])
            for (method, path) in [
                (.delete, "/v1/sessions/s"), (.put, "/v1/sessions/s"), (.delete, "/v1/sessions/s/history"),
                (.delete, "/v1/cache/n/entries"), (.delete, "/v1/config/debounce_delay"),
            ] as [(HTTPRequest.Method, String)] {
                try await api.send(method, path, headers: [.ifMatch: "\"other\""])
                    .expectProblem(.preconditionFailed, status: 412)
            }
            #expect(try await api.send(.get, "/v1/sessions/s").json["history_count"] == 1)
            #expect(try await api.send(.get, "/v1/cache/n/entries/k").text == "v")
            #expect(try await api.send(.get, "/v1/config/debounce_delay").json["value"] == 2)
            let patch = try await api.send(
                .patch, "/v1/sessions/s/history/i", "[]", headers: [.contentType: "application/json-patch+json"])
            try patch.expectProblem(.unsupportedMediaType, status: 415)
            #expect(try await api.send(.delete, "/v1/sessions/s", headers: [.ifMatch: "*"]).status == .noContent)
        }
    }

    @Test func whatIsUnavailableSaysWhenToTryAgain() {
        for code in Failure.Code.allCases {
            let answer = Problem.response(Failure(code, "Not now."), requestID: "r")
            #expect((answer.headers[.retryAfter] != nil) == (answer.status == .serviceUnavailable), "\(code)")
        }
        #expect(Problem.kind(of: .storageFull).status.code == 507)
    }
}
