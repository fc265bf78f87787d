// /v1/tokens, and what tokens open.

import Domain
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import NIOCore
import NIOEmbedded
import SQLiteStorage
import Synchronization
import TestSupport
import Testing

@testable import HTTPAPI

struct TokenRoutesTests {
    private func bearer(_ token: String) -> HTTPFields { [.authorization: "Bearer \(token)"] }

    @Test func theFirstTokenClosesAndTheLastOpens() async throws {
        try await withAPI { api in
            #expect(try await api.send(.get, "/v1/sessions").status == .ok)
            let token = try await api.makeToken(["admin"])
            try await api.send(.get, "/v1/sessions").expectProblem(.unauthenticated, status: 401)
            #expect(try await api.send(.get, "/v1/sessions", headers: bearer(token)).status == .ok)
            let id = try #require(TokenText(token)).id
            #expect(try await api.send(.delete, "/v1/tokens/\(id)", headers: bearer(token)).status == .noContent)
            #expect(try await api.send(.get, "/v1/sessions").status == .ok)
            // Who sends a token expects it to count.
            try await api.send(.get, "/v1/sessions", headers: bearer(token))
                .expectProblem(.unauthenticated, status: 401)
        }
    }

    @Test func anIdWithAnotherSecretDoesNotOpen() async throws {
        try await withAPI { api in
            let token = try await api.makeToken(["admin"])
            let last = token.last == "0" ? "1" : "0"
            for wrong in [token.dropLast() + last, token.dropLast(64) + String(repeating: "0", count: 64)] {
                try await api.send(.get, "/v1/tokens", headers: bearer(String(wrong)))
                    .expectProblem(.unauthenticated, status: 401)
            }
        }
    }

    @Test func anExpiredTokenDoesNotOpen() async throws {
        try await withAPI { api in
            let token = try await api.makeToken(["admin"], extra: ["expires_in_seconds": 10])
            api.clock.advance(milliseconds: 9_999)
            #expect(try await api.send(.get, "/v1/tokens", headers: bearer(token)).status == .ok)
            api.clock.advance(milliseconds: 1)
            let problem = try await api.send(.get, "/v1/tokens", headers: bearer(token))
                .expectProblem(.unauthenticated, status: 401)
            #expect(problem["detail"]?.stringValue?.contains("expired") == true)
            try await api.send(.get, "/v1/tokens").expectProblem(.unauthenticated, status: 401)
        }
    }

    @Test func theSecretIsShownOnce() async throws {
        try await withAPI { api in
            let admin = try await api.makeToken(["admin"])
            let made = try await api.send(
                .post, "/v1/tokens", #"{"name":"app","scopes":["read","write"],"namespaces":["quality","models*"]}"#,
                headers: bearer(admin).adding(.contentType, "application/json"))
            let token = try made.json
            let id = try #require(token["id"]?.stringValue)
            #expect(made[header: "Location"] == "/v1/tokens/\(id)")
            #expect(made[header: "Cache-Control"] == "no-store")
            let text = try #require(token["token"]?.stringValue)
            #expect(text.hasPrefix("rpr_\(id)_"))
            #expect(text.utf8.count == 85)
            #expect(token["scopes"] == ["read", "write"])
            #expect(token["namespaces"] == ["quality", "models*"])
            #expect(token["expires_at"] == .null)
            #expect(token["last_used_at"] == .null)
            let list = try await api.send(.get, "/v1/tokens", headers: bearer(admin))
            let listed = try list.json.items
            #expect(listed.count == 2)
            let own = try await api.send(.get, "/v1/tokens/self", headers: bearer(text))
            let ownName = try own.json["name"]
            #expect(ownName == "app")
            for answer in [list, own] {
                #expect(!answer.text.contains(String(text.suffix(64))))
                let shown = try answer.json["token"]
                #expect(shown == nil)
            }
        }
    }

