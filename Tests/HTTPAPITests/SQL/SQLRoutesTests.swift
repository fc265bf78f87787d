// POST /v1/sql as a client sees it.

import Domain
import HTTPAPI
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import TestSupport
import Testing

@Suite struct SQLRoutesTests {
    private func withRows(_ body: @escaping @Sendable (API) async throws -> Void) async throws {
        try await withAPI { api in
            // The view uses the system's clock, not the test's.
            for key in ["a", "b", "c"] {
                try await api.send(
                    .put, "/v1/cache/n/entries/\(key)", "12345", headers: [HTTPField.Name("Reprise-TTL")!: "none"])
            }
            try await body(api)
        }
    }

    @Test func answersRows() async throws {
        try await withRows { api in
            let response = try await api.json(
                .post, "/v1/sql",
                ["query": "SELECT key, size_bytes, NULL AS n, x'00' AS b FROM cache_overview ORDER BY key", "limit": 2])
            #expect(response.status == .ok)
            #expect(response[header: "Content-Type"] == "application/json")
            #expect(response[header: "Cache-Control"] == "no-store" && response[header: "Vary"] == "Accept")
            let json = try response.json
            #expect(json["columns"] == ["key", "size_bytes", "n", "b"])
            #expect(json["rows"] == [["a", 5, nil, ["base64": "AA=="]], ["b", 5, nil, ["base64": "AA=="]]])
            #expect(json["row_count"] == 2 && json["truncated"] == true)
            #expect((json["elapsed_seconds"]?.doubleValue ?? 0) > 0)
        }
    }

    @Test func answersCSV() async throws {
        try await withRows { api in
            let body = #"{"query": "SELECT key, NULL AS n FROM cache_entries ORDER BY key", "limit": 2}"#
            for accept in ["text/csv", "text/*", "application/json;q=0.5, text/csv"] {
                let response = try await api.send(
                    .post, "/v1/sql", body, headers: [.contentType: "application/json", .accept: accept])
                #expect(response.text == "key,n\r\na,\r\nb,\r\n")
                #expect(response[header: "Content-Type"] == "text/csv; charset=utf-8; header=present")
                #expect(response[header: "Reprise-Row-Count"] == "2" && response[header: "Reprise-Truncated"] == "true")
            }
            for accept in ["*/*", "application/*", "application/json, text/csv;q=0.9"] {
                let response = try await api.send(
                    .post, "/v1/sql", body, headers: [.contentType: "application/json", .accept: accept])
                #expect(try response.json["row_count"] == 2)
            }
            try await api.send(
                .post, "/v1/sql", body, headers: [.contentType: "application/json", .accept: "image/png"]
            )
            .expectProblem(.notAcceptable, status: 406)
        }
    }

