// Single entries over HTTP: values, headers, conditions, ranges, lifetimes.

import Crypto
import Domain
import HTTPTypes
import HummingbirdTesting
import NIOCore
import SQLiteStorage
import TestSupport
import Testing

@Suite struct CacheEntryTests {
    private let entry = "/v1/cache/scores/entries/song"

    @Test func storesAndServesAnyBytes() async throws {
        var numbers = RepeatableNumbers(seed: 1)
        for size in [0, 1, 1024, Limits.maxInlineValueBytes, Limits.maxInlineValueBytes + 1, 3 * Limits.chunkBytes + 7]
        {
            let value = numbers.bytes(size)
            try await withAPI { api in
                let put = try await api.send(
                    .put, entry, bytes: value, headers: [.contentType: "audio/x-odd; a=b", .contentEncoding: "gzip"])
                let tag =
                    "\"" + SHA256.hash(data: value).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() + "\""
                #expect(put.status == .created)
                #expect(put.headers[.eTag] == tag)
                #expect(put[header: "Reprise-Expires-At"] == "2026-11-23T07:19:00.123Z")
                let get = try await api.send(.get, entry)
                #expect(get.status == .ok)
                #expect(get.bytes == value)
                #expect(get.headers[.eTag] == tag)
                #expect(get.headers[.contentType] == "audio/x-odd; a=b")
                #expect(get.headers[.contentEncoding] == "gzip")
                let head = try await api.send(.head, entry)
                #expect(head.status == .ok)
                #expect(head.headers[.contentLength] == String(size))
                #expect(head.body.readableBytes == 0)
            }
        }
    }

    @Test func answersTheHeadersOfAHit() async throws {
        try await withAPI { api in
            try await api.send(.put, entry, "v", headers: [HTTPField.Name("Reprise-TTL")!: "90.5"])
            api.clock.advance(seconds: 10.25)
            let hit = try await api.send(.get, entry)
            #expect(hit.headers[.age] == "10")
            #expect(hit.headers[.cacheControl] == "private, max-age=80")
            #expect(hit.headers[.lastModified] == "Mon, 23 Nov 2026 07:14:00 GMT")
            #expect(hit[header: "Reprise-Expires-At"] == "2026-11-23T07:15:30.623Z")
            #expect(hit[header: "Cache-Status"] == "reprise; hit; ttl=80")
            #expect(hit.headers[.acceptRanges] == "bytes")
            #expect(hit.headers[.contentType] == "application/octet-stream")
            try await api.send(.put, entry, "v", headers: [HTTPField.Name("Reprise-TTL")!: "none"])
            let forever = try await api.send(.get, entry)
            #expect(forever.headers[.cacheControl] == nil)
            #expect(forever[header: "Reprise-Expires-At"] == nil)
            #expect(forever[header: "Cache-Status"] == "reprise; hit")
        }
    }

    @Test func replacesWithNoContent() async throws {
        try await withAPI { api in
            #expect(try await api.send(.put, entry, "one").status == .created)
            let second = try await api.send(.put, entry, "two")
            #expect(second.status == .noContent)
            #expect(second.headers[.contentLength] == nil)
            #expect(try await api.send(.get, entry).text == "two")
        }
    }

    @Test func takesKeysAsOneSegment() async throws {
        try await withAPI { api in
            for (path, key) in [
                ("a%2Fb", "a/b"), ("%20x%20", " x "), ("%C3%A9%F0%9F%8E%B5", "é🎵"), ("a+b", "a+b"), ("%25", "%"),
                ("..%2F..", "../.."), ("metadata", "metadata"),
            ] {
                let uri = "/v1/cache/scores/entries/\(path)"
                let put = try await api.send(.put, uri, key)
                #expect(put.status == .created)
                let get = try await api.send(.get, uri)
                #expect(get.text == key)
                let metadata = try await api.send(.get, uri + "/metadata").json
                #expect(metadata["key"] == .string(key))
            }
        }
    }

