// POST /v1/batch: order, independence, what each request inherits, and what is refused.

import Domain
import HTTPTypes
import HummingbirdTesting
import TestSupport
import Testing

@testable import HTTPAPI

struct RequestBatchTests {
    /// The responses of a batch that is answered.
    private func run(
        _ api: API, _ requests: [JSON], _ more: [JSON.Member] = [], headers: HTTPFields = [:]
    ) async throws -> [JSON] {
        let body = JSON.object([.init(name: "requests", value: .array(requests))] + more)
        let response = try await api.send(
            .post, "/v1/batch", body.text,
            headers: headers.merging([.contentType: "application/json"]))
        #expect(response.status == .ok, "\(response.text)")
        guard case .array(let responses)? = try response.json["responses"] else {
            Issue.record("no responses: \(response.text)")
            return []
        }
        return responses
    }

    private func statuses(_ responses: [JSON]) -> [Int64?] { responses.map { $0["status"]?.integerValue } }

    @Test func eachSeesThoseBeforeIt() async throws {
        try await withAPI { api in
            let responses = try await run(
                api,
                [
                    [
                        "id": "open", "method": "PUT", "path": "/v1/sessions/tab?include=state",
                        "json": ["defaults": ["a": 1]],
                    ],
                    ["method": "PATCH", "path": "/v1/sessions/tab/state", "json": ["set": ["b": 2]]],
                    ["id": "read", "method": "GET", "path": "/v1/sessions/tab/state"],
                    [
                        "method": "PUT", "path": "/v1/cache/n/entries/k", "base64": "AAEC/w==",
                        "headers": ["Reprise-TTL": "60", "Content-Type": "audio/wav"],
                    ],
                    ["method": "GET", "path": "/v1/cache/n/entries/k"],
                    ["method": "HEAD", "path": "/v1/cache/n/entries/k"],
                    ["method": "DELETE", "path": "/v1/cache/n/entries/k"],
                    ["method": "GET", "path": "/v1/cache/n/entries/k"],
                ])
            #expect(statuses(responses) == [201, 200, 200, 201, 200, 200, 204, 404])
            #expect(responses.map { $0["id"] } == ["open", .null, "read"] + [JSON](repeating: .null, count: 5))
            #expect(responses[0]["json"]?["state"]?["a"]?.integerValue == 1)
            #expect(responses[2]["json"]?["state"]?.text == #"{"a":1,"b":2}"#)
            #expect(responses[2]["headers"]?["ETag"] == #""2""#)
            #expect(responses[4]["base64"] == "AAEC/w==" && responses[4]["json"] == nil)
            #expect(responses[4]["headers"]?["Content-Type"] == "audio/wav")
            #expect(responses[5]["headers"]?["Content-Length"] == "4")
            #expect(responses[5]["base64"] == nil && responses[5]["json"] == nil)
            #expect(responses[6]["json"] == nil && responses[6]["base64"] == nil)
            #expect(responses[7]["json"]?["reason"] == "deleted")
        }
    }

