// Bad input to sessions and history: the right problem, and nothing stored.

import Domain
import HTTPTypes
import Testing

struct SessionBadInputTests {
    @Test func fieldsAreNamed() async throws {
        try await SessionAPI.run { api in
            let long = String(repeating: "x", count: 513)
            for (method, path, body, fields) in [
                (.post, "/v1/sessions", #"{"id":"a b"}"#, ["id"]),
                (.post, "/v1/sessions", #"{"id":1}"#, ["id"]),
                (.post, "/v1/sessions", #"{"id":".."}"#, ["id"]),
                (
                    .post, "/v1/sessions", #"{"ttl_seconds":0,"max_history_items":0}"#,
                    ["ttl_seconds", "max_history_items"]
                ),
                (.post, "/v1/sessions", #"{"ttl_seconds":1e99}"#, ["ttl_seconds"]),
                (.post, "/v1/sessions", #"{"max_history_items":10001}"#, ["max_history_items"]),
                (.post, "/v1/sessions", #"{"template":"none"}"#, ["template"]),
                (.post, "/v1/sessions", #"{"template":""}"#, ["template"]),
                (.post, "/v1/sessions", #"{"metadata":[]}"#, ["metadata"]),
                (.post, "/v1/sessions", #"{"state":[]}"#, ["state"]),
                (.post, "/v1/sessions", #"{"state":{"":1}}"#, ["state"]),
                (.post, "/v1/sessions", #"{"state":{"a\u0000":1}}"#, ["state"]),
                (.post, "/v1/sessions", #"{"state":{"\#(long)":1}}"#, ["state"]),
                (.post, "/v1/sessions", #"{"defaults":{}}"#, ["defaults"]),
                (.post, "/v1/sessions", #"{"Id":"a"}"#, ["Id"]),
                (.post, "/v1/sessions", "[]", ["body"]),
                (.put, "/v1/sessions/new", #"{"id":"other"}"#, ["id"]),
                (.put, "/v1/sessions/new", #"{"defaults":1}"#, ["defaults"]),
                (.put, "/v1/sessions/%20", "{}", ["session_id"]),
                (.post, "/v1/sessions/s/touch", #"{"a":1}"#, ["a"]),
                (.post, "/v1/sessions/s/optimize", #"{"keep":"a"}"#, ["keep"]),
                (.post, "/v1/sessions/s/optimize", #"{"keep":[""]}"#, ["keep[0]"]),
                (.post, "/v1/sessions/s/debounce/a%20b", "{}", ["name"]),
                (
                    .patch, "/v1/sessions/s/state", #"{"set":1,"delete":[1],"delete_prefixes":[""]}"#,
                    ["set", "delete", "delete_prefixes[0]"]
                ),
                (.patch, "/v1/sessions/s/state", #"{"sets":{}}"#, ["sets"]),
                (.put, "/v1/sessions/s/state/a%01", "1", ["key"]),
                (.put, "/v1/session-templates/t", #"{"ttl_seconds":-1,"defaults":[]}"#, ["defaults", "ttl_seconds"]),
                (.put, "/v1/session-templates/a%2Fb", "{}", ["name"]),
                (.post, "/v1/sessions/s/history", #"{"id":"","kind":"a b","data":1}"#, ["id", "kind"]),
                (.post, "/v1/sessions/s/history", "{}", ["data"]),
            ] as [(HTTPRequest.Method, String, String, [String])] {
                try await api.send(.put, "/v1/sessions/s")
                let answer = try await api.send(method, path, body)
                answer.expect(.validationFailed, 422)
                #expect(answer.fields == fields, "\(method) \(path) \(body)")
            }
            #expect(try await api.send(.get, "/v1/sessions").items("id") == [#""s""#])
            #expect(try await api.send(.get, "/v1/sessions/s").json["state_key_count"] == 0)
            #expect(try await api.send(.get, "/v1/session-templates").items("name") == [])
        }
    }

    @Test func bodiesAndMethodsAreChecked() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s")
            for body in ["{", "{\"a\":1,\"a\":2}", "nul", #"{"state":{"a":\#(String(repeating: "[", count: 200))}}"#] {
                try await api.send(.post, "/v1/sessions", body).expect(.malformedJSON, 400)
                try await api.send(.patch, "/v1/sessions/s/state", body).expect(.malformedJSON, 400)
            }
            try await api.send(.put, "/v1/sessions/s/state/a", "").expect(.malformedJSON, 400)
            try await api.send(.put, "/v1/sessions/s/state/a", "1", headers: ["Content-Type": "text/plain"])
                .expect(.unsupportedMediaType, 415)
            try await api.send(.get, "/v1/sessions/%zz").expect(.badPercentEncoding, 400)
            try await api.send(.get, "/v1/sessions/s?x=1").expect(.validationFailed, 422)
            try await api.send(.put, "/v1/sessions").expect(.methodNotAllowed, 405)
            let wrong = try await api.send(.post, "/v1/sessions/s/state/a", "1")
            #expect(wrong.headers[.allow] == "DELETE, GET, HEAD, PUT")
            try await api.send(.get, "/v1/sessions/s/state/").expect(.notFound, 404)
            try await api.send(.delete, "/v1/sessions/").expect(.notFound, 404)
            let metadata = String(repeating: "x", count: Limits.maxMetadataBytes)
            try await api.send(.post, "/v1/sessions", #"{"metadata":{"a":"\#(metadata)"}}"#).expect(
                .payloadTooLarge, 413)
            let prefixes = (0...100).map { "\"p\($0)\"" }.joined(separator: ",")
            try await api.send(.patch, "/v1/sessions/s/state", "{\"delete_prefixes\":[\(prefixes)]}")
                .expect(.validationFailed, 422)
            let keys = (0...1000).map { "\"p\($0)\"" }.joined(separator: ",")
            try await api.send(.patch, "/v1/sessions/s/state", "{\"delete\":[\(keys)]}").expect(.validationFailed, 422)
            let huge = String(repeating: " ", count: Limits.maxStateBodyBytes + 1)
            try await api.send(.patch, "/v1/sessions/s/state", huge).expect(.payloadTooLarge, 413)
            let data = String(repeating: "x", count: Limits.maxHistoryItemBytes)
            try await api.send(.post, "/v1/sessions/s/history", #"{"data":"\#(data)"}"#).expect(.payloadTooLarge, 413)
            #expect(try await api.send(.get, "/v1/sessions/s/state").text == #"{"state":{},"version":1}"#)
        }
    }
}
