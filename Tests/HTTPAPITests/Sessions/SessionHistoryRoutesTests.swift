// Histories, as clients see them.

import Domain
import HTTPTypes
import Testing

struct SessionHistoryRoutesTests {
    @Test func appendingWithinTheCap() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s", #"{"max_history_items":2}"#)
            let now = api.now.rfc3339
            let first = try await api.send(
                .post, "/v1/sessions/s/history", #"{"id":"i1","kind":"generation","data":{"n": 1.50}}"#)
            #expect(first.status == 201 && first.headers[.location] == "/v1/sessions/s/history/i1")
            let item =
                #"{"id":"i1","session_id":"s","kind":"generation","data":{"n":1.50},"created_at":"\#(now)","#
                + #""updated_at":"\#(now)","size_bytes":10}"#
            #expect(first.text == #"{"item":\#(item),"removed":0}"#)
            let again = try await api.send(.post, "/v1/sessions/s/history", #"{"id":"i1","data":2}"#)
            #expect(again.status == 200 && again.text == first.text && again.headers[.location] == nil)
            try await api.send(.post, "/v1/sessions/s/history", #"{"id":"i2","data":null}"#)
            let third = try await api.send(.post, "/v1/sessions/s/history", #"{"data":[]}"#)
            #expect(third.json["removed"] == 1 && third.json["item"]?["id"]?.stringValue?.utf8.count == 32)
            #expect(try await api.send(.get, "/v1/sessions/s").json["history_count"] == 2)
            try await api.send(.post, "/v1/sessions/s/history", #"{"id":"x"}"#).expect(.validationFailed, 422)
            try await api.send(.post, "/v1/sessions/none/history", #"{"data":1}"#).expect(.sessionNotFound, 404)
        }
    }

    @Test func pagesAndStreams() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s", #"{"max_history_items":1000}"#)
            for number in 0..<7 {
                try await api.send(
                    .post, "/v1/sessions/s/history",
                    #"{"id":"i\#(number)","kind":"\#(number % 2 == 0 ? "even" : "odd")","data":\#(number)}"#)
            }
            let first = try await api.send(.get, "/v1/sessions/s/history?limit=3")
            #expect(first.items("data") == ["6", "5", "4"])
            let second = try await api.send(
                .get, "/v1/sessions/s/history?limit=3&cursor=\(first.string("next_cursor")!)")
            #expect(second.items("data") == ["3", "2", "1"])
            #expect(
                try await api.send(.get, "/v1/sessions/s/history?order=oldest&kind=odd").items("data") == [
                    "1", "3", "5",
                ])
            for accept in [
                "application/x-ndjson", "text/html, application/x-ndjson;q=0.5", "application/x-ndjson, */*;q=0.1",
            ] {
                let stream = try await api.send(.get, "/v1/sessions/s/history?kind=even", headers: ["Accept": accept])
                #expect(stream.status == 200 && stream.headers[.contentType] == "application/x-ndjson")
                let lines = stream.text.split(separator: "\n")
                #expect(try lines.map { try JSON(parsing: $0.utf8)["data"]?.text } == ["6", "4", "2", "0"])
            }
            for accept in ["application/json", "*/*", "application/x-ndjson;q=0.5, application/json"] {
                let page = try await api.send(.get, "/v1/sessions/s/history", headers: ["Accept": accept])
                #expect(page.headers[.contentType] == "application/json", "\(accept)")
            }
            try await api.send(.get, "/v1/sessions/s/history", headers: ["Accept": "text/html"]).expect(
                .notAcceptable, 406)
            try await api.send(
                .get, "/v1/sessions/s/history?limit=3", headers: ["Accept": "application/x-ndjson"]
            ).expect(.validationFailed, 422)
            for query in ["order=up", "kind=%20", "cursor=MQ", "limit=x", "since=2026-01-01T00:00:00Z"] {
                try await api.send(.get, "/v1/sessions/s/history?" + query).expect(.validationFailed, 422)
            }
            try await api.send(.get, "/v1/sessions/none/history", headers: ["Accept": "application/x-ndjson"])
                .expect(.sessionNotFound, 404)
        }
    }

    @Test func aStreamIsWholeHoweverLongItIs() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s", #"{"max_history_items":10000}"#)
            for number in 0..<1100 { try await api.send(.post, "/v1/sessions/s/history", #"{"data":\#(number)}"#) }
            let stream = try await api.send(
                .get, "/v1/sessions/s/history?order=oldest", headers: ["Accept": "application/x-ndjson"])
            let lines = try stream.text.split(separator: "\n").map { try JSON(parsing: $0.utf8)["data"]?.text }
            #expect(lines == (0..<1100).map { "\($0)" })
        }
    }

    @Test func singleItems() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s")
            try await api.send(.post, "/v1/sessions/s/history", #"{"id":"i","data":{"a":{"b":1,"c":2},"d":3}}"#)
            let path = "/v1/sessions/s/history/i"
            let read = try await api.send(.get, path)
            #expect(read.status == 200 && read.entityTag != nil)
            #expect(try await api.send(.get, path, headers: ["If-None-Match": read.entityTag!]).status == 304)
            api.advance(seconds: 1)
            let patched = try await api.send(
                .patch, path, #"{"a":{"b":null},"rating":5}"#,
                headers: ["Content-Type": "application/merge-patch+json", "If-Match": read.entityTag!])
            #expect(patched.status == 200 && patched.json["data"]?.text == #"{"a":{"c":2},"d":3,"rating":5}"#)
            #expect(patched.json["size_bytes"] == 30 && patched.json["updated_at"] == .instant(api.now))
            #expect(patched.entityTag != read.entityTag)
            try await api.send(.patch, path, "1", headers: ["If-Match": read.entityTag!]).expect(
                .preconditionFailed, 412)
            #expect(try await api.send(.patch, path, "[1]").json["data"]?.text == "[1]")
            try await api.send(.patch, path, "{", headers: [:]).expect(.malformedJSON, 400)
            try await api.send(.patch, path, "").expect(.malformedJSON, 400)
            try await api.send(.patch, path, "a=1", headers: ["Content-Type": "application/x-www-form-urlencoded"])
                .expect(.unsupportedMediaType, 415)
            #expect(try await api.send(.delete, path).status == 204)
            try await api.send(.delete, path).expect(.historyItemNotFound, 404)
            try await api.send(.get, path).expect(.historyItemNotFound, 404)
            try await api.send(.patch, path, "{}").expect(.historyItemNotFound, 404)
        }
    }

    @Test func clearing() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s")
            for _ in 0..<3 { try await api.send(.post, "/v1/sessions/s/history", #"{"data":1}"#) }
            #expect(try await api.send(.delete, "/v1/sessions/s/history").text == #"{"removed":3}"#)
            #expect(try await api.send(.get, "/v1/sessions/s/history").items("id") == [])
        }
    }

    @Test func acrossSessions() async throws {
        try await SessionAPI.run { api in
            let start = api.now
            for (number, session) in ["a", "b", "a"].enumerated() {
                try await api.send(.put, "/v1/sessions/\(session)")
                try await api.send(
                    .post, "/v1/sessions/\(session)/history", #"{"kind":"k\#(number % 2)","data":\#(number)}"#)
                api.advance(seconds: 1)
            }
            let all = try await api.send(.get, "/v1/history")
            #expect(all.items("data") == ["2", "1", "0"] && all.items("session_id") == [#""a""#, #""b""#, #""a""#])
            #expect(try await api.send(.get, "/v1/history?kind=k0").items("data") == ["2", "0"])
            let first = try await api.send(.get, "/v1/history?limit=2")
            let rest = try await api.send(.get, "/v1/history?limit=2&cursor=\(first.string("next_cursor")!)")
            #expect(first.items("data") + rest.items("data") == ["2", "1", "0"])
            let second = start.advanced(milliseconds: 1000)
            #expect(try await api.send(.get, "/v1/history?since=\(second.rfc3339)").items("data") == ["2", "1"])
            #expect(try await api.send(.get, "/v1/history?until=\(second.rfc3339)").items("data") == ["0"])
            // The same instant in another time zone, with its sign unencoded and encoded.
            let local = second.advanced(milliseconds: 3_600_000).rfc3339.dropLast()
            #expect(try await api.send(.get, "/v1/history?since=\(local)+01:00").items("data") == ["2", "1"])
            #expect(try await api.send(.get, "/v1/history?since=\(local)%2B01:00").items("data") == ["2", "1"])
            for query in ["since=yesterday", "until=2026-02-30T00:00:00Z", "order=oldest", "session_id=a"] {
                try await api.send(.get, "/v1/history?" + query).expect(.validationFailed, 422)
            }
        }
    }

    @Test func racingAppendersLeaveTheNewest() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s")
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<50 {
                    group.addTask {
                        let answer = try await api.send(.post, "/v1/sessions/s/history", #"{"data":\#(number)}"#)
                        #expect(answer.status == 201)
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await api.send(.get, "/v1/sessions/s/history?limit=500").items("id").count == 20)
            #expect(try await api.send(.get, "/v1/sessions/s").json["history_count"] == 20)
        }
    }
}