    /// An answer says as much as one to the same request alone.
    @Test func answersAreThoseOfTheRequestsAlone() async throws {
        try await withAPI { api in
            for (key, text) in [("json", #"{"a": 1.50}"#), ("broken", "{")] {
                try await api.send(
                    .put, "/v1/cache/n/entries/" + key, text, headers: [.contentType: "application/json"])
            }
            try await api.send(
                .put, "/v1/cache/n/entries/packed", "{}",
                headers: [.contentType: "application/json", .contentEncoding: "gzip"])
            for path in [
                "/v1/cache/n/entries/json", "/v1/cache/n/entries/broken", "/v1/cache/n/entries/packed",
                "/v1/cache/n/entries/absent", "/v1/sessions/none", "/v1/nothing", "/v1/cache?limit=0", "/v1/sessions",
            ] {
                let alone = try await api.send(.get, path)
                let response = try #require(try await run(api, [["method": "GET", "path": .string(path)]]).first)
                #expect(response["status"]?.integerValue == Int64(alone.status.code), "\(path)")
                #expect(response["headers"]?["Content-Type"]?.stringValue == alone.headers[.contentType], "\(path)")
                #expect(response["headers"]?["ETag"]?.stringValue == alone.headers[.eTag], "\(path)")
                guard let json = response["json"] else {
                    #expect(path.hasSuffix("broken") || path.hasSuffix("packed"))
                    #expect(response["base64"] == .string(path.hasSuffix("broken") ? "ew==" : "e30="))
                    continue
                }
                if alone.status.code < 400 {
                    #expect(json.text == (try alone.json.text), "\(path)")
                } else {
                    #expect(json["code"] == (try alone.json["code"]), "\(path)")
                    #expect(json["request_id"] == response["headers"]?["X-Request-Id"], "\(path)")
                }
            }
        }
    }

    @Test func oneThatFailsLeavesTheOthersAlone() async throws {
        try await withAPI { api in
            let requests: [JSON] = [
                ["method": "POST", "path": "/v1/cache/n/entries/a/increment"],
                ["method": "POST", "path": "/v1/sessions/none/touch"],
                ["method": "POST", "path": "/v1/cache/n/entries/a/increment", "json": ["delta": 5]],
            ]
            let responses = try await run(api, requests)
            #expect(statuses(responses) == [200, 404, 200])
            #expect(responses[2]["json"]?["value"]?.integerValue == 6)
            let stopped = try await run(api, requests, [.init(name: "stop_on_error", value: true)])
            #expect(statuses(stopped) == [200, 404, 424])
            #expect(stopped[2]["json"]?["code"] == "batch_aborted")
            #expect(try await api.send(.get, "/v1/cache/n/entries/a").text == "7")
        }
    }

    @Test func inParallelAllAreAnsweredInTheirOrder() async throws {
        try await withAPI { api in
            let requests: [JSON] = (0..<Limits.maxBatchRequests).map {
                [
                    "id": .string("\($0)"), "method": "POST", "path": "/v1/cache/n/entries/sum/increment",
                    "json": ["delta": .integer($0)],
                ]
            }
            let responses = try await run(api, requests, [.init(name: "mode", value: "parallel")])
            #expect(Set(statuses(responses)) == [200])
            #expect(responses.map { $0["id"]?.stringValue } == (0..<Limits.maxBatchRequests).map { "\($0)" })
            #expect(try await api.send(.get, "/v1/cache/n/entries/sum").text == "4950")
        }
    }

    @Test func whatIsNoRequestFailsTheBatchBeforeAnythingIsDone() async throws {
        try await withAPI { api in
            let good: JSON = ["method": "POST", "path": "/v1/cache/n/entries/a/increment"]
            let wrong: [(JSON, field: String)] = [
                (1, "requests[1]"), ([:], "requests[1].method"), (["method": "GET"], "requests[1].path"),
                (["method": "get", "path": "/v1/cache"], "requests[1].method"),
                (["method": "CONNECT", "path": "/v1/cache"], "requests[1].method"),
                (["method": "GET", "path": "/metrics"], "requests[1].path"),
                (["method": "GET", "path": "v1/cache"], "requests[1].path"),
                (["method": "GET", "path": "http://127.0.0.1/v1/cache"], "requests[1].path"),
                (["method": "GET", "path": "/v1/cache\r\nX: y"], "requests[1].path"),
                (["method": "GET", "path": "/v1/caché"], "requests[1].path"),
                (["method": "POST", "path": "/v1/batch", "json": ["requests": []]], "requests[1].path"),
                (["method": "POST", "path": "/v1//batch/?x"], "requests[1].path"),
                (["method": "GET", "path": "/v1/cache", "headers": 1], "requests[1].headers"),
                (["method": "GET", "path": "/v1/cache", "headers": ["a b": "c"]], "requests[1].headers"),
                (["method": "GET", "path": "/v1/cache", "headers": ["a": "b\nc"]], "requests[1].headers"),
                (["method": "GET", "path": "/v1/cache", "headers": ["a": 1]], "requests[1].headers"),
                (["method": "GET", "path": "/v1/cache", "headers": ["authorization": "x"]], "requests[1].headers"),
                (["method": "GET", "path": "/v1/cache", "headers": ["HOST": "x"]], "requests[1].headers"),
                (["method": "GET", "path": "/v1/cache", "headers": ["Content-Length": "1"]], "requests[1].headers"),
                (["method": "PUT", "path": "/v1/cache/n/entries/k", "base64": "!"], "requests[1].base64"),
                (["method": "PUT", "path": "/v1/cache/n/entries/k", "base64": "===="], "requests[1].base64"),
                (["method": "PUT", "path": "/v1/cache/n/entries/k", "base64": "AB=="], "requests[1].base64"),
                (["method": "PUT", "path": "/v1/cache/n/entries/k", "base64": "eA==", "json": 1], "requests[1].json"),
                (["method": "GET", "path": "/v1/cache", "body": 1], "requests[1].body"),
                (["id": 1, "method": "GET", "path": "/v1/cache"], "requests[1].id"),
            ]
            for (request, field) in wrong {
                let response = try await api.json(.post, "/v1/batch", ["requests": [good, request]])
                let problem = try response.expectProblem(.validationFailed, status: 422)
                guard case .array(let errors)? = problem["errors"] else {
                    Issue.record("no errors for \(request.text)")
                    continue
                }
                #expect(errors.contains { $0["field"] == .string(field) }, "\(request.text): \(problem.text)")
            }
            for body in [[:], ["requests": 1], ["requests": [good], "mode": "random"]] as [JSON] {
                try await api.json(.post, "/v1/batch", body).expectProblem(.validationFailed, status: 422)
            }
            try await api.json(
                .post, "/v1/batch", ["requests": [good], "mode": "parallel", "stop_on_error": true]
            ).expectProblem(.validationFailed, status: 422)
            let many = [JSON](repeating: good, count: Limits.maxBatchRequests + 1)
            try await api.json(.post, "/v1/batch", ["requests": .array(many)])
                .expectProblem(.validationFailed, status: 422)
            try await api.send(.post, "/v1/batch?x=1").expectProblem(.validationFailed, status: 422)
            try await api.send(.get, "/v1/batch").expectProblem(.methodNotAllowed, status: 405)
            #expect(try await api.send(.get, "/v1/cache/n/entries/a").status == .notFound)
            #expect(try await run(api, []).isEmpty)
        }
    }

    @Test func whatIsTooLargeForABatchIsRefusedAlone() async throws {
        try await withAPI { api in
            let most = Limits.maxBatchPartBytes
            for (name, bytes) in [("fits", most), ("large", most + 1)] {
                try await api.send(.put, "/v1/cache/n/entries/\(name)", bytes: [UInt8](repeating: 1, count: bytes))
            }
            try await api.json(.put, "/v1/sessions/s", [:])
            let large = JSON.string(String(repeating: "x", count: most))
            let responses = try await run(
                api,
                [
                    ["method": "GET", "path": "/v1/cache/n/entries/fits"],
                    ["method": "GET", "path": "/v1/cache/n/entries/large"],
                    ["method": "GET", "path": "/v1/sessions/s/history", "headers": ["Accept": "application/x-ndjson"]],
                    ["method": "PUT", "path": "/v1/cache/n/entries/new", "json": large],
                    ["method": "GET", "path": "/v1/cache/n/entries/new"],
                ])
            #expect(statuses(responses) == [200, 413, 406, 413, 404])
            #expect(responses[1]["json"]?["code"] == "payload_too_large")
            // JSON that is sent as it is made is no stream to its reader, unless it is long.
            let rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 900) SELECT x"
            let text = String(repeating: "x", count: 1500)
            let queries = try await run(
                api,
                ["", ", '\(text)'"].map { more in
                    ["method": "POST", "path": "/v1/sql", "json": ["query": .string(rows + more + " FROM n")]]
                })
            #expect(statuses(queries) == [200, 200])
            #expect(queries[0]["json"]?["rows"] != nil && queries[0]["omitted"] == nil)
            #expect(queries[1]["json"] == nil && queries[1]["omitted"] != nil)
            // All answers together are bounded too.
            let many = [JSON](repeating: ["method": "GET", "path": "/v1/cache/n/entries/fits"], count: 17)
            for mode in ["sequence", "parallel"] as [JSON] {
                let all = try await run(api, many, [.init(name: "mode", value: mode)])
                #expect(statuses(all).count { $0 == 200 } == Limits.maxBatchAnswerBytes / most)
                #expect(statuses(all).count { $0 == 413 } == 1)
            }
            // What was done is told, even without room for its answer.
            let write: JSON = [
                "method": "POST", "path": "/v1/cache/n/batch",
                "json": ["operations": [["op": "increment", "key": "n"], ["op": "get", "key": "fits"]]],
            ]
            let count: JSON = ["method": "POST", "path": "/v1/cache/n/entries/n/increment"]
            let miss: JSON = ["method": "GET", "path": "/v1/cache/n/entries/none"]
            let after = try await run(api, many + [count, miss, write])
            #expect(statuses(after).suffix(3) == [200, 404, 200])
            #expect(after[17]["json"]?["value"]?.integerValue == 1)
            #expect(after[19]["omitted"] != nil && after[19]["json"] == nil)
            #expect(after[19]["omitted"]?.stringValue?.contains("Send") == false)
            #expect(try await api.send(.get, "/v1/cache/n/entries/n").text == "2")
        }
    }

