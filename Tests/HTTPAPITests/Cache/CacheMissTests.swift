// The answer to a miss, and what a look-up changes.

import Domain
import HTTPTypes
import HummingbirdTesting
import NIOCore
import SQLiteStorage
import TestSupport
import Testing

@Suite struct CacheMissTests {
    private let ttl = HTTPField.Name("Reprise-TTL")!

    private func path(_ key: String) -> String { "/v1/cache/n/entries/\(key)" }

    /// Reason and time in every answer that reports a miss.
    private func expectMiss(
        _ api: API, _ key: String, _ reason: String, at instant: JSON?,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let answers = [
            try await api.send(.get, path(key)), try await api.send(.get, path(key) + "/metadata"),
            try await api.send(.post, path(key) + "/touch"),
        ]
        for answer in answers {
            let problem = try answer.expectProblem(.cacheMiss, status: 404, sourceLocation: sourceLocation)
            #expect(problem["reason"] == .string(reason), sourceLocation: sourceLocation)
            #expect(problem["removed_at"] == instant, sourceLocation: sourceLocation)
        }
        for answer in answers + [
            try await api.send(.head, path(key)), try await api.send(.head, path(key) + "/metadata"),
        ] {
            #expect(answer.status == .notFound, sourceLocation: sourceLocation)
            #expect(
                answer[header: "Cache-Status"] == "reprise; fwd=uri-miss; detail=\(reason)",
                sourceLocation: sourceLocation)
        }
        let batch = try await api.json(
            .post, "/v1/cache/n/batch",
            ["operations": [["op": "get", "key": .string(key)], ["op": "touch", "key": .string(key)]]])
        guard case .array(let results)? = try batch.json["results"] else {
            Issue.record("no results", sourceLocation: sourceLocation)
            return
        }
        for result in results {
            #expect(result["status"] == 404, sourceLocation: sourceLocation)
            #expect(result["problem"]?["reason"] == .string(reason), sourceLocation: sourceLocation)
            #expect(result["problem"]?["removed_at"] == instant, sourceLocation: sourceLocation)
        }
    }

    @Test func tellsEachReasonAndSinceWhen() async throws {
        try await withAPI { api in
            try await expectMiss(api, "absent", "absent", at: nil)
            try await api.json(.put, "/v1/cache/n", ["max_entries": 3])
            for key in ["evicted", "expired", "deleted", "cleared"] {
                try await api.send(.put, path(key), "v", headers: [ttl: key == "expired" ? "1" : "100"])
            }
            try await api.send(.delete, path("deleted"))
            api.clock.advance(seconds: 2)
            try await api.send(.delete, "/v1/cache/n/entries")
            for _ in 0..<2 {
                try await expectMiss(api, "absent", "absent", at: nil)
                try await expectMiss(api, "evicted", "evicted", at: "2026-11-23T07:14:00.123Z")
                try await expectMiss(api, "deleted", "deleted", at: "2026-11-23T07:14:00.123Z")
                try await expectMiss(api, "expired", "expired", at: "2026-11-23T07:14:01.123Z")
                try await expectMiss(api, "cleared", "cleared", at: "2026-11-23T07:14:02.123Z")
                // Swept or not, the answer is the same.
                _ = try await api.storage.perform(.cacheExpiry, isDryRun: false)
            }
            // In each round, a GET and a get in a batch.
            let misses = try await api.send(.get, "/v1/cache/n").json["misses_by_reason"]
            #expect(misses == ["absent": 4, "expired": 4, "evicted": 4, "deleted": 4, "cleared": 4])
            #expect(try await api.send(.delete, "/v1/cache/n").status == .noContent)
            try await expectMiss(api, "deleted", "absent", at: nil)
        }
    }

    /// HEAD and metadata count neither as look-ups nor as uses: the entry is evicted as if they had not happened.
    @Test func aLookLeavesNoTrace() async throws {
        try await withAPI { api in
            try await api.json(.put, "/v1/cache/n", ["max_entries": 2, "eviction": "lru"])
            for key in ["a", "b"] { try await api.send(.put, path(key), "value", headers: [.contentType: "x/y"]) }
            let get = try await api.send(.get, path("b"))
            let before = try await api.send(.get, "/v1/cache/n").json
            api.clock.advance(seconds: 1)
            let head = try await api.send(.head, path("a"))
            #expect(head.status == .ok)
            #expect(head.body.readableBytes == 0)
            let tag = try #require(head.headers[.eTag])
            for (headers, status) in [
                ([.ifNoneMatch: tag], .notModified), ([.ifMatch: "\"x\""], .preconditionFailed),
                ([.range: "bytes=0-0"], .ok),
            ] as [(HTTPFields, HTTPResponse.Status)] {
                #expect(try await api.send(.head, path("a"), headers: headers).status == status)
            }
            try await api.send(.get, path("a") + "/metadata")
            try await api.send(.head, path("a") + "/metadata")
            for suffix in ["", "/metadata"] { try await api.send(.head, path("none") + suffix) }
            try await api.storage.flushCounters()
            #expect(try await api.send(.get, "/v1/cache/n").json == before)
            #expect(before["hits"] == 1)
            let metadata = try await api.send(.get, path("a") + "/metadata").json
            #expect(metadata["hit_count"] == 0)
            #expect(metadata["last_accessed_at"] == JSON.null)
            try await api.send(.put, path("c"), "v")
            try await expectMiss(api, "a", "evicted", at: "2026-11-23T07:14:01.123Z")
            // The answer of GET, except for the value.
            api.clock.advance(seconds: -1)
            #expect(try await api.send(.head, path("b")).headers.comparable == get.headers.comparable)
        }
    }

    @Test func aReadThatSendsNoValueOrAPartIsAHit() async throws {
        try await withAPI { api in
            let tag = try #require(try await api.send(.put, path("a"), "value").headers[.eTag])
            try await api.send(.get, path("a"), headers: [.ifNoneMatch: tag])
            try await api.send(.get, path("a"), headers: [.range: "bytes=0-1"])
            #expect(try await api.send(.get, "/v1/cache/n").json["hits"] == 2)
        }
    }
}

extension HTTPFields {
    /// All except those of the request itself.
    fileprivate var comparable: [String] {
        filter { $0.name != HTTPField.Name("X-Request-Id")! && $0.name != .date }.map(\.description).sorted()
    }
}
