// Conditions as clients send them, on every kind of entity: If-Match compares strongly, If-None-Match weakly.

import Domain
import HTTPTypes
import Testing

struct ConditionTests {
    private static let entities = [
        "/v1/sessions", "/v1/sessions/s", "/v1/sessions/s/state", "/v1/sessions/s/state?keys=a",
        "/v1/sessions/s/state/a",
        "/v1/sessions/s/history", "/v1/sessions/s/history/i", "/v1/history", "/v1/session-templates",
        "/v1/session-templates/t", "/v1/config", "/v1/config/max_history_items", "/v1/cache", "/v1/cache/n",
        "/v1/cache/n/entries", "/v1/maintenance/runs", "/openapi.yaml", "/dashboard/",
    ]

    private func fill(_ api: SessionAPI) async throws {
        try await api.send(.put, "/v1/session-templates/t", #"{"defaults":{"a":1}}"#)
        try await api.send(.put, "/v1/sessions/s", #"{"template":"t","state":{"b":1}}"#)
        try await api.send(.post, "/v1/sessions/s/history", #"{"id":"i","data":1}"#)
        try await api.send(.put, "/v1/cache/n", "{}")
    }

    @Test(arguments: entities)
    func reads(uri: String) async throws {
        try await SessionAPI.run { api in
            try await fill(api)
            let tag = try #require(try await api.send(.get, uri).entityTag)
            #expect(tag.hasPrefix("\"") && tag.hasSuffix("\""))
            for method in [HTTPRequest.Method.get, .head] {
                func status(_ headers: [String: String]) async throws -> Int {
                    try await api.send(method, uri, headers: headers).status
                }
                for match in [tag, "*", "\"other\", \(tag)"] {
                    #expect(try await status(["If-Match": match]) == 200, "\(match)")
                }
                for match in ["W/\(tag)", "\"other\"", "\"other\", W/\(tag)", ""] {
                    #expect(try await status(["If-Match": match]) == 412, "\(match)")
                    // If-None-Match is not evaluated for a request that fails.
                    #expect(try await status(["If-Match": match, "If-None-Match": tag]) == 412, "\(match)")
                }
                for known in [tag, "W/\(tag)", "*", "\"other\", W/\(tag)"] {
                    let answer = try await api.send(method, uri, headers: ["If-None-Match": known])
                    #expect(answer.status == 304 && answer.text == "" && answer.entityTag == tag, "\(known)")
                    #expect(try await status(["If-None-Match": known, "If-Match": tag]) == 304, "\(known)")
                }
                for other in ["\"other\"", "W/\"other\"", ""] {
                    #expect(try await status(["If-None-Match": other]) == 200, "\(other)")
                }
                // There is no Last-Modified to compare with.
                let date = "Sun, 06 Nov 1994 08:49:37 GMT"
                #expect(try await status(["If-Unmodified-Since": date, "If-Modified-Since": date]) == 200)
            }
        }
    }

    /// Writes that proceed on the current state, with the resource that has the tag.
    @Test(
        arguments: [
            (HTTPRequest.Method.patch, "/v1/sessions/s/state", #"{"set":{"a":2}}"#, "/v1/sessions/s/state"),
            (.put, "/v1/sessions/s/state/a", "2", "/v1/sessions/s/state/a"),
            (.delete, "/v1/sessions/s/state/b", nil, "/v1/sessions/s/state"),
            (.patch, "/v1/sessions/s/history/i", "2", "/v1/sessions/s/history/i"),
            (.delete, "/v1/sessions/s/history/i", nil, "/v1/sessions/s/history/i"),
            (.put, "/v1/session-templates/t", #"{"defaults":{"a":2}}"#, "/v1/session-templates/t"),
            (.delete, "/v1/session-templates/t", nil, "/v1/session-templates/t"),
            (.patch, "/v1/config", #"{"max_history_items":3}"#, "/v1/config"),
            (.put, "/v1/cache/n", #"{"max_entries":3}"#, "/v1/cache/n"),
            (.delete, "/v1/cache/n", nil, "/v1/cache/n"),
        ] as [(HTTPRequest.Method, String, String?, String)])
    func writes(method: HTTPRequest.Method, uri: String, body: String?, tagged: String) async throws {
        try await SessionAPI.run { api in
            try await fill(api)
            let tag = try #require(try await api.send(.get, tagged).entityTag)
            for headers in [
                ["If-Match": "W/\(tag)"], ["If-Match": "\"other\""], ["If-Match": ""], ["If-None-Match": "*"],
                ["If-None-Match": tag], ["If-None-Match": "W/\(tag)"], ["If-Match": tag, "If-None-Match": tag],
            ] {
                let refused = try await api.send(method, uri, body, headers: headers)
                refused.expect(.preconditionFailed, 412)
            }
            #expect(try await api.send(.get, tagged).entityTag == tag)
            let done = try await api.send(
                method, uri, body, headers: ["If-Match": "\"other\", \(tag)", "If-None-Match": "\"other\""])
            #expect((200...204).contains(done.status), "\(done.status) \(done.text)")
        }
    }

    /// None of these has a tag that outlasts a request: a condition that names one does not hold.
    @Test(
        arguments: [
            (HTTPRequest.Method.put, "/v1/sessions/s", "{}"), (.delete, "/v1/sessions/s", nil),
            (.delete, "/v1/sessions/s/history", nil), (.delete, "/v1/cache/n/entries", nil),
        ] as [(HTTPRequest.Method, String, String?)])
    func writesToWhatHasNoTag(method: HTTPRequest.Method, uri: String, body: String?) async throws {
        try await SessionAPI.run { api in
            try await fill(api)
            let tag = try await api.send(.get, uri).entityTag ?? "\"x\""
            for headers in [["If-Match": tag], ["If-Match": ""], ["If-None-Match": "*"]] {
                try await api.send(method, uri, body, headers: headers).expect(.preconditionFailed, 412)
            }
            let done = try await api.send(method, uri, body, headers: ["If-Match": "*", "If-None-Match": tag])
            #expect((200...204).contains(done.status), "\(done.status) \(done.text)")
        }
    }

    @Test func aTagOutlivesItsSessionWithoutMatchingTheNext() async throws {
        try await SessionAPI.run { api in
            let uri = "/v1/sessions/s/state"
            func create() async throws -> String {
                try await api.send(.put, "/v1/sessions/s", #"{"ttl_seconds":10,"state":{"a":1}}"#)
                try await api.send(.patch, uri, #"{"set":{"a":2}}"#)
                return try #require(try await api.send(.get, uri).entityTag)
            }
            var tags = [try await create()]
            #expect(try await api.send(.delete, "/v1/sessions/s").status == 204)
            tags.append(try await create())
            api.advance(seconds: 10)
            tags.append(try await create())
            api.advance(seconds: 10)
            try await api.send(.post, "/v1/maintenance/cleanup", #"{"tasks":["session_expiry"]}"#)
            tags.append(try await create())
            #expect(Set(tags).count == tags.count, "\(tags)")
            for old in tags.dropLast() {
                #expect(try await api.send(.get, uri, headers: ["If-None-Match": old]).status == 200)
                #expect(try await api.send(.get, uri + "/a", headers: ["If-None-Match": old]).status == 200)
                try await api.send(.patch, uri, #"{"set":{"a":3}}"#, headers: ["If-Match": old])
                    .expect(.preconditionFailed, 412)
            }
            // The tag is the version in the body.
            let body = try await api.send(.get, uri)
            #expect(body.entityTag == "\"\(try #require(body.json["version"]?.integerValue))\"")
        }
    }
}