    /// Many batches at once cannot take more memory than long bodies may.
    @Test func answersTakeFromTheMemoryOfBodies() async throws {
        try await withAPI { api in
            try await api.send(.put, "/v1/cache/n/entries/k", bytes: [UInt8](repeating: 1, count: 1 << 20))
            let get: JSON = ["method": "GET", "path": "/v1/cache/n/entries/k"]
            // Each gets half of what is left.
            var others = (0..<10).map { number in
                let other = BodyReservation(api.services.bodies.long, for: .v4(UInt32(number)))
                while (try? other.take(1 << 20)) != nil {}
                return other
            }
            #expect(others.count == 10)
            let refused = try #require(try await run(api, [get]).first)
            #expect(refused["status"]?.integerValue == 503 && refused["json"]?["code"] == "overloaded")
            #expect(refused["headers"]?["Retry-After"] == "1")
            others = []
            #expect(statuses(try await run(api, [get])) == [200])
            // It was given back.
            #expect(api.services.bodies.long.heldBytes == 0)
        }
    }

    @Test func eachIsAuthorizedAndCounted() async throws {
        try await withAPI { api in
            let created = try await api.json(.post, "/v1/tokens", ["name": "reader", "scopes": ["read"]])
            let token = try #require(created.json["token"]?.stringValue)
            let limited = try await api.send(
                .post, "/v1/tokens", #"{"name":"limited","scopes":["write"],"namespaces":["n"]}"#,
                headers: [.contentType: "application/json", .authorization: "Bearer \(token)"])
            #expect(limited.status == .forbidden)
            let requests: [JSON] = [
                ["method": "GET", "path": "/v1/sessions"], ["method": "PUT", "path": "/v1/sessions/s"],
                ["method": "GET", "path": "/v1/config"],
            ]
            let body = JSON.object([.init(name: "requests", value: .array(requests))]).text
            try await api.send(.post, "/v1/batch", body, headers: [.contentType: "application/json"])
                .expectProblem(.unauthenticated, status: 401)
            let responses = try await run(api, requests, headers: [.authorization: "Bearer \(token)"])
            #expect(statuses(responses) == [200, 403, 403])
            #expect(responses[1]["json"]?["required_scope"] == "write")
            let figures = api.services.meter.all
            func count(_ method: String, _ path: String) -> Int {
                figures.filter { $0.method == method && $0.path == path }.reduce(0) {
                    $0 + $1.figures.statuses.reduce(0, +)
                }
            }
            #expect(count("GET", "/v1/sessions") == 1)
            #expect(count("PUT", "/v1/sessions/{session_id}") == 1)
            #expect(count("POST", "/v1/batch") == 2)
            #expect(Set(figures.map { "\($0.method) \($0.path)" }).count == figures.count)
        }
    }

    /// What a page of another site may not send alone, it may not send in a batch.
    @Test func pagesOfOtherSitesAreRefused() async throws {
        try await withAPI { api in
            let body = #"{"requests":[{"method":"PUT","path":"/v1/cache/n/entries/k","json":1}]}"#
            try await api.send(
                .post, "/v1/batch", body,
                headers: [.contentType: "application/json", .origin: "https://elsewhere.example"]
            ).expectProblem(.originNotAllowed, status: 403)
            try await api.send(.post, "/v1/batch", body, headers: [.contentType: "text/plain"])
                .expectProblem(.unsupportedMediaType, status: 415)
            #expect(try await api.send(.get, "/v1/cache/n/entries/k").status == .notFound)
        }
    }
}

extension HTTPFields {
    fileprivate func merging(_ others: HTTPFields) -> HTTPFields {
        var all = self
        for field in others { all[field.name] = field.value }
        return all
    }
}
