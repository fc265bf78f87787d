// Batches over HTTP: what fails alone, conditions, encodings, sizes.

import Crypto
import Domain
import FoundationEssentials
import HTTPTypes
import HummingbirdTesting
import TestSupport
import Testing

@Suite struct CacheBatchTests {
    /// The results of a batch that was performed.
    private func results(
        _ api: API, _ operations: [JSON], atomic: Bool = false, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> [JSON] {
        let answer = try await api.json(
            .post, "/v1/cache/n/batch", ["operations": .array(operations), "atomic": .bool(atomic)])
        #expect(answer.status == .ok, sourceLocation: sourceLocation)
        guard case .array(let results)? = try answer.json["results"] else {
            Issue.record("no results", sourceLocation: sourceLocation)
            return []
        }
        #expect(results.count == operations.count, sourceLocation: sourceLocation)
        for result in results {
            let status = try #require(result["status"]?.integerValue, sourceLocation: sourceLocation)
            // The problem of a failed operation is complete and has the same status.
            #expect((status >= 400) == (result["problem"] != nil), sourceLocation: sourceLocation)
            if let problem = result["problem"] { #expect(problem["status"] == result["status"]) }
        }
        return results
    }

    private func statuses(_ results: [JSON]) -> [Int64] { results.compactMap { $0["status"]?.integerValue } }

    private func fields(_ result: JSON) -> [String] {
        guard case .array(let errors)? = result["problem"]?["errors"] else { return [] }
        return errors.compactMap { $0["field"]?.stringValue }
    }

    /// Invalid operations, with the fields that their problem names.
    private static let wrong: [(JSON, [String])] = [
        (["op": "get"], ["key"]), (["op": "get", "key": ""], ["key"]), (["op": "get", "key": nil], ["key"]),
        (["op": "get", "key": 7], ["key"]), (["op": "delete", "key": "a\u{0}"], ["key"]),
        (["op": "touch", "key": .string(String(repeating: "k", count: Limits.maxKeyBytes + 1))], ["key"]),
        (["op": "get", "key": "k", "ttl_seconds": 1], ["ttl_seconds"]),
        (["op": "get", "key": "k", "if_match": "*"], ["if_match"]),
        (["op": "set", "key": "k"], ["json"]), (["op": "set", "key": "k", "json": 1, "base64": ""], ["json"]),
        (["op": "set", "key": "k", "base64": "%"], ["base64"]),
        (["op": "set", "key": "k", "base64": "YQ"], ["base64"]),
        (["op": "set", "key": "k", "json": 1, "ttl_seconds": 0], ["ttl_seconds"]),
        (["op": "set", "key": "k", "json": 1, "ttl_seconds": "60"], ["ttl_seconds"]),
        (["op": "set", "key": "k", "json": 1, "tags": ["a b"]], ["tags"]),
        (["op": "set", "key": "k", "json": 1, "tags": "a"], ["tags"]),
        (["op": "set", "key": "k", "json": 1, "compute_seconds": -1], ["compute_seconds"]),
        (["op": "set", "key": "k", "json": 1, "content_type": ""], ["content_type"]),
        (["op": "set", "key": "k", "json": 1, "content_encoding": "a\nb"], ["content_encoding"]),
        (["op": "increment", "key": "k", "delta": .number("1.5")], ["delta"]),
        (["op": "increment", "key": "", "initial": "1", "if_match": 1], ["key", "initial", "if_match"]),
        (
            ["op": "touch", "key": "k", "ttl_seconds": -1, "if_match": "x", "colour": 1],
            ["ttl_seconds", "if_match", "colour"]
        ),
        (["op": "delete", "key": "k", "if_match": []], ["if_match"]),
        (["op": "delete", "key": "k", "if_match": ["\"a\"", 1]], ["if_match"]),
        (["op": "delete", "key": "k", "if_match": ["*"]], ["if_match"]),
        (["op": "delete", "key": "k", "if_match": "\"a\", \"b\""], ["if_match"]),
        (["op": "delete", "key": "k", "if_none_match": true], ["if_none_match"]),
        (["op": "delete", "key": "k", "if_none_match": "\""], ["if_none_match"]),
    ]

    @Test func whatIsWrongInItselfFailsAlone() async throws {
        try await withAPI { api in
            try await api.json(.put, "/v1/cache/n/entries/k", 1)
            let operations =
                [["op": "set", "key": "first", "json": 1]] + Self.wrong.map(\.0) + [["op": "increment", "key": "last"]]
            let results = try await results(api, operations)
            #expect(statuses(results) == [201] + Self.wrong.map { _ in 422 } + [200])
            for (index, (operation, expected)) in zip(1..., Self.wrong) {
                let result = results[index]
                #expect(result["problem"]?["code"] == "validation_failed", "\(operation)")
                #expect(fields(result) == expected.map { "operations[\(index)].\($0)" }, "\(operation)")
                let isKeyRight = !expected.contains("key")
                #expect(result["key"] == (isKeyRight ? "k" : .null), "\(operation)")
            }
            #expect(try await api.send(.get, "/v1/cache/n/entries/k").text == "1")
            #expect(try await api.send(.get, "/v1/cache/n/entries/first").text == "1")
        }
    }

    /// Nothing is tried, and everything that is wrong is reported.
    @Test func whatIsWrongInItselfUndoesAnAtomicBatch() async throws {
        try await withAPI { api in
            let operations: [JSON] = [
                ["op": "set", "key": "a", "json": 1], ["op": "get", "key": ""], ["op": "increment", "key": "b"],
                ["op": "set", "key": "c", "json": 1, "ttl_seconds": 0],
                ["op": "increment", "key": "a", "if_match": "\"x\""],
            ]
            #expect(statuses(try await results(api, operations, atomic: true)) == [424, 422, 424, 422, 424])
            try await api.send(.get, "/v1/cache/n").expectProblem(.namespaceNotFound, status: 404)
            #expect(statuses(try await results(api, operations)) == [201, 422, 200, 422, 412])
        }
    }

    /// Only invalid operations: no namespace is created for them.
    @Test func aBatchOfNothingRightMakesNoNamespace() async throws {
        try await withAPI { api in
            #expect(statuses(try await results(api, [["op": "set", "key": ""], ["op": "touch"]])) == [422, 422])
            try await api.send(.get, "/v1/cache/n").expectProblem(.namespaceNotFound, status: 404)
        }
    }

    @Test func eachValueIsHeldToTheLargestAllowed() async throws {
        var settings = Settings()
        settings.set(.maxEntryBytes, to: .integer(10), source: .flag)
        try await withAPI(settings: settings) { api in
            let values = ["1234567890", "12345678901", "123456", "12345"].map { Data($0.utf8).base64EncodedString() }
            let operations = values.enumerated().map { index, value in
                ["op": "set", "key": .string("k\(index)"), "base64": .string(value)] as JSON
            }
            #expect(statuses(try await results(api, operations)) == [201, 413, 201, 201])
            // The namespace's policy may allow less.
            try await api.json(.put, "/v1/cache/n", ["max_entry_bytes": 5])
            let refused = try await results(api, operations)
            #expect(statuses(refused) == [413, 413, 413, 204])
            for result in refused.dropLast() { #expect(result["problem"]?["code"] == "payload_too_large") }
            #expect(statuses(try await results(api, operations, atomic: true)) == [413, 424, 424, 424])
            // A counter is a value like any other.
            #expect(
                statuses(try await results(api, [["op": "increment", "key": "i", "initial": 123456]])) == [413])
            #expect(try await api.send(.get, "/v1/cache/n/entries/k0").text == "1234567890")
            try await api.send(.get, "/v1/cache/n/entries/k1").expectProblem(.cacheMiss, status: 404)
        }
    }

    @Test func conditionsHoldForEachOperation() async throws {
        try await withAPI { api in
            let first = try await results(
                api,
                [
                    ["op": "set", "key": "k", "json": 1, "if_none_match": "*"],
                    ["op": "set", "key": "k", "json": 2, "if_none_match": "*"],
                    ["op": "set", "key": "other", "json": 1, "if_match": "*"],
                    ["op": "increment", "key": "other", "if_match": "*"],
                    ["op": "delete", "key": "other", "if_match": "*"],
                    // Without a condition that would be a miss too (RFC 9110, section 13.2.1).
                    ["op": "touch", "key": "other", "if_match": "*"],
                ])
            #expect(statuses(first) == [201, 412, 412, 412, 412, 404])
            for result in first[1..<5] { #expect(result["problem"]?["code"] == "precondition_failed") }
            let etag = try #require(first[0]["etag"]?.stringValue)
            let (tag, weak, other) = (JSON.string(etag), JSON.string("W/" + etag), JSON.string("\"x\""))
            let shouted = JSON.string(etag.uppercased())
            for (condition, value) in [
                ("if_match", other), ("if_match", [other, weak]), ("if_match", weak), ("if_match", shouted),
                ("if_none_match", "*"), ("if_none_match", tag), ("if_none_match", weak),
                ("if_none_match", [other, tag]),
            ] as [(String, JSON)] {
                for operation: JSON in [
                    ["op": "set", "key": "k", "json": 3], ["op": "increment", "key": "k"], ["op": "touch", "key": "k"],
                    ["op": "delete", "key": "k"],
                ] {
                    guard case .object(let members) = operation else { continue }
                    let results = try await results(
                        api, [.object(members + [JSON.Member(name: condition, value: value)])])
                    #expect(statuses(results) == [412], "\(operation) \(condition) \(value)")
                }
            }
            #expect(try await api.send(.get, "/v1/cache/n/entries/k").text == "1")
            #expect(
                statuses(
                    try await results(
                        api,
                        [
                            ["op": "touch", "key": "k", "ttl_seconds": 9, "if_match": [other, tag]],
                            ["op": "touch", "key": "k", "if_none_match": other, "if_match": nil],
                            ["op": "increment", "key": "k", "if_match": tag],
                            ["op": "set", "key": "k", "json": 4, "if_match": tag],
                            ["op": "set", "key": "k", "json": 4, "if_match": "*"],
                            ["op": "delete", "key": "k", "if_none_match": [other]],
                        ])) == [200, 200, 200, 412, 204, 204])
        }
    }

    @Test func aDeleteTellsWhetherItRemovedSomething() async throws {
        try await withAPI { api in
            let results = try await results(
                api,
                [
                    ["op": "delete", "key": "k"], ["op": "set", "key": "k", "json": 1], ["op": "delete", "key": "k"],
                    ["op": "delete", "key": "k"], ["op": "set", "key": "short", "json": 1, "ttl_seconds": 1],
                ])
            #expect(results.map { $0["removed"] } == [false, nil, true, false, nil])
            api.clock.advance(seconds: 1)
            // An expired entry is already gone.
            #expect(try await self.results(api, [["op": "delete", "key": "short"]])[0]["removed"] == false)
        }
    }

    @Test func anEncodingIsKeptAndAnswered() async throws {
        try await withAPI { api in
            let results = try await results(
                api,
                [
                    [
                        "op": "set", "key": "k", "base64": "H4sI", "content_type": "application/json",
                        "content_encoding": "gzip",
                    ],
                    ["op": "get", "key": "k"], ["op": "set", "key": "plain", "base64": "AA=="],
                    ["op": "get", "key": "plain"],
                ])
            #expect(results[1]["content_encoding"] == "gzip")
            #expect(results[1]["base64"] == "H4sI")
            #expect(results[1]["json"] == nil)
            #expect(results[3]["content_encoding"] == nil)
            let get = try await api.send(.get, "/v1/cache/n/entries/k")
            #expect(get.headers[.contentEncoding] == "gzip")
            #expect(get.bytes == [0x1F, 0x8B, 0x08])
            #expect(try await api.send(.get, "/v1/cache/n/entries/k/metadata").json["content_encoding"] == "gzip")
        }
    }

    /// Values that do not fit in their rows, in both ways of reading a batch and in a single read.
    @Test func largeValuesComeBackWhole() async throws {
        var numbers = RepeatableNumbers(seed: 5)
        for size in [Limits.maxInlineValueBytes, Limits.maxInlineValueBytes + 1, 3 * Limits.chunkBytes + 7] {
            let value = numbers.bytes(size)
            let base64 = JSON.string(Data(value).base64EncodedString())
            try await withAPI { api in
                let set: JSON = ["op": "set", "key": "k", "base64": base64]
                let get: JSON = ["op": "get", "key": "k"]
                let written = try await results(api, [set, get])
                #expect(written[1]["base64"] == base64)
                #expect(try await results(api, [get])[0]["base64"] == base64)
                let answer = try await api.send(.get, "/v1/cache/n/entries/k")
                #expect(answer.bytes == value)
                #expect(answer.headers[.eTag] == written[0]["etag"]?.stringValue)
            }
        }
    }

    @Test func whatIsWrongIsReportedOnce() async throws {
        try await withAPI { api in
            let answer = try await api.send(
                .post, "/v1/cache/n/batch",
                """
                {"operations": [{"op": "set", "key": 1, "json": 1}, {"op": "set", "json": 1},
                    {"op": "set", "key": null, "json": 1}, {"op": "set", "key": "a"},
                    {"op": "set", "key": "a", "base64": 1}, {"op": "set", "key": "a", "json": 1, "base64": "YQ=="}]}
                """, headers: [.contentType: "application/json"])
            guard case .array(let results)? = try answer.json["results"] else { throw TestFailure() }
            let errors = results.map { $0["problem"]?["errors"]?.text ?? "" }
            #expect(
                errors == [
                    #"[{"field":"operations[0].key","message":"must be a string."}]"#,
                    #"[{"field":"operations[1].key","message":"is missing."}]"#,
                    #"[{"field":"operations[2].key","message":"is missing."}]"#,
                    #"[{"field":"operations[3].json","message":"is missing: send the value as json or as base64."}]"#,
                    #"[{"field":"operations[4].base64","message":"must be a string."}]"#,
                    #"[{"field":"operations[5].json","message":"excludes base64: send one."}]"#,
                ])
        }
    }
}

private struct TestFailure: Error {}
