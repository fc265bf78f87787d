// Backups over HTTP.

import Domain
import HTTPTypes
import HummingbirdTesting
import SQLiteStorage
import TestSupport
import Testing

struct BackupRoutesTests {
    @Test func aBackupIsMadeListedFetchedAndRemoved() async throws {
        try await withAPI { api in
            try await api.send(.put, "/v1/cache/n/entries/k", "v")
            let made = try await api.send(.post, "/v1/backups")
            #expect(made.status == .created)
            let backup = try made.json
            let name = try #require(backup["name"]?.stringValue)
            #expect(made[header: "Location"] == "/v1/backups/\(name)")
            #expect(backup["created_at"] == .instant(api.clock.now))
            let listed = try await api.send(.get, "/v1/backups").json
            #expect(listed == ["items": [backup], "next_cursor": nil])

            let fetched = try await api.send(.get, "/v1/backups/\(name)")
            let hash = EntityTag(of: fetched.bytes).hex
            #expect(fetched.status == .ok && backup["sha256"] == .string(hash))
            #expect(backup["size_bytes"] == .integer(fetched.bytes.count))
            #expect(fetched[header: "ETag"] == "\"\(hash)\"")
            #expect(fetched[header: "Content-Type"] == "application/vnd.sqlite3")
            #expect(fetched[header: "Content-Disposition"] == "attachment; filename=\"\(name)\"")
            #expect(fetched[header: "Last-Modified"] == api.clock.now.httpDate)
            #expect(fetched.bytes.starts(with: Array("SQLite format 3\0".utf8)))

            let head = try await api.send(.head, "/v1/backups/\(name)", headers: [.range: "bytes=0-3"])
            #expect(head.status == .ok && head.bytes.isEmpty)
            #expect(head[header: "Content-Length"] == "\(fetched.bytes.count)")

            #expect(try await api.send(.delete, "/v1/backups/\(name)").status == .noContent)
            for method in [HTTPRequest.Method.get, .delete] {
                try await api.send(method, "/v1/backups/\(name)").expectProblem(.backupNotFound, status: 404)
            }
            #expect(try await api.send(.head, "/v1/backups/\(name)").status == .notFound)
            #expect(try await api.send(.get, "/v1/backups").json["items"] == [])
        }
    }

    @Test func rangesAndConditionsAreThoseOfValues() async throws {
        try await withAPI { api in
            let name = try #require(try await api.json(.post, "/v1/backups", [:]).json["name"]?.stringValue)
            let path = "/v1/backups/\(name)"
            let whole = try await api.send(.get, path)
            let tag = try #require(whole[header: "ETag"])
            let part = try await api.send(.get, path, headers: [.range: "bytes=100-70000", .ifRange: tag])
            #expect(part.status == .partialContent && part.bytes == Array(whole.bytes[100...70_000]))
            #expect(part[header: "Content-Range"] == "bytes 100-70000/\(whole.bytes.count)")
            let other = try await api.send(.get, path, headers: [.range: "bytes=0-1", .ifRange: "\"other\""])
            #expect(other.status == .ok && other.bytes == whole.bytes)
            try await api.send(.get, path, headers: [.range: "bytes=\(whole.bytes.count)-"])
                .expectProblem(.rangeNotSatisfiable, status: 416)
            let known = try await api.send(.get, path, headers: [.ifNoneMatch: tag])
            #expect(known.status == .notModified && known.bytes.isEmpty && known[header: "ETag"] == tag)
            for method in [HTTPRequest.Method.get, .delete] {
                try await api.send(method, path, headers: [.ifMatch: "\"other\""])
                    .expectProblem(.preconditionFailed, status: 412)
            }
            #expect(try await api.send(.delete, path, headers: [.ifMatch: tag]).status == .noContent)
        }
    }

    @Test func pagesAreNewestFirst() async throws {
        try await withAPI { api in
            var names: [JSON] = []
            for _ in 0..<3 {
                api.clock.advance(seconds: 1)
                names.insert(try #require(try await api.send(.post, "/v1/backups").json["name"]), at: 0)
            }
            let first = try await api.send(.get, "/v1/backups?limit=2").json
            guard case .array(let items) = first["items"] else { return #expect(Bool(false)) }
            #expect(items.map { $0["name"] } == Array(names[..<2]))
            let cursor = try #require(first["next_cursor"]?.stringValue)
            let second = try await api.send(.get, "/v1/backups?limit=2&cursor=\(cursor)").json
            guard case .array(let rest) = second["items"] else { return #expect(Bool(false)) }
            #expect(rest.map { $0["name"] } == [names[2]] && second["next_cursor"] == .null)
        }
    }

    @Test func badInputIsRefused() async throws {
        try await withAPI { api in
            try await api.send(.post, "/v1/backups?full=true").expectProblem(.validationFailed, status: 422)
            try await api.json(.post, "/v1/backups", ["name": "x"]).expectProblem(.validationFailed, status: 422)
            try await api.send(.get, "/v1/backups?limit=0").expectProblem(.validationFailed, status: 422)
            try await api.send(.get, "/v1/backups/a%20b").expectProblem(.validationFailed, status: 422)
            for name in ["..%2Ftest.db", "%2e%2e"] {
                try await api.send(.get, "/v1/backups/\(name)").expectProblem(.validationFailed, status: 422)
            }
            try await api.send(.get, "/v1/backups/test.db").expectProblem(.backupNotFound, status: 404)
        }
    }

    @Test func aStoppingServiceMakesNone() async throws {
        try await withAPI { api in
            api.storage.endLongReads()
            try await api.send(.post, "/v1/backups").expectProblem(.shuttingDown, status: 503)
        }
    }

    @Test func theIntervalIsNoneOrAMinuteAtLeast() async throws {
        try await withAPI { api in
            for value: JSON in [0, 60, 86_400] {
                #expect(try await api.json(.patch, "/v1/config", ["backup_interval_seconds": value]).status == .ok)
            }
            for value: JSON in [1, 59, -1, "0", 31_536_001] {
                let problem = try await api.json(.patch, "/v1/config", ["backup_interval_seconds": value])
                    .expectProblem(.validationFailed, status: 422)
                #expect(problem["detail"]?.stringValue?.contains("0, or a number from 60 to 31536000") == true)
            }
        }
    }
}
