// Idempotency-Key over the API: what is answered again, to whom, and for which requests.

import Domain
import HTTPTypes
import HummingbirdTesting
import SQLiteStorage
import TestSupport
import Testing

@testable import HTTPAPI

struct IdempotencyRoutesTests {
    /// What a test sends, and what it is sent with.
    private struct Sent {
        var method: HTTPRequest.Method = .post
        var path: String
        var body: String?
        var headers: HTTPFields = [:]
    }

    private func send(_ api: API, _ request: Sent, key: String, as token: String? = nil) async throws -> TestResponse {
        var headers = request.headers
        headers[.idempotencyKey] = key
        if request.body != nil, headers[.contentType] == nil { headers[.contentType] = "application/json" }
        if let token { headers[.authorization] = "Bearer \(token)" }
        return try await api.send(request.method, request.path, request.body, headers: headers)
    }

    private let increment = Sent(path: "/v1/cache/n/entries/count/increment")

    private func count(_ api: API, as token: String? = nil) async throws -> String {
        let headers: HTTPFields = token.map { [.authorization: "Bearer \($0)"] } ?? [:]
        return try await api.send(.get, "/v1/cache/n/entries/count", headers: headers).text
    }

    /// Sends a request twice: the second time, the answer is the first one again.
    @discardableResult
    private func sendTwice(
        _ api: API, _ request: Sent, key: String = "k", status: Int, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> TestResponse {
        let first = try await send(api, request, key: key)
        #expect(first.status.code == status, "\(first.text)", sourceLocation: sourceLocation)
        #expect(first[header: "Idempotency-Replayed"] == nil, sourceLocation: sourceLocation)
        api.clock.advance(seconds: 10)
        let again = try await send(api, request, key: key)
        #expect(again.status == first.status, sourceLocation: sourceLocation)
        #expect(again.bytes == first.bytes, sourceLocation: sourceLocation)
        #expect(again[header: "Idempotency-Replayed"] == "true", sourceLocation: sourceLocation)
        #expect(again[header: "X-Request-Id"] != first[header: "X-Request-Id"], sourceLocation: sourceLocation)
        var (before, after) = (first.headers, again.headers)
        // Some answers are made while they are sent, so that their length is not known before.
        for name in ["X-Request-Id", "Date", "Content-Length"] {
            before[HTTPField.Name(name)!] = nil
            after[HTTPField.Name(name)!] = nil
        }
        after[.idempotencyReplayed] = nil
        #expect(
            before.map { "\($0.name): \($0.value)" }.sorted() == after.map { "\($0.name): \($0.value)" }.sorted(),
            sourceLocation: sourceLocation)
        return again
    }

    @Test func anIncrementCountsOnce() async throws {
        try await withAPI { api in
            let answer = try await sendTwice(api, increment, status: 200)
            #expect(answer.text == #"{"value":1}"#)
            #expect(try await send(api, increment, key: "other").text == #"{"value":2}"#)
            #expect(try await api.send(.post, increment.path).text == #"{"value":3}"#)
            #expect(try await send(api, increment, key: "k").text == #"{"value":1}"#)
            #expect(try await count(api) == "3")
        }
    }