    @Test func bindsJSONsScalars() async throws {
        try await withAPI { api in
            let positional = try await api.json(
                .post, "/v1/sql",
                [
                    "query": "SELECT ?1, ?2, ?3, ?4, ?5, typeof(?6)",
                    "params": ["a", 9_223_372_036_854_775_807, true, nil, .number("0.5"), .number("1e3")],
                ])
            #expect(
                try positional.json["rows"] == [
                    ["a", 9_223_372_036_854_775_807, 1, nil, .number("0.5"), "real"]
                ])
            let named = try await api.json(
                .post, "/v1/sql", ["query": "SELECT :a, @b, $c", "params": ["a": 1, "@b": false, "c": ""]])
            #expect(try named.json["rows"] == [[1, 0, ""]])
        }
    }

    @Test func refusesWhatIsWrong() async throws {
        try await withAPI { api in
            for body: JSON in [
                [:], ["query": nil], ["query": 1], ["query": "SELECT 1", "limit": 0],
                ["query": "SELECT 1", "limit": 10_001], ["query": "SELECT 1", "params": 1],
                ["query": "SELECT ?", "params": [[1]]], ["query": "SELECT ?", "params": [["base64": ""]]],
                ["query": "SELECT ?", "params": [.number("9223372036854775808")]],
                ["query": "SELECT ?", "params": [.number("1e999")]], ["query": "SELECT ?"],
                ["query": "SELECT 1", "sql": "SELECT 1"], [], ["query": .string(String(repeating: " ", count: 40_000))],
            ] {
                try await api.json(.post, "/v1/sql", body).expectProblem(.validationFailed, status: 422)
            }
            try await api.json(.post, "/v1/sql?query=x", ["query": "SELECT 1"])
                .expectProblem(.validationFailed, status: 422)
            try await api.send(.post, "/v1/sql", "SELECT 1", headers: [.contentType: "application/sql"])
                .expectProblem(.unsupportedMediaType, status: 415)
            try await api.send(.get, "/v1/sql").expectProblem(.methodNotAllowed, status: 405)
        }
    }

    @Test func namesWhatIsWrongWithTheQuery() async throws {
        try await withAPI { api in
            let wrong = try await api.json(.post, "/v1/sql", ["query": "SELECT missing FROM sessions"])
                .expectProblem(.invalidSQL, status: 422)
            #expect(wrong["offset"] == 7)
            #expect(wrong["detail"] == "SQLite: no such column: missing.")
            for query in ["", ";", "SELECT 1; SELECT 2", "SELECT 1\0"] {
                try await api.json(.post, "/v1/sql", ["query": .string(query)]).expectProblem(.invalidSQL, status: 422)
            }
            for query in ["DELETE FROM sessions", "PRAGMA journal_mode = OFF", "SELECT * FROM sqlite_schema"] {
                let refused = try await api.json(.post, "/v1/sql", ["query": .string(query)])
                    .expectProblem(.sqlNotAllowed, status: 422)
                #expect(refused["detail"]?.stringValue?.contains("docs/sql.md") == true)
            }
            let large = "WITH RECURSIVE t (a) AS (SELECT 'a' UNION ALL SELECT a || a FROM t) SELECT a FROM t"
            try await api.json(.post, "/v1/sql", ["query": .string(large)])
                .expectProblem(.sqlLimitExceeded, status: 422)
        }
    }

    @Test func endsWhatTakesTooLong() async throws {
        try await withAPI { api in
            let endless = "WITH RECURSIVE t (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t"
            async let bomb = api.json(.post, "/v1/sql", ["query": .string(endless)])
            for number in 0..<3 {
                #expect(try await api.send(.put, "/v1/cache/n/entries/\(number)", "v").status == .created)
                #expect(try await api.send(.get, "/v1/cache/n/entries").status == .ok)
                #expect(try await api.json(.post, "/v1/sql", ["query": "SELECT 1"]).status == .ok)
            }
            let response = try await bomb
            try response.expectProblem(.deadlineExceeded, status: 503)
            #expect(response[header: "Retry-After"] == "1")
        }
    }

    @Test func whatAnEngineLacksIsNotSupported() async throws {
        try await withAPI { api in
            let services = Services(
                storage: PlainEngine(base: api.storage), settings: api.services.settings,
                clock: api.clock.wallClock, process: { nil })
            let application = buildApplication(
                services: services, logger: quietLogger)
            try await application.test(.router) { client in
                let response = try await client.execute(
                    uri: "/v1/sql", method: .post, headers: [.contentType: "application/json"],
                    body: ByteBuffer(string: #"{"query": "SELECT 1"}"#))
                try response.expectProblem(.notSupported, status: 501)
                for (method, uri) in [
                    (HTTPRequest.Method.post, "/v1/backups"), (.get, "/v1/backups"), (.get, "/v1/backups/x"),
                    (.delete, "/v1/backups/x"),
                ] {
                    try await client.execute(uri: uri, method: method)
                        .expectProblem(.notSupported, status: 501)
                }
            }
        }
    }
}

/// An engine that can neither run queries nor make backups.
private struct PlainEngine: StorageEngine {
    let base: any StorageEngine

    var engineName: String { "plain" }
    var cache: any CacheStore { base.cache }
    var sessions: any SessionStore { base.sessions }
    var history: any HistoryStore { base.history }
    var samples: any SampleStore { base.samples }
    var accessTokens: any TokenStore { base.accessTokens }
    var idempotency: any IdempotencyStore { base.idempotency }
    var settingsStore: any SettingsStore { base.settingsStore }
    var maintenance: any MaintenanceStore { base.maintenance }
    var health: any HealthStore { base.health }
    var operations: any OperationalStore { base.operations }
    var diagnostics: any DiagnosticStore { base.diagnostics }
    var inspection: (any SQLInspection)? { nil }
    var backups: (any BackupStore)? { nil }

    func endLongReads() { base.endLongReads() }
    func close() async { await base.close() }
}