    @Test func tellsWhyItMissed() async throws {
        try await withAPI { api in
            let absent = try await api.send(.get, entry)
            #expect(try absent.expectProblem(.cacheMiss, status: 404)["reason"] == "absent")
            #expect(absent[header: "Cache-Status"] == "reprise; fwd=uri-miss; detail=absent")
            try await api.send(.put, entry, "v", headers: [HTTPField.Name("Reprise-TTL")!: "1"])
            api.clock.advance(seconds: 0.999)
            #expect(try await api.send(.get, entry).status == .ok)
            api.clock.advance(seconds: 0.001)
            for _ in 0..<2 {
                let expired = try await api.send(.get, entry)
                #expect(try expired.expectProblem(.cacheMiss, status: 404)["reason"] == "expired")
                #expect(expired[header: "Cache-Status"] == "reprise; fwd=uri-miss; detail=expired")
                // Swept or not, the answer is the same.
                _ = try await api.storage.perform(.cacheExpiry, isDryRun: false)
            }
            let head = try await api.send(.head, entry)
            #expect(head.status == .notFound)
            #expect(head.body.readableBytes == 0)
        }
    }

    @Test func addsOnlyWhereNothingLives() async throws {
        try await withAPI { api in
            let add: HTTPFields = [.ifNoneMatch: "*"]
            #expect(try await api.send(.put, entry, "one", headers: add).status == .created)
            try await api.send(.put, entry, "two", headers: add).expectProblem(.preconditionFailed, status: 412)
            #expect(try await api.send(.get, entry).text == "one")
            api.clock.advance(seconds: 300)
            #expect(try await api.send(.put, entry, "three", headers: add).status == .created)
        }
    }

    @Test func comparesAndSets() async throws {
        try await withAPI { api in
            try await api.send(.put, entry, "x", headers: [.ifMatch: "*"]).expectProblem(
                .preconditionFailed, status: 412)
            let tag = try #require(try await api.send(.put, entry, "one").headers[.eTag])
            try await api.send(.put, entry, "no", headers: [.ifMatch: "\"0000\""])
                .expectProblem(.preconditionFailed, status: 412)
            try await api.send(.put, entry, "no", headers: [.ifMatch: "W/\(tag)"])
                .expectProblem(.preconditionFailed, status: 412)
            #expect(try await api.send(.put, entry, "two", headers: [.ifMatch: "\"a\", \(tag)"]).status == .noContent)
            try await api.send(.put, entry, "three", headers: [.ifMatch: tag])
                .expectProblem(.preconditionFailed, status: 412)
            try await api.send(.delete, entry, headers: [.ifMatch: tag]).expectProblem(.preconditionFailed, status: 412)
            #expect(try await api.send(.get, entry).text == "two")
            let large = [UInt8](repeating: 7, count: Limits.maxInlineValueBytes + 1)
            try await api.send(.put, entry, bytes: large, headers: [.ifMatch: tag])
                .expectProblem(.preconditionFailed, status: 412)
        }
    }

    @Test func changesOnlyWhatMeetsTheCondition() async throws {
        try await withAPI { api in
            try await api.json(.post, entry + "/increment", [:])
            let tag = try #require(try await api.send(.head, entry).headers[.eTag])
            let other: HTTPFields = [.ifMatch: "\"x\"", .contentType: "application/json"]
            for path in ["/touch", "/increment"] {
                try await api.send(.post, entry + path, "{}", headers: other).expectProblem(
                    .preconditionFailed, status: 412)
                #expect(try await api.send(.post, entry + path, headers: [.ifMatch: tag]).status == .ok)
            }
            #expect(try await api.send(.get, entry).text == "2")
            try await api.send(.post, entry + "/increment", headers: [.ifNoneMatch: "*"])
                .expectProblem(.preconditionFailed, status: 412)
            try await api.send(.put, "/v1/cache/scores", headers: [.ifNoneMatch: "*"])
                .expectProblem(.preconditionFailed, status: 412)
            try await api.send(.get, "/v1/cache/scores", headers: other).expectProblem(.preconditionFailed, status: 412)
            try await api.send(.delete, "/v1/cache/scores", headers: other).expectProblem(
                .preconditionFailed, status: 412)
            try await api.send(.patch, "/v1/config", "{}", headers: other).expectProblem(
                .preconditionFailed, status: 412)
            #expect(try await api.send(.put, "/v1/cache/new", headers: [.ifNoneMatch: "*"]).status == .created)
        }
    }