    @Test func anAppendAddsOneItem() async throws {
        try await withAPI { api in
            try await api.json(.put, "/v1/sessions/s", [:])
            let append = Sent(path: "/v1/sessions/s/history", body: #"{"data": {"n": 1}}"#)
            let answer = try await sendTwice(api, append, status: 201)
            #expect(try answer.json["item"]?["id"]?.stringValue?.isEmpty == false)
            #expect(try await api.send(.get, "/v1/sessions/s/history").json.items.count == 1)
        }
    }

    /// Sent again, the condition is no longer true, and still the answer is the first one.
    @Test func aConditionalPatchIsAnsweredAgain() async throws {
        try await withAPI { api in
            try await api.json(.put, "/v1/sessions/s", ["state": ["a": 1]])
            let tag = try #require(try await api.send(.get, "/v1/sessions/s/state")[header: "ETag"])
            let patch = Sent(
                method: .patch, path: "/v1/sessions/s/state", body: #"{"set": {"a": 2}}"#, headers: [.ifMatch: tag])
            try await sendTwice(api, patch, status: 200)
            try await send(api, patch, key: "other").expectProblem(.preconditionFailed, status: 412)
        }
    }

    @Test func aSessionIsCreatedOnce() async throws {
        try await withAPI { api in
            let create = Sent(path: "/v1/sessions", body: #"{"state": {"a": 1}}"#)
            let answer = try await sendTwice(api, create, status: 201)
            let id = try #require(try answer.json["id"]?.stringValue)
            #expect(answer[header: "Location"] == "/v1/sessions/\(id)")
            #expect(try await api.send(.get, "/v1/sessions").json.items.count == 1)
        }
    }

    /// Every area: what changes something in its own way, and what changes nothing.
    @Test func allRoutesAnswerAgain() async throws {
        try await withAPI { api in
            try await api.json(.put, "/v1/sessions/s", ["state": ["temp_a": 1]])
            try await api.json(.post, "/v1/sessions/s/history", ["id": "i", "data": ["a": 1]])
            try await api.send(.put, "/v1/cache/n/entries/e", "x")
            let lines: HTTPFields = [.contentType: "application/x-ndjson"]
            let sample = #"{"kind": "timing", "name": "t", "duration_seconds": 1}"#
            let requests: [(Sent, Int)] = [
                (Sent(path: "/v1/cache/n/entries/e/touch", body: #"{"ttl_seconds": 9}"#), 200),
                (Sent(path: "/v1/cache/n/batch", body: #"{"operations": [{"op": "get", "key": "e"}]}"#), 200),
                (Sent(path: "/v1/cache/n/batch", body: #"{"operations": [{"op": "increment", "key": "i"}]}"#), 200),
                (Sent(path: "/v1/sessions/s/touch"), 200),
                (Sent(path: "/v1/sessions/s/optimize", body: "{}"), 200),
                (Sent(path: "/v1/sessions/s/debounce/d", body: #"{"delay_seconds": 1}"#), 200),
                (Sent(method: .patch, path: "/v1/sessions/s/history/i", body: #"{"b": 2}"#), 200),
                (Sent(path: "/v1/samples", body: sample), 202),
                (Sent(path: "/v1/samples", body: sample + "\n" + sample, headers: lines), 202),
                (Sent(method: .patch, path: "/v1/config", body: #"{"debounce_delay": 2}"#), 200),
                (Sent(path: "/v1/maintenance/cleanup", body: #"{"dry_run": true}"#), 200),
                (Sent(path: "/v1/sql", body: #"{"query": "SELECT count(*) FROM sessions"}"#), 200),
                (Sent(path: "/v1/sql", body: #"{"query": "SELECT"}"#), 422),
                (Sent(path: "/v1/sessions/none/touch"), 404),
                (Sent(path: "/v1/sessions", body: #"{"id": "s"}"#), 409),
                (Sent(path: "/v1/sessions", body: "{"), 400),
                (Sent(path: "/v1/batch", body: #"{"requests": [{"method": "GET", "path": "/v1/cache/n"}]}"#), 200),
            ]
            for (index, (request, status)) in requests.enumerated() {
                try await sendTwice(api, request, key: "key-\(index)", status: status)
            }
            let timings = try await api.json(.post, "/v1/sql", ["query": "SELECT count(*) FROM samples"])
            #expect(try timings.json["rows"]?.text == "[[3]]")
        }
    }

    @Test func anotherBodyIsRefused() async throws {
        try await withAPI { api in
            let one = Sent(path: increment.path, body: #"{"delta": 1}"#)
            #expect(try await send(api, one, key: "k").status == .ok)
            for body in [#"{"delta": 2}"#, "{}", nil] {
                try await send(api, Sent(path: increment.path, body: body), key: "k")
                    .expectProblem(.idempotencyKeyReused, status: 422)
            }
            let other = Sent(
                path: one.path, body: one.body, headers: [.contentType: "application/problem+json"])
            try await send(api, other, key: "k").expectProblem(.idempotencyKeyReused, status: 422)
            #expect(try await send(api, one, key: "k").text == #"{"value":1}"#)
            #expect(try await count(api) == "1")
        }
    }

    @Test func aKeyBelongsToItsRouteAndItsCaller() async throws {
        try await withAPI { api in
            #expect(try await send(api, increment, key: "k").status == .ok)
            let elsewhere = Sent(path: "/v1/cache/n/entries/other/increment")
            #expect(try await send(api, elsewhere, key: "k")[header: "Idempotency-Replayed"] == nil)
            try await api.json(.put, "/v1/sessions/s", [:])
            for query in ["?create=true", "?create=false", ""] {
                let append = Sent(path: "/v1/sessions/s/history" + query, body: #"{"data": 1}"#)
                #expect(try await send(api, append, key: "k").status == .created, "\(query)")
            }
            let admin = try await api.makeToken(["admin"])
            let writer = try await api.makeToken(["write"], as: admin)
            for token in [admin, writer] {
                let first = try await send(api, increment, key: "k", as: token)
                #expect(first[header: "Idempotency-Replayed"] == nil)
                let again = try await send(api, increment, key: "k", as: token)
                #expect(again[header: "Idempotency-Replayed"] == "true")
            }
            #expect(try await count(api, as: admin) == "3")
        }
    }

    /// An answer is for those who may send the request now.
    @Test func aRevokedTokenGetsNoAnswerAgain() async throws {
        try await withAPI { api in
            let admin = try await api.makeToken(["admin"])
            let writer = try await api.makeToken(["write"], as: admin)
            #expect(try await send(api, increment, key: "k", as: writer).status == .ok)
            let id = try #require(TokenText(writer)).id
            try await api.send(.delete, "/v1/tokens/\(id)", headers: [.authorization: "Bearer \(admin)"])
            try await send(api, increment, key: "k", as: writer).expectProblem(.unauthenticated, status: 401)
        }
    }

    @Test func aBadKeyIsRefused() async throws {
        try await withAPI { api in
            for key in ["", "a b", String(repeating: "k", count: 129)] {
                try await send(api, increment, key: key).expectProblem(.malformedRequest, status: 400)
            }
            var twice = HTTPFields()
            twice.append(HTTPField(name: .idempotencyKey, value: "a"))
            twice.append(HTTPField(name: .idempotencyKey, value: "a"))
            try await api.send(.post, increment.path, headers: twice).expectProblem(.malformedRequest, status: 400)
            #expect(try await send(api, increment, key: "k").text == #"{"value":1}"#)
        }
    }

    /// These can be sent again as they are.
    @Test func otherMethodsIgnoreAKey() async throws {
        try await withAPI { api in
            let entry = "/v1/cache/n/entries/e"
            for (method, status) in [
                (HTTPRequest.Method.put, 201), (.put, 204), (.get, 200), (.head, 200), (.delete, 204), (.get, 404),
            ] {
                for key in ["k", "a b"] where method != .put || key == "k" {
                    let body = method == .put ? "x" : nil
                    let answer = try await send(api, Sent(method: method, path: entry, body: body), key: key)
                    #expect(answer.status.code == status)
                    #expect(answer[header: "Idempotency-Replayed"] == nil)
                }
            }
        }
    }

    @Test func aTokenIsMadeOnceAndItsSecretKeptNowhere() async throws {
        try await withAPI { api in
            let admin = try await api.makeToken(["admin"])
            let create = Sent(path: "/v1/tokens", body: #"{"name": "t", "scopes": ["read"]}"#)
            #expect(try await send(api, create, key: "k", as: admin).status == .created)
            let problem = try await send(api, create, key: "k", as: admin)
                .expectProblem(.idempotencyAnswerLost, status: 409)
            #expect(problem["detail"]?.stringValue?.contains("secret") == true)
            let headers: HTTPFields = [.authorization: "Bearer \(admin)"]
            #expect(try await api.send(.get, "/v1/tokens", headers: headers).json.items.count == 2)
        }
    }

    @Test func anAnswerThatIsTooLargeIsNotKept() async throws {
        try await withAPI { api in
            _ = try await api.send(.put, "/v1/cache/n/entries/large", bytes: noise(Limits.maxKeptAnswerBytes))
            let batch = Sent(
                path: "/v1/cache/n/batch",
                body: #"{"operations": [{"op": "increment", "key": "count"}, {"op": "get", "key": "large"}]}"#)
            #expect(try await send(api, batch, key: "k").bytes.count > Limits.maxKeptAnswerBytes)
            try await send(api, batch, key: "k").expectProblem(.idempotencyAnswerLost, status: 409)
            #expect(try await count(api) == "1")
        }
    }

    @Test func aDayLaterAKeyIsFree() async throws {
        try await withAPI { api in
            try await api.json(.post, increment.path, ["ttl_seconds": nil])
            for (milliseconds, value) in [
                (0, "2"), (Limits.keyMemoryMilliseconds - 1, "2"), (1, "3"), (0, "3"),
            ] {
                api.clock.advance(milliseconds: milliseconds)
                let answer = try await send(api, increment, key: "k")
                #expect(try answer.json["value"]?.text == value)
            }
        }
    }

    // MARK: Batches

    private func responses(_ answer: TestResponse) throws -> [JSON] { try answer.json["responses"]?.elements ?? [] }

    @Test func eachRequestOfABatchHasItsKey() async throws {
        try await withAPI { api in
            let item = #"{"method": "POST", "path": "\#(increment.path)", "headers": {"Idempotency-Key": "KEY"}}"#
            func batch(_ keys: [String]) async throws -> [JSON] {
                let items = keys.map { item.replacing("KEY", with: $0) }.joined(separator: ",")
                return try responses(
                    try await api.send(
                        .post, "/v1/batch", #"{"requests": [\#(items)]}"#, headers: [.contentType: "application/json"]))
            }
            let first = try await batch(["a", "b", "a"])
            #expect(first.map { $0["json"]?["value"]?.integerValue } == [1, 2, 1])
            #expect(first.map { $0["headers"]?["Idempotency-Replayed"] } == [nil, nil, "true"])
            #expect(try await batch(["b"])[0]["json"]?["value"]?.integerValue == 2)
            // The same as if it were sent alone.
            #expect(try await send(api, increment, key: "a")[header: "Idempotency-Replayed"] == "true")
            #expect(try await batch(["a b"])[0]["status"]?.integerValue == 400)
            #expect(try await count(api) == "2")
        }
    }

    private let keyedBatch = Sent(
        path: "/v1/batch",
        body: """
            {"requests": [{"method": "POST", "path": "/v1/cache/n/entries/count/increment"},
                {"method": "POST", "path": "/v1/cache/n/entries/count/increment"},
                {"method": "GET", "path": "/v1/cache/n/entries/count"}]}
            """)

    @Test func aBatchIsAnsweredAgain() async throws {
        try await withAPI { api in
            try await sendTwice(api, keyedBatch, status: 200)
            #expect(try await count(api) == "2")
            try await send(api, Sent(path: "/v1/batch", body: #"{"requests": []}"#), key: "k")
                .expectProblem(.idempotencyKeyReused, status: 422)
        }
    }

    /// Its requests have keys of their own, so what was done of it before a crash is not done again, and the rest is.
    @Test func aBatchWhoseAnswerIsLostIsCompleted() async throws {
        try await withAPI { api in
            // As if the process ended before the answer to the batch was kept, and that to its second request.
            let services = Services(
                storage: ForgetfulEngine(base: api.storage, keeps: 1), settings: LiveSettings(Settings()),
                clock: api.clock.wallClock, process: { nil })
            let application = buildApplication(services: services, logger: quietLogger)
            try await application.test(.router) { client in
                let dying = API(client: client, clock: api.clock, storage: api.storage, services: services)
                let first = try await send(dying, keyedBatch, key: "k")
                #expect(first.status == .ok)
            }
            #expect(try await count(api) == "2")
            let again = try responses(try await send(api, keyedBatch, key: "k"))
            #expect(again.map { $0["status"]?.integerValue } == [200, 409, 200])
            #expect(again[0]["json"]?["value"]?.integerValue == 1)
            #expect(again[0]["headers"]?["Idempotency-Replayed"] == "true")
            #expect(again[1]["json"]?["code"] == "idempotency_answer_lost")
            #expect(try await count(api) == "2")
        }
    }

    @Test func aBatchThatMakesATokenIsNotKept() async throws {
        try await withAPI { api in
            let body = #"""
                {"requests": [{"method": "POST", "path": "/v1/tokens", "json": {"name": "t", "scopes": ["admin"]}}]}
                """#
            let batch = Sent(path: "/v1/batch", body: body)
            let first = try responses(try await send(api, batch, key: "k"))
            #expect(first[0]["status"]?.integerValue == 201)
            let token = try #require(first[0]["json"]?["token"]?.stringValue)
            // From now on a token is needed, so the caller is another one, and its key too.
            #expect(try await send(api, batch, key: "k", as: token).status == .ok)
            try await send(api, batch, key: "k", as: token).expectProblem(.idempotencyAnswerLost, status: 409)
        }
    }

    // MARK: Racing clients

    @Test func ofRacingClientsOneIsServed() async throws {
        try await withAPI { api in
            for round in 0..<4 {
                let answers = try await withThrowingTaskGroup(of: TestResponse.self) { group in
                    for _ in 0..<32 { group.addTask { try await send(api, increment, key: "round-\(round)") } }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                let served = answers.filter { $0.status == .ok }
                #expect(served.filter { $0[header: "Idempotency-Replayed"] == nil }.count == 1)
                #expect(served.allSatisfy { $0.text == #"{"value":\#(round + 1)}"# })
                for refused in answers where refused.status != .ok {
                    try refused.expectProblem(.idempotencyKeyInUse, status: 409)
                    #expect(refused[header: "Retry-After"] == "1")
                }
                #expect(try await send(api, increment, key: "round-\(round)").status == .ok)
            }
            #expect(try await count(api) == "4")
        }
    }
}

/// An engine that keeps some answers, and then none any more.
private struct ForgetfulEngine: StorageEngine {
    let base: any StorageEngine
    let idempotency: any IdempotencyStore

    init(base: any StorageEngine, keeps count: Int) {
        self.base = base
        idempotency = ForgetfulStore(base: base.idempotency, left: count)
    }

    var engineName: String { "forgetful" }
    var cache: any CacheStore { base.cache }
    var sessions: any SessionStore { base.sessions }
    var history: any HistoryStore { base.history }
    var samples: any SampleStore { base.samples }
    var accessTokens: any TokenStore { base.accessTokens }
    var settingsStore: any SettingsStore { base.settingsStore }
    var maintenance: any MaintenanceStore { base.maintenance }
    var health: any HealthStore { base.health }
    var operations: any OperationalStore { base.operations }
    var diagnostics: any DiagnosticStore { base.diagnostics }
    var inspection: (any SQLInspection)? { base.inspection }
    var backups: (any BackupStore)? { base.backups }

    func endLongReads() { base.endLongReads() }
    func close() async { await base.close() }
}
