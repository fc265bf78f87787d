// Collections, clears, policies and batches over HTTP.

import Domain
import HTTPTypes
import HummingbirdTesting
import NIOCore
import SQLiteStorage
import TestSupport
import Testing

@Suite struct CacheNamespaceTests {
    private static func keys(_ answer: TestResponse) throws -> [String] {
        guard case .array(let items)? = try answer.json["items"] else { return [] }
        return items.compactMap { $0["key"]?.stringValue }
    }

    private static func store(_ api: API, _ keys: [String], tags: String? = nil) async throws {
        for key in keys {
            try await api.send(
                .put, "/v1/cache/n/entries/\(key)", key,
                headers: tags.map { [HTTPField.Name("Reprise-Tags")!: $0] } ?? [:])
        }
    }

    @Test func walksPages() async throws {
        try await withAPI { api in
            let all = (0..<7).map { "k\($0)" }
            try await Self.store(api, all.reversed())
            var found: [String] = []
            var query = "?limit=3"
            for _ in 0..<3 {
                let page = try await api.send(.get, "/v1/cache/n/entries" + query)
                found += try Self.keys(page)
                guard let cursor = try page.json["next_cursor"]?.stringValue else { break }
                query = "?limit=3&cursor=\(cursor)"
            }
            #expect(found == all)
            #expect(try await api.send(.get, "/v1/cache/none/entries").json == ["items": [], "next_cursor": nil])
        }
    }

    @Test func filtersLists() async throws {
        try await withAPI { api in
            try await Self.store(api, ["a%2F1", "a%2F2"], tags: "x")
            try await Self.store(api, ["b%2F1", "a0"], tags: "y")
            #expect(try Self.keys(try await api.send(.get, "/v1/cache/n/entries?prefix=a%2F")) == ["a/1", "a/2"])
            #expect(try Self.keys(try await api.send(.get, "/v1/cache/n/entries?tag=y")) == ["a0", "b/1"])
            #expect(try Self.keys(try await api.send(.get, "/v1/cache/n/entries?tag=y&prefix=b")) == ["b/1"])
            api.clock.advance(seconds: 300)
            #expect(try Self.keys(try await api.send(.get, "/v1/cache/n/entries")) == [])
        }
    }