    /// `If-Match` compares strongly: a weak tag never matches. `If-None-Match` compares weakly (RFC 9110, 13.1).
    @Test func aWeakTagIsNoMatchAndNoDifference() async throws {
        try await withAPI { api in
            let tag = try #require(try await api.send(.put, entry, "v").headers[.eTag])
            for weak in ["W/\(tag)", "\"x\", W/\(tag)"] {
                for method: HTTPRequest.Method in [.get, .put, .delete] {
                    try await api.send(method, entry, method == .put ? "no" : nil, headers: [.ifMatch: weak])
                        .expectProblem(.preconditionFailed, status: 412)
                }
                #expect(try await api.send(.head, entry, headers: [.ifMatch: weak]).status == .preconditionFailed)
                for path in ["/touch", "/increment"] {
                    try await api.send(.post, entry + path, headers: [.ifMatch: weak])
                        .expectProblem(.preconditionFailed, status: 412)
                }
                for method: HTTPRequest.Method in [.put, .delete] {
                    try await api.send(method, entry, method == .put ? "no" : nil, headers: [.ifNoneMatch: weak])
                        .expectProblem(.preconditionFailed, status: 412)
                }
                for method: HTTPRequest.Method in [.get, .head] {
                    #expect(try await api.send(method, entry, headers: [.ifNoneMatch: weak]).status == .notModified)
                    #expect(try await api.send(method, entry, headers: [.ifMatch: "\(weak), \(tag)"]).status == .ok)
                }
            }
            #expect(try await api.send(.get, entry).text == "v")
        }
    }

    /// An empty header counts as absent: it is not stored and returned.
    @Test func takesEmptyMediaTypesForNone() async throws {
        try await withAPI { api in
            try await api.send(.put, entry, "v", headers: [.contentType: "", .contentEncoding: ""])
            let get = try await api.send(.get, entry)
            #expect(get.headers[.contentType] == "application/octet-stream")
            #expect(get.headers[.contentEncoding] == nil)
        }
    }

    @Test func answersConditionalReads() async throws {
        try await withAPI { api in
            let tag = try #require(try await api.send(.put, entry, "v").headers[.eTag])
            for headers: HTTPFields in [
                [.ifNoneMatch: tag], [.ifNoneMatch: "W/\(tag)"], [.ifNoneMatch: "\"x\", \(tag)"], [.ifNoneMatch: "*"],
                [.ifModifiedSince: "Mon, 23 Nov 2026 07:14:00 GMT"],
            ] {
                let answer = try await api.send(.get, entry, headers: headers)
                #expect(answer.status == .notModified)
                #expect(answer.headers[.eTag] == tag)
                #expect(answer.headers[.contentLength] == nil)
                #expect(answer.body.readableBytes == 0)
            }
            for headers: HTTPFields in [
                [.ifNoneMatch: "\"x\""], [.ifModifiedSince: "Mon, 23 Nov 2026 07:13:59 GMT"],
                [.ifModifiedSince: "soon"],
                [.ifNoneMatch: "\"x\"", .ifModifiedSince: "Mon, 23 Nov 2026 07:14:00 GMT"], [.ifMatch: tag],
                [.ifUnmodifiedSince: "Mon, 23 Nov 2026 07:14:00 GMT"],
            ] {
                #expect(try await api.send(.get, entry, headers: headers).status == .ok)
            }
            for headers: HTTPFields in [[.ifMatch: "\"x\""], [.ifUnmodifiedSince: "Mon, 23 Nov 2026 07:13:59 GMT"]] {
                try await api.send(.get, entry, headers: headers).expectProblem(.preconditionFailed, status: 412)
            }
        }
    }