    @Test func pagesHaveAllTokensOnce() async throws {
        try await withAPI { api in
            let admin = try await api.makeToken(["admin"])
            for number in 1...7 {
                _ = try await api.makeToken(["read"], as: admin)
                if number % 3 == 0 { api.clock.advance(milliseconds: 5) }
            }
            var ids: [String] = []
            var times: [String] = []
            var cursor = ""
            repeat {
                let page = try await api.send(.get, "/v1/tokens?limit=3\(cursor)", headers: bearer(admin)).json
                for item in page.items {
                    ids.append(try #require(item["id"]?.stringValue))
                    times.append(try #require(item["created_at"]?.stringValue))
                }
                cursor = page["next_cursor"]?.stringValue.map { "&cursor=\($0)" } ?? ""
            } while !cursor.isEmpty
            #expect(Set(ids).count == 8)
            #expect(ids.count == 8)
            #expect(times == times.sorted(by: >))
        }
    }

    @Test(arguments: [
        (#"{}"#, ["name", "scopes"]), (#"{"name":"","scopes":[]}"#, ["name", "scopes"]),
        (#"{"name":"a\nb","scopes":["read"]}"#, ["name"]), (#"{"name":"a","scopes":["root"]}"#, ["scopes[0]"]),
        (#"{"name":"a","scopes":"read"}"#, ["scopes"]),
        (#"{"name":"a","scopes":["read"],"namespaces":[]}"#, ["namespaces"]),
        (#"{"name":"a","scopes":["read"],"namespaces":["a/b"]}"#, ["namespaces[0]"]),
        (#"{"name":"a","scopes":["read"],"namespaces":["a*b"]}"#, ["namespaces[0]"]),
        (#"{"name":"a","scopes":["read"],"expires_in_seconds":0}"#, ["expires_in_seconds"]),
        (#"{"name":"a","scopes":["read"],"expires":5}"#, ["expires"]),
    ])
    func whatIsWrongIsNamed(body: String, fields: [String]) async throws {
        try await withAPI { api in
            let answer = try await api.send(.post, "/v1/tokens", body, headers: [.contentType: "application/json"])
            let problem = try answer.expectProblem(.validationFailed, status: 422)
            let named = (problem["errors"]?.elements ?? []).compactMap { $0["field"]?.stringValue }
            #expect(named == fields)
            #expect(!api.storage.hasTokens)
        }
    }

    /// Who wants to be rid of a token may have nothing else of it than its text, which must not get into the log.
    @Test(arguments: [false, true])
    func theWholeTextRevokesToo(isWhole: Bool) async throws {
        try await withAPI { api in
            let text = try await api.makeToken(["admin"])
            let named = isWhole ? text : String(text.prefix(20))
            #expect(RequestMiddleware.loggable("/v1/tokens/\(text)") == "/v1/tokens/rpr_…")
            #expect(RequestMiddleware.loggable("/v1/sessions/a") == "/v1/sessions/a")
            let answer = try await api.send(.delete, "/v1/tokens/\(named)", headers: bearer(text))
            #expect(answer.status == .noContent)
            #expect(!api.storage.hasTokens)
            let again = try await api.send(.delete, "/v1/tokens/\(named)")
            #expect(again.status == .notFound)
            #expect(!again.text.contains(String(text.suffix(64))))
        }
    }

    @Test func whatIsNotThereIsNotRevoked() async throws {
        try await withAPI { api in
            try await api.send(.delete, "/v1/tokens/0123456789abcdef").expectProblem(.tokenNotFound, status: 404)
            try await api.send(.get, "/v1/tokens/self").expectProblem(.tokenNotFound, status: 404)
        }
    }

    @Test func thereIsAMaximum() async throws {
        try await withAPI { api in
            for _ in 1...Limits.maxTokens {
                var draft = try ObjectReader(["name": "x", "scopes": ["read"]])
                try await api.storage.addToken(TokenDraft(&draft).token(now: api.clock.wallClock.now()).token)
            }
            var draft = try ObjectReader(["name": "x", "scopes": ["read"]])
            let token = TokenDraft(&draft).token(now: api.clock.wallClock.now()).token
            await #expect(throws: Failure.self) { try await api.storage.addToken(token) }
            #expect(api.storage.tokens.count == Limits.maxTokens)
        }
    }

    @Test func theConfiguredTokenMayDoEverything() async throws {
        var settings = Settings()
        settings.set(.adminToken, to: .text("correct horse battery staple"), source: .environment)
        try await withAPI(settings: settings) { api in
            try await api.send(.get, "/v1/tokens").expectProblem(.unauthenticated, status: 401)
            let headers: HTTPFields = [.authorization: "Bearer correct horse battery staple"]
            #expect(try await api.send(.get, "/v1/tokens", headers: headers).status == .ok)
            let own = try await api.send(.get, "/v1/tokens/self", headers: headers).json
            #expect(own["scopes"] == ["admin"])
            let config = try await api.send(.get, "/v1/config", headers: headers)
            #expect(!config.text.contains("horse"))
            for wrong in ["correct horse battery stapl", "Correct horse battery staple", "x"] {
                try await api.send(.get, "/v1/tokens", headers: [.authorization: "Bearer \(wrong)"])
                    .expectProblem(.unauthenticated, status: 401)
            }
        }
    }

    /// A password of somebody else, such as a proxy in front, is none of ours as long as no token is needed.
    @Test func otherCredentialsAreIgnoredUntilATokenIsNeeded() async throws {
        try await withAPI { api in
            let headers: HTTPFields = [.authorization: "Basic dXNlcjpwYXNz"]
            #expect(try await api.send(.get, "/v1/sessions", headers: headers).status == .ok)
            _ = try await api.makeToken(["admin"])
            try await api.send(.get, "/v1/sessions", headers: headers).expectProblem(.unauthenticated, status: 401)
        }
        var settings = Settings()
        settings.set(.authentication, to: .text("none"), source: .environment)
        try await withAPI(settings: settings) { api in
            _ = try await api.makeToken(["admin"])
            #expect(try await api.send(.get, "/v1/tokens", headers: bearer(TokenText.random().text)).status == .ok)
        }
    }

    @Test(arguments: [("0.0.0.0", "auto", 401), ("127.0.0.1", "required", 401), ("0.0.0.0", "none", 200)])
    func whoNeedsAToken(host: String, authentication: String, status: Int) async throws {
        var settings = Settings()
        settings.set(.host, to: .text(host), source: .environment)
        settings.set(.authentication, to: .text(authentication), source: .environment)
        try await withAPI(settings: settings) { api in
            let answer = try await api.send(.get, "/v1/sessions")
            #expect(answer.status.code == status)
            let probe = try await api.send(.get, "/health/ready")
            #expect(probe.status == .ok)
        }
    }

    @Test func refusalsAreCounted() async throws {
        try await withAPI { api in
            let admin = try await api.makeToken(["admin"])
            let reader = try await api.makeToken(["read"], as: admin)
            _ = try await api.send(.get, "/v1/tokens")
            for _ in 1...3 { _ = try await api.send(.get, "/v1/tokens", headers: bearer("x")) }
            _ = try await api.send(.get, "/v1/tokens", headers: bearer(reader))
            let metrics = try await api.send(.get, "/metrics", headers: bearer(reader)).text
            for (reason, count) in [("missing", 1), ("invalid", 3), ("scope", 1), ("expired", 0)] {
                #expect(metrics.contains("reprise_access_refused_total{reason=\"\(reason)\"} \(count)\n"))
            }
        }
    }

    /// Racing clients: nobody is admitted by a token after its revocation was answered.
    @Test func nobodyEntersAfterARevocation() async throws {
        try await withAPI { api in
            let admin = try await api.makeToken(["admin"])
            for _ in 1...10 {
                let token = try await api.makeToken(["read"], as: admin)
                let id = try #require(TokenText(token)).id
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 1...8 {
                        group.addTask {
                            while true {
                                let isRevoked = api.storage.token(id) == nil
                                let answer = try await api.send(.get, "/v1/sessions", headers: bearer(token))
                                if isRevoked { #expect(answer.status == .unauthorized) }
                                if answer.status == .unauthorized { return }
                            }
                        }
                    }
                    group.addTask {
                        _ = try await api.send(.delete, "/v1/tokens/\(id)", headers: bearer(admin))
                        let after = try await api.send(.get, "/v1/sessions", headers: bearer(token))
                        #expect(after.status == .unauthorized)
                    }
                    try await group.waitForAll()
                }
            }
        }
    }
}

extension HTTPFields {
    func adding(_ name: HTTPField.Name, _ value: String) -> HTTPFields {
        var fields = self
        fields[name] = value
        return fields
    }
}

struct OpenStreamTests {
    /// A download ends when its token is revoked, with the rest of the value not sent.
    @Test func answersEnd() async throws {
        try await withAPI { api in
            let text = try await api.makeToken(["admin"])
            let id = try #require(TokenText(text)).id
            let parts = 4
            let body = ResponseBody(contentLength: parts * Limits.maxInlineValueBytes) { writer in
                for part in 0..<parts {
                    if part == 2 { try await api.storage.removeToken(id) }
                    try await writer.write(ByteBuffer(repeating: 1, count: Limits.maxInlineValueBytes))
                }
                try await writer.finish(nil)
            }
            var context = APIContext(source: .init(channel: EmbeddedChannel(), logger: quietLogger))
            context.identity = .token(try #require(api.storage.token(id)))
            let response = api.services.access.watch(Response(status: .ok, body: body), context)
            #expect(response.body.contentLength == parts * Limits.maxInlineValueBytes)
            let sink = Sink()
            await #expect(throws: Failure.self) { try await response.body.write(SinkWriter(sink: sink)) }
            #expect(sink.bytes.load(ordering: .relaxed) == 2 * Limits.maxInlineValueBytes)
        }
    }

    /// An upload fails when its token expires, and nothing is stored.
    @Test func uploadsEnd() async throws {
        try await withAPI { api in
            let text = try await api.makeToken(["admin"], extra: ["expires_in_seconds": 60])
            let id = try #require(TokenText(text)).id
            var context = APIContext(source: .init(channel: EmbeddedChannel(), logger: quietLogger))
            context.identity = .token(try #require(api.storage.token(id)))
            let parts = AsyncStream<ByteBuffer> { stream in
                for _ in 0..<3 { stream.yield(ByteBuffer(repeating: 1, count: 100_000)) }
                stream.finish()
            }
            let head = HTTPRequest(
                method: .put, scheme: nil, authority: nil, path: "/", headerFields: [.contentLength: "300000"])
            let request = api.services.access.watch(
                Request(head: head, body: RequestBody(asyncSequence: parts)), context)
            var received = 0
            await #expect(throws: Failure.self) {
                for try await part in request.body {
                    received += part.readableBytes
                    api.clock.advance(milliseconds: 60_000)
                }
            }
            #expect(received == 100_000)
        }
    }

    private final class Sink: Sendable { let bytes = Atomic(0) }

    private struct SinkWriter: ResponseBodyWriter {
        let sink: Sink
        mutating func write(_ buffer: ByteBuffer) async throws {
            sink.bytes.wrappingAdd(buffer.readableBytes, ordering: .relaxed)
        }
        consuming func finish(_ trailingHeaders: HTTPFields?) async throws {}
    }
}
