// Bad input: the right problem, nothing stored, never a 5xx.

import Domain
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import NIOCore
import SQLiteStorage
import TestSupport
import Testing

@Suite struct BadInputTests {
    private static let ttl = HTTPField.Name("Reprise-TTL")!
    private static let tags = HTTPField.Name("Reprise-Tags")!
    private static let compute = HTTPField.Name("Reprise-Compute-Seconds")!

    /// Asserts that nothing was stored.
    private static func expectEmpty(_ api: API) async throws {
        #expect(try await api.send(.get, "/v1/cache").json == ["items": [], "next_cursor": nil])
    }

    @Test func refusesBadNamesAndKeys() async throws {
        try await withAPI { api in
            let longName = String(repeating: "n", count: 129)
            for name in ["a%20b", "a%2Fb", ".", "%2E%2E", "%C3%A9", longName, "a,b", "a%00"] {
                try await api.send(.put, "/v1/cache/\(name)/entries/k", "v").expectProblem(
                    .validationFailed, status: 422)
                try await api.send(.get, "/v1/cache/\(name)/entries").expectProblem(.validationFailed, status: 422)
            }
            let longKey = String(repeating: "k", count: 513)
            for key in ["%00", "a%0Ab", "%7F", "%C2%80", longKey, String(repeating: "%C3%A9", count: 257)] {
                let problem = try await api.send(.put, "/v1/cache/n/entries/\(key)", "v")
                    .expectProblem(.validationFailed, status: 422)
                guard case .array(let errors)? = problem["errors"] else {
                    Issue.record("no errors")
                    return
                }
                #expect(errors.first?["field"] == "key")
            }
            for path in ["%", "%4", "%zz", "a%", "%FF", "%C3", "%ED%A0%80"] {
                try await api.send(.put, "/v1/cache/n/entries/\(path)", "v").expectProblem(
                    .badPercentEncoding, status: 400)
                try await api.send(.put, "/v1/cache/\(path)/entries/k", "v").expectProblem(
                    .badPercentEncoding, status: 400)
                try await api.send(.get, "/v1/cache/n/entries?prefix=\(path)").expectProblem(
                    .badPercentEncoding, status: 400)
            }
            try await Self.expectEmpty(api)
            #expect(
                try await api.send(.put, "/v1/cache/n/entries/" + String(repeating: "k", count: 512), "v").status
                    == .created)
        }
    }

    @Test func refusesBadHeaders() async throws {
        try await withAPI { api in
            for (name, value) in [
                (Self.ttl, "0"), (Self.ttl, "-1"), (Self.ttl, "1e3"), (Self.ttl, "nan"), (Self.ttl, "inf"),
                (Self.ttl, ""),
                (Self.ttl, "1.2.3"), (Self.ttl, "3153600001"), (Self.ttl, "1s"), (Self.ttl, "0.0"), (Self.ttl, ".5"),
                (Self.ttl, String(repeating: "9", count: 60)), (Self.tags, "a b"), (Self.tags, "é"),
                (Self.tags, String(repeating: "t", count: 129)),
                (Self.tags, (0..<17).map { "t\($0)" }.joined(separator: ",")),
                (Self.compute, "-1"), (Self.compute, "x"), (Self.compute, "99999999999"),
                (.contentType, String(repeating: "t", count: 257)),
            ] {
                let problem = try await api.send(.put, "/v1/cache/n/entries/k", "v", headers: [name: value])
                    .expectProblem(.validationFailed, status: 422)
                guard case .array(let errors)? = problem["errors"] else {
                    Issue.record("no errors")
                    return
                }
                #expect(errors.first?["field"]?.stringValue?.lowercased() == name.canonicalName)
            }
            try await api.send(.put, "/v1/cache/n/entries/k", "v", headers: [.contentRange: "bytes 0-0/1"])
                .expectProblem(.malformedRequest, status: 400)
            try await Self.expectEmpty(api)
        }
    }

    @Test func refusesBadJSON() async throws {
        try await withAPI { api in
            let headers: HTTPFields = [.contentType: "application/json"]
            for body in ["{", "[1,]", "{\"a\":1,\"a\":2}", "nul", "\u{FEFF}{}", "{}x", "{'a':1}", "01", "\"\\ud800\""] {
                for path in ["/v1/cache/n", "/v1/config"] {
                    let method: HTTPRequest.Method = path == "/v1/config" ? .patch : .put
                    try await api.send(method, path, body, headers: headers).expectProblem(.malformedJSON, status: 400)
                }
            }
            try await api.send(.put, "/v1/cache/n", bytes: [0x22, 0xFF, 0x22], headers: headers)
                .expectProblem(.malformedJSON, status: 400)
            let deep = String(repeating: "[", count: 100_000)
            try await api.send(.put, "/v1/cache/n", deep, headers: headers).expectProblem(.malformedJSON, status: 400)
            for body: JSON in [
                [], 1, "x", ["max_entries": 0], ["max_entries": "1"], ["max_bytes": -1], ["eviction": "random"],
                ["evict": "lru"],
                ["ttl_seconds": 0], ["ttl_seconds": "60"], ["ttl_seconds": -1], ["max_entries": .number("1.5")],
                ["ttl_seconds": .number("1e400")],
            ] {
                try await api.json(.put, "/v1/cache/n", body).expectProblem(.validationFailed, status: 422)
            }
            let several = try await api.json(.put, "/v1/cache/n", ["a": 1, "max_bytes": 0, "eviction": 3])
                .expectProblem(.validationFailed, status: 422)
            guard case .array(let errors)? = several["errors"] else {
                Issue.record("no errors")
                return
            }
            #expect(Set(errors.compactMap { $0["field"]?.stringValue }) == ["a", "max_bytes", "eviction"])
            try await Self.expectEmpty(api)
        }
    }

    @Test func refusesOtherMediaTypes() async throws {
        try await withAPI { api in
            for type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
                try await api.send(.put, "/v1/cache/n", "{}", headers: [.contentType: type])
                    .expectProblem(.unsupportedMediaType, status: 415)
            }
            try await api.send(
                .put, "/v1/cache/n", "{}", headers: [.contentType: "application/json", .contentEncoding: "gzip"]
            )
            .expectProblem(.unsupportedMediaType, status: 415)
            for accept in [
                "text/html", "application/json;q=0", "image/*, */*;q=0", "application/json;q=0, */*",
                "application/*;q=0, */*",
            ] {
                try await api.send(.put, "/v1/cache/n", "{}", headers: [.accept: accept])
                    .expectProblem(.notAcceptable, status: 406)
            }
            try await Self.expectEmpty(api)
            for type in ["application/json; charset=utf-8", "application/merge-patch+json", "APPLICATION/JSON"] {
                let answer = try await api.send(
                    .put, "/v1/cache/n", "{}", headers: [.contentType: type, .accept: "text/html, */*;q=0.1"])
                #expect(answer.status == .created || answer.status == .ok)
            }
        }
    }

    /// Its bytes would be stored as if they were the value.
    @Test func refusesTransferCodingsItDoesNotKnow() async throws {
        try await withAPI { api in
            let headers: HTTPFields = [.transferEncoding: "gzip, chunked"]
            try await api.send(.put, "/v1/cache/n/entries/k", "v", headers: headers)
                .expectProblem(.notSupported, status: 501)
            try await Self.expectEmpty(api)
        }
    }

    @Test func refusesBodiesThatAreTooLarge() async throws {
        var settings = Settings()
        settings.set(.maxEntryBytes, to: .integer(200_000), source: .flag)
        try await withAPI(.live, settings: settings) { api in
            let large = [UInt8](repeating: 1, count: 200_001)
            try await api.send(.put, "/v1/cache/n/entries/k", bytes: large).expectProblem(.payloadTooLarge, status: 413)
            let text = "\"" + String(repeating: "x", count: Limits.maxJSONBodyBytes) + "\""
            try await api.send(.put, "/v1/cache/n", text, headers: [.contentType: "application/json"])
                .expectProblem(.payloadTooLarge, status: 413)
            try await Self.expectEmpty(api)
            #expect(
                try await api.send(.put, "/v1/cache/n/entries/k", bytes: Array(large.dropLast())).status == .created)
        }
    }

    @Test func refusesUnknownQueries() async throws {
        try await withAPI { api in
            try await api.send(.put, "/v1/cache/n/entries/k", "v")
            for (method, uri) in [
                (HTTPRequest.Method.delete, "/v1/cache/n/entries?prefx=a"),
                (.delete, "/v1/cache/n/entries?prefix=a&prefix=b"),
                (.delete, "/v1/cache/n/entries?older_than_seconds=x"), (.delete, "/v1/cache/n/entries?tag="),
                (.get, "/v1/cache/n/entries?limit=0"), (.get, "/v1/cache/n/entries?limit=501"),
                (.get, "/v1/cache?limit=x"),
                (.get, "/v1/cache/n/entries?cursor=%21"), (.get, "/v1/cache/n/entries/k?x=1"),
                (.delete, "/v1/cache/n?x=1"),
                (.delete, "/v1/cache?all=yes"), (.get, "/v1/maintenance/runs?cursor=YQ"),
            ] {
                try await api.send(method, uri).expectProblem(.validationFailed, status: 422)
            }
            let detail = try await api.send(.delete, "/v1/cache/n/entries?perfix=a").json["detail"]
            #expect(detail == "perfix: is not a known query parameter. Did you mean 'prefix'?")
            #expect(try await api.send(.get, "/v1/cache/n/entries/k").text == "v")
        }
    }

    /// The router skips empty segments; a deletion without a key must not become a clear.
    @Test func refusesPathsWithEmptySegments() async throws {
        try await withAPI { api in
            try await api.send(.put, "/v1/cache/n/entries/k", "v")
            for (method, uri) in [
                (HTTPRequest.Method.delete, "/v1/cache/n/entries/"), (.delete, "/v1/cache//n"),
                (.delete, "//v1/cache/n/entries"),
                (.put, "/v1/cache/n/entries/"), (.get, "/v1/cache/"), (.get, "/"), (.get, "/v2"),
            ] {
                try await api.send(method, uri).expectProblem(.notFound, status: 404)
            }
            #expect(try await api.send(.get, "/v1/cache/n/entries/k").text == "v")
        }
    }

    /// Mutations of valid requests: no 5xx, and a refused request leaves nothing behind.
    @Test func survivesGeneratedRequests() async throws {
        try await withAPI { api in
            var numbers = RepeatableNumbers(seed: 3)
            let pieces = [
                "/v1/cache", "/n", "/entries", "/k", "/metadata", "/touch", "/increment", "/batch", "/v1/config", "/x",
                "/%2F",
                "?limit=1", "?prefix=%C3", "&tag=t", "/..", "/%00", "?", "%", "/v1/maintenance/cleanup", "/runs", "//",
            ]
            let bodies = [
                "{}", "{\"ttl_seconds\":1}", "{\"operations\":[{\"op\":\"get\",\"key\":\"k\"}]}", "[",
                "{\"delta\":1e99}", "", "\u{0}",
                "{\"operations\":[{\"op\":\"set\",\"key\":\"k\",\"json\":{}}],\"atomic\":1}", "{\"dry_run\":true}",
            ]
            let methods: [HTTPRequest.Method] = [.get, .put, .post, .delete, .patch, .head, .options]
            for _ in 0..<4000 {
                let uri = (0..<Int.random(in: 1...5, using: &numbers))
                    .map { _ in pieces.randomElement(using: &numbers)! }.joined()
                var body = Array(bodies.randomElement(using: &numbers)!.utf8)
                if !body.isEmpty, Bool.random(using: &numbers) {
                    body[Int.random(in: 0..<body.count, using: &numbers)] = UInt8.random(
                        in: 0...255, using: &numbers)
                }
                let answer = try await api.send(
                    methods.randomElement(using: &numbers)!, uri.first == "/" ? uri : "/" + uri, bytes: body,
                    headers: [.contentType: Bool.random(using: &numbers) ? "application/json" : "x/y"])
                #expect(answer.status.code < 500, "\(uri)")
                if answer.status.code >= 400, answer.body.readableBytes > 0 { #expect(try answer.json["code"] != nil) }
            }
        }
    }
}