    /// What each range selects from a value of a given length: its bounds, or nil for 416.
    @Test(arguments: [10, 3 * Limits.chunkBytes + 5])
    func servesRanges(length: Int) async throws {
        var numbers = RepeatableNumbers(seed: 2)
        let value = numbers.bytes(length)
        let border = min(Limits.chunkBytes, length - 2)
        let last = length - 1
        try await withAPI { api in
            let tag = try #require(try await api.send(.put, entry, bytes: value).headers[.eTag])
            for (range, expected) in [
                ("bytes=0-0", 0...0), ("bytes=2-5", 2...5),
                ("bytes=\(border - 1)-\(border + 1)", border - 1...border + 1),
                ("bytes=\(border)-", border...last), ("bytes=-3", length - 3...last), ("bytes=-999999999", 0...last),
                ("bytes=4-999999999", 4...last), ("BYTES = 1-2 ", 1...2), ("bytes=\(last)-\(last)", last...last),
                ("bytes=4-99999999999999999999999", 4...last),
            ] {
                let answer = try await api.send(.get, entry, headers: [.range: range])
                #expect(answer.status == .partialContent, "\(range)")
                #expect(answer.bytes == Array(value[expected]), "\(range)")
                #expect(
                    answer.headers[.contentRange] == "bytes \(expected.lowerBound)-\(expected.upperBound)/\(length)")
                #expect(answer.headers[.contentLength] == String(expected.count))
            }
            for range in ["bytes=\(length)-", "bytes=5-2", "bytes=-0", "bytes=x-1", "bytes=", "bytes=--1", "bytes=1"] {
                let answer = try await api.send(.get, entry, headers: [.range: range])
                try answer.expectProblem(.rangeNotSatisfiable, status: 416)
                #expect(answer.headers[.contentRange] == "bytes */\(length)")
            }
            for headers: HTTPFields in [
                [.range: "lines=1-2"], [.range: "bytes=0-0,2-3"], [.range: "bytes=0-0", .ifRange: "\"other\""],
                [.range: "bytes=0-0", .ifRange: "Mon, 23 Nov 2026 07:13:00 GMT"],
                [.range: "bytes=0-0", .ifRange: "Mon, 23 Nov 2026 07:14:01 GMT"],
                [.range: "bytes=0-0", .ifRange: "Thu, 23 Nov 2028 07:14:00 GMT"],
                [.range: "bytes=0-0", .ifRange: "W/\(tag)"],
            ] {
                #expect(try await api.send(.get, entry, headers: headers).bytes == value)
            }
            for condition in [tag, "Mon, 23 Nov 2026 07:14:00 GMT"] {
                let answer = try await api.send(.get, entry, headers: [.range: "bytes=1-1", .ifRange: condition])
                #expect(answer.status == .partialContent)
            }
            #expect(try await api.send(.head, entry, headers: [.range: "bytes=0-0"]).status == .ok)
        }
    }

    @Test func refusesRangesOfNothing() async throws {
        try await withAPI { api in
            try await api.send(.put, entry, "")
            try await api.send(.get, entry, headers: [.range: "bytes=0-"]).expectProblem(
                .rangeNotSatisfiable, status: 416)
        }
    }

    @Test func deletesIdempotently() async throws {
        try await withAPI { api in
            try await api.send(.put, entry, "v")
            for _ in 0..<2 { #expect(try await api.send(.delete, entry).status == .noContent) }
            #expect(try await api.send(.get, entry).expectProblem(.cacheMiss, status: 404)["reason"] == "deleted")
        }
    }

    @Test func describesAnEntry() async throws {
        try await withAPI { api in
            let headers: HTTPFields = [
                .contentType: "audio/wav", HTTPField.Name("Reprise-TTL")!: "60",
                HTTPField.Name("Reprise-Tags")!: "piano, calm,,piano",
                HTTPField.Name("Reprise-Compute-Seconds")!: "2.5",
            ]
            let tag = try #require(try await api.send(.put, entry, "12345", headers: headers).headers[.eTag])
            api.clock.advance(seconds: 1)
            try await api.send(.get, entry)
            try await api.storage.flushCounters()
            let expected: JSON = [
                "key": "song", "namespace": "scores", "size_bytes": 5, "content_type": "audio/wav",
                "content_encoding": nil, "etag": .string(tag), "created_at": "2026-11-23T07:14:00.123Z",
                "updated_at": "2026-11-23T07:14:00.123Z", "expires_at": "2026-11-23T07:15:00.123Z", "ttl_seconds": 60,
                "expires_in_seconds": 59, "hit_count": 1, "last_accessed_at": "2026-11-23T07:14:01.123Z",
                "tags": ["calm", "piano"], "compute_seconds": .number("2.5"),
            ]
            #expect(try await api.send(.get, entry + "/metadata").json == expected)
            try await api.send(.get, "/v1/cache/scores/entries/none/metadata").expectProblem(.cacheMiss, status: 404)
        }
    }

    @Test func touches() async throws {
        try await withAPI { api in
            try await api.send(.put, entry, "v", headers: [HTTPField.Name("Reprise-TTL")!: "10"])
            api.clock.advance(seconds: 9)
            let renewed = try await api.send(.post, entry + "/touch")
            #expect(try renewed.json["expires_in_seconds"] == 10)
            let longer = try await api.json(.post, entry + "/touch", ["ttl_seconds": 100])
            #expect(try longer.json["ttl_seconds"] == 100)
            let forever = try await api.json(.post, entry + "/touch", ["ttl_seconds": nil])
            #expect(try forever.json["expires_at"] == JSON.null)
            api.clock.advance(seconds: 1e6)
            #expect(try await api.send(.get, entry).text == "v")
            try await api.send(.post, "/v1/cache/scores/entries/none/touch").expectProblem(.cacheMiss, status: 404)
        }
    }

    @Test func counts() async throws {
        try await withAPI { api in
            let path = entry + "/increment"
            #expect(try await api.send(.post, path).json["value"] == 1)
            #expect(try await api.json(.post, path, ["delta": -5]).json["value"] == -4)
            #expect(
                try await api.json(.post, "/v1/cache/n/entries/new/increment", ["initial": 40, "delta": 2]).json[
                    "value"] == 42)
            #expect(try await api.send(.get, entry).text == "-4")
            let top: JSON = ["delta": .integer(Int64.max)]
            #expect(
                try await api.json(.post, "/v1/cache/n/entries/max/increment", top).json["value"] == .integer(Int64.max)
            )
            try await api.json(.post, "/v1/cache/n/entries/max/increment", [:]).expectProblem(
                .integerOverflow, status: 409)
            try await api.json(.post, "/v1/cache/n/entries/f/increment", ["initial": .integer(Int64.min), "delta": -1])
                .expectProblem(.integerOverflow, status: 409)
            for text in ["x", "1.5", "\"1\"", "9223372036854775808", ""] {
                try await api.send(.put, "/v1/cache/n/entries/text", text)
                try await api.json(.post, "/v1/cache/n/entries/text/increment", [:])
                    .expectProblem(.notAnInteger, status: 409)
                #expect(try await api.send(.get, "/v1/cache/n/entries/text").text == text)
            }
        }
    }

    @Test func countingKeepsTheExpiry() async throws {
        try await withAPI { api in
            try await api.json(.post, entry + "/increment", ["ttl_seconds": 10])
            api.clock.advance(seconds: 9)
            try await api.json(.post, entry + "/increment", [:])
            api.clock.advance(seconds: 1)
            #expect(try await api.json(.post, entry + "/increment", [:]).json["value"] == 1)
            try await api.json(.post, entry + "/increment", ["ttl_seconds": 1000])
            api.clock.advance(seconds: 999)
            #expect(try await api.send(.get, entry).text == "2")
        }
    }
}