    @Test func clearsWhatTheFilterNames() async throws {
        try await withAPI { api in
            try await Self.store(api, ["old", "pre-1", "pre-2"])
            try await Self.store(api, ["tagged"], tags: "t")
            api.clock.advance(seconds: 10)
            try await Self.store(api, ["young"])
            let clear = "/v1/cache/n/entries"
            #expect(
                try await api.send(.delete, clear + "?prefix=pre&dry_run=true").json
                    == ["removed": 2, "freed_bytes": 10])
            #expect(try await api.send(.delete, clear + "?prefix=pre").json == ["removed": 2, "freed_bytes": 10])
            #expect(try await api.send(.delete, clear + "?tag=t").json == ["removed": 1, "freed_bytes": 6])
            #expect(
                try await api.send(.delete, clear + "?older_than_seconds=5").json == ["removed": 1, "freed_bytes": 3])
            #expect(try await api.send(.delete, clear).json == ["removed": 1, "freed_bytes": 5])
            #expect(try await api.send(.delete, clear).json == ["removed": 0, "freed_bytes": 0])
            #expect(try await api.send(.get, "/v1/cache/n").json["entry_count"] == 0)
        }
    }

    @Test func clearsATagEverywhere() async throws {
        try await withAPI { api in
            for namespace in ["a", "b"] {
                for (key, tag) in [("1", "x"), ("2", "y")] {
                    try await api.send(
                        .put, "/v1/cache/\(namespace)/entries/\(key)", "v",
                        headers: [HTTPField.Name("Reprise-Tags")!: tag])
                }
            }
            try await api.send(.delete, "/v1/cache").expectProblem(.validationFailed, status: 422)
            try await api.send(.delete, "/v1/cache?all=true&tag=x").expectProblem(.validationFailed, status: 422)
            let dryRun = try await api.send(.delete, "/v1/cache?tag=x&dry_run=true")
            #expect(try dryRun.json == ["removed": 2, "freed_bytes": 2])
            #expect(try await api.send(.delete, "/v1/cache?tag=x").json == ["removed": 2, "freed_bytes": 2])
            #expect(try await api.send(.get, "/v1/cache/a/entries/2").status == .ok)
            #expect(try await api.send(.delete, "/v1/cache?all=true").json == ["removed": 2, "freed_bytes": 2])
            #expect(try await api.send(.get, "/v1/cache/b/entries/2").status == .notFound)
        }
    }

    @Test func keepsAPolicy() async throws {
        try await withAPI { api in
            try await api.send(.get, "/v1/cache/n").expectProblem(.namespaceNotFound, status: 404)
            let policy: JSON = [
                "ttl_seconds": 60, "max_entries": 2, "max_bytes": 100, "max_entry_bytes": 50, "eviction": "fifo",
            ]
            let created = try await api.json(.put, "/v1/cache/n", policy)
            #expect(created.status == .created)
            #expect(try created.json["policy"] == policy)
            #expect(try await api.json(.put, "/v1/cache/n", policy).status == .ok)
            try await Self.store(api, ["a", "b"])
            try await api.send(.get, "/v1/cache/n/entries/a")
            try await Self.store(api, ["c"])
            #expect(try Self.keys(try await api.send(.get, "/v1/cache/n/entries")) == ["b", "c"])
            #expect(try await api.send(.get, "/v1/cache/n/entries/b/metadata").json["ttl_seconds"] == 60)
            let large = String(repeating: "x", count: 51)
            try await api.send(.put, "/v1/cache/n/entries/d", large).expectProblem(.payloadTooLarge, status: 413)
            let defaults = try await api.json(.put, "/v1/cache/n", ["ttl_seconds": nil])
            #expect(
                try defaults.json["policy"] == [
                    "ttl_seconds": nil, "max_entries": nil, "max_bytes": nil, "max_entry_bytes": 67_108_864,
                    "eviction": "lru",
                ])
            #expect(try await api.send(.delete, "/v1/cache/n").status == .noContent)
            try await api.send(.delete, "/v1/cache/n").expectProblem(.namespaceNotFound, status: 404)
            #expect(try await api.send(.get, "/v1/cache/n/entries/b").status == .notFound)
        }
    }

    @Test func countsHitsAndTheReasonOfEachMiss() async throws {
        try await withAPI { api in
            try await Self.store(api, ["a"])
            for _ in 0..<3 { try await api.send(.get, "/v1/cache/n/entries/a") }
            try await api.send(.get, "/v1/cache/n/entries/none")
            api.clock.advance(seconds: 300)
            for _ in 0..<2 { try await api.send(.get, "/v1/cache/n/entries/a") }
            let expected: [(String, JSON)] = [
                ("entry_count", 0), ("size_bytes", 0), ("hits", 3), ("misses", 3), ("hit_ratio", .number("0.5")),
                ("expirations", 1), ("evictions", 0),
                ("misses_by_reason", ["absent": 1, "expired": 2, "evicted": 0, "deleted": 0, "cleared": 0]),
            ]
            for isSwept in [false, true] {
                if isSwept {
                    try await api.storage.flushCounters()
                    _ = try await api.storage.perform(.cacheExpiry, isDryRun: false)
                }
                let figures = try await api.send(.get, "/v1/cache/n").json
                for (name, value) in expected { #expect(figures[name] == value, "\(name), swept: \(isSwept)") }
            }
            #expect(
                try await api.send(.get, "/v1/cache").json["items"]
                    == .array([try await api.send(.get, "/v1/cache/n").json]))
        }
    }

    @Test func runsBatchesInOrder() async throws {
        try await withAPI { api in
            try await api.send(.put, "/v1/cache/n/entries/raw", bytes: [0, 255], headers: [.contentType: "audio/wav"])
            let answer = try await api.json(
                .post, "/v1/cache/n/batch",
                [
                    "operations": [
                        ["op": "set", "key": "j", "json": ["a": .number("1.50")], "ttl_seconds": 9, "tags": ["t"]],
                        ["op": "set", "key": "j", "base64": "AP8=", "content_type": "x/y"],
                        ["op": "get", "key": "j"], ["op": "get", "key": "raw"], ["op": "get", "key": "none"],
                        ["op": "increment", "key": "i", "delta": 4], ["op": "increment", "key": "raw"],
                        ["op": "touch", "key": "i", "ttl_seconds": 5], ["op": "touch", "key": "none"],
                        ["op": "delete", "key": "raw"], ["op": "get", "key": "raw"],
                        ["op": "set", "key": "k", "json": ["b": [nil, true]]], ["op": "get", "key": "k"],
                    ]
                ])
            #expect(answer.status == .ok)
            guard case .array(let results)? = try answer.json["results"] else {
                Issue.record("no results")
                return
            }
            #expect(
                results.compactMap { $0["status"]?.integerValue } == [
                    201, 204, 200, 200, 404, 200, 409, 200, 404, 204, 404, 201, 200,
                ])
            #expect(results[2]["base64"] == "AP8=")
            #expect(results[2]["content_type"] == "x/y")
            #expect(results[4]["problem"]?["reason"] == "absent")
            #expect(results[5]["value"] == 4)
            #expect(results[6]["problem"]?["code"] == "not_an_integer")
            #expect(results[12]["json"] == ["b": [nil, true]])
        }
    }

    @Test func undoesAnAtomicBatch() async throws {
        try await withAPI { api in
            try await Self.store(api, ["text"])
            let operations: JSON = [
                ["op": "set", "key": "new", "json": 1], ["op": "delete", "key": "text"], ["op": "get", "key": "none"],
                ["op": "increment", "key": "word"], ["op": "set", "key": "word", "json": "x"],
                ["op": "increment", "key": "word"],
            ]
            let failed = try await api.json(.post, "/v1/cache/n/batch", ["operations": operations, "atomic": true])
            guard case .array(let results)? = try failed.json["results"] else {
                Issue.record("no results")
                return
            }
            #expect(results.compactMap { $0["status"]?.integerValue } == [424, 424, 424, 424, 424, 409])
            #expect(try Self.keys(try await api.send(.get, "/v1/cache/n/entries")) == ["text"])
            let plain = try await api.json(.post, "/v1/cache/n/batch", ["operations": operations])
            guard case .array(let results)? = try plain.json["results"] else {
                Issue.record("no results")
                return
            }
            #expect(results.compactMap { $0["status"]?.integerValue } == [201, 204, 404, 200, 204, 409])
        }
    }

    /// An item that is not an operation fails the whole request.
    @Test func refusesWhatIsNoOperation() async throws {
        try await withAPI { api in
            let many = JSON.array(Array(repeating: ["op": "get", "key": "k"], count: Limits.maxBatchOperations + 1))
            for body: JSON in [
                [:], ["operations": 1], ["operations": many], ["operations": [["op": "fly", "key": "k"]]],
                ["operations": [["key": "k"]]], ["operations": [["op": 1, "key": "k"]]],
                ["operations": [["op": nil, "key": "k"]]], ["operations": [["op": "GET", "key": "k"]]],
                ["operations": [["op": "set", "key": "ok", "json": 1], "get"]],
                ["operations": [["op": "set", "key": "ok", "json": 1], nil]],
                ["operations": [["op": "set", "key": "ok", "json": 1], []]], ["operations": [], "atomik": true],
            ] {
                let problem = try await api.json(.post, "/v1/cache/n/batch", body).expectProblem(
                    .validationFailed, status: 422)
                #expect(problem["errors"] != nil)
            }
            try await api.send(.get, "/v1/cache/n").expectProblem(.namespaceNotFound, status: 404)
            #expect(try await api.json(.post, "/v1/cache/n/batch", ["operations": []]).json == ["results": []])
            let full = JSON.array(Array(repeating: ["op": "get", "key": "k"], count: Limits.maxBatchOperations))
            #expect(try await api.json(.post, "/v1/cache/n/batch", ["operations": full]).status == .ok)
        }
    }
}
