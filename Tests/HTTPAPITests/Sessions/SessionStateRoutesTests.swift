// A session's state, as clients see it.

import Domain
import HTTPTypes
import Testing

struct SessionStateRoutesTests {
    @Test func readingSparsely() async throws {
        try await SessionAPI.run { api in
            try await api.send(
                .put, "/v1/sessions/s",
                #"{"state":{"a":1,"b":{"x" : [true]},"a,b":3,"sp ace":4,"é/ü":5,"100%":6,"#
                    + #""big":12345678901234567890.10}}"#
            )
            let all = try await api.send(.get, "/v1/sessions/s/state")
            #expect(all.status == 200 && all.entityTag == #""1""# && all.headers[.cacheControl] == "no-cache")
            #expect(
                all.text == #"{"state":{"100%":6,"a":1,"a,b":3,"b":{"x":[true]},"big":12345678901234567890.10,"#
                    + #""sp ace":4,"é/ü":5},"version":1}"#)
            for (query, state) in [
                ("keys=a,b", #"{"a":1,"b":{"x":[true]}}"#), ("keys=a&keys=b", #"{"a":1,"b":{"x":[true]}}"#),
                ("keys=a%2Cb", #"{"a,b":3}"#), ("keys=a,zz,a", #"{"a":1}"#), ("keys=sp+ace,sp%20ace", #"{"sp ace":4}"#),
                ("keys=%C3%A9%2F%C3%BC,100%25", #"{"é/ü":5,"100%":6}"#), ("keys=zz", "{}"),
            ] {
                #expect(
                    try await api.send(.get, "/v1/sessions/s/state?" + query).json["state"]?.text == state, "\(query)")
            }
            for query in ["keys=", "keys=a,", "keys=%00", "key=a", "keys=" + String(repeating: "a", count: 513)] {
                try await api.send(.get, "/v1/sessions/s/state?" + query).expect(.validationFailed, 422)
            }
            try await api.send(.get, "/v1/sessions/s/state?keys=%zz").expect(.badPercentEncoding, 400)
            for tags in [#""1""#, #"W/"1""#, "*", #""0", "1""#] {
                let answer = try await api.send(.get, "/v1/sessions/s/state", headers: ["If-None-Match": tags])
                #expect(answer.status == 304 && answer.entityTag == #""1""# && answer.text == "", "\(tags)")
            }
            try await api.send(.get, "/v1/sessions/s/state", headers: ["If-Match": #""2""#]).expect(
                .preconditionFailed, 412)
            let head = try await api.send(.head, "/v1/sessions/s/state")
            #expect(head.status == 200 && head.text == "" && head.entityTag == #""1""#)
        }
    }

    @Test func patchingAsOne() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s", #"{"state":{"temp_a":1,"temp_b":2,"c":3}}"#)
            let patched = try await api.send(
                .patch, "/v1/sessions/s/state",
                #"{"set":{"d":null},"set_default":{"c":9,"e":[]},"delete":["zz"],"#
                    + #""delete_prefixes":["temp_"],"keep":["temp_b"]}"#,
                headers: ["If-Match": #""1""#])
            #expect(
                patched.text == #"{"version":2,"initialized_keys":["e"],"removed_keys":["temp_a"],"state_key_count":4,"#
                    + #""state_size_bytes":8}"#)
            #expect(patched.entityTag == #""2""#)
            try await api.send(
                .patch, "/v1/sessions/s/state", #"{"set":{"d":1}}"#, headers: ["If-Match": #""1""#]
            ).expect(.preconditionFailed, 412)
            try await api.send(
                .patch, "/v1/sessions/s/state", #"{"set":{"d":1}}"#, headers: ["If-Match": #"W/"2""#]
            ).expect(.preconditionFailed, 412)
            let weightless = try await api.send(.patch, "/v1/sessions/s/state", "{}", headers: ["If-Match": "*"])
            #expect(weightless.status == 200 && weightless.json["version"] == 2)
            #expect(
                try await api.send(.get, "/v1/sessions/s/state").json["state"]?.text
                    == #"{"c":3,"d":null,"e":[],"temp_b":2}"#)
        }
    }

    @Test func singleValues() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s")
            for (key, value) in [
                ("a", "1.50"), ("n", "null"), ("%C3%A9%2F%2C", #""x""#), ("o", #"{"b":[1]}"#), ("..", "0"),
            ] {
                let path = "/v1/sessions/s/state/\(key)"
                let put = try await api.send(.put, path, " \(value)\n")
                #expect(put.status == 201 && put.text == "", "\(key)")
                let read = try await api.send(.get, path)
                #expect(read.status == 200 && read.text == value && read.headers[.contentType] == "application/json")
                #expect(read.entityTag == put.entityTag)
                #expect(try await api.send(.put, path, value).status == 204)
                #expect(try await api.send(.get, path, headers: ["If-None-Match": read.entityTag!]).status == 304)
                try await api.send(.put, path, "2", headers: ["If-None-Match": "*"]).expect(.preconditionFailed, 412)
                try await api.send(.delete, path, headers: ["If-Match": #""99""#]).expect(.preconditionFailed, 412)
                #expect(try await api.send(.delete, path).status == 204)
                try await api.send(.delete, path).expect(.stateKeyNotFound, 404)
                try await api.send(.get, path).expect(.stateKeyNotFound, 404)
                try await api.send(.put, path, "2", headers: ["If-Match": "*"]).expect(.preconditionFailed, 412)
            }
        }
    }

    @Test func theWholesTagGuardsANewKey() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s")
            let tag = try await api.send(.get, "/v1/sessions/s/state").entityTag!
            let first = try await api.send(.put, "/v1/sessions/s/state/a", "1", headers: ["If-Match": tag])
            #expect(first.status == 201 && first.entityTag == #""2""#)
            try await api.send(.put, "/v1/sessions/s/state/b", "1", headers: ["If-Match": tag])
                .expect(.preconditionFailed, 412)
        }
    }

    @Test func racingConditionalPatchesLoseNoUpdate() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s", #"{"state":{"count":0}}"#)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<8 {
                    group.addTask {
                        var left = 5
                        while left > 0 {
                            let read = try await api.send(.get, "/v1/sessions/s/state?keys=count")
                            let count = try #require(read.json["state"]?["count"]?.integerValue)
                            let patched = try await api.send(
                                .patch, "/v1/sessions/s/state", #"{"set":{"count":\#(count + 1)}}"#,
                                headers: ["If-Match": read.entityTag!])
                            #expect(patched.status == 200 || patched.status == 412)
                            if patched.status == 200 { left -= 1 }
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await api.send(.get, "/v1/sessions/s/state/count").text == "40")
        }
    }

    @Test func boundsHold() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s")
            let full = "\"" + String(repeating: "x", count: Limits.maxStateValueBytes - 2) + "\""
            #expect(try await api.send(.put, "/v1/sessions/s/state/full", full).status == 201)
            let over = "\"" + String(repeating: "x", count: Limits.maxStateValueBytes - 1) + "\""
            try await api.send(.put, "/v1/sessions/s/state/over", over).expect(.payloadTooLarge, 413)
            try await api.send(.patch, "/v1/sessions/s/state", #"{"set":{"a":1,"over":\#(over)}}"#)
                .expect(.payloadTooLarge, 413)
            let many = (0...1000).map { "\"k\($0)\":0" }.joined(separator: ",")
            try await api.send(.patch, "/v1/sessions/s/state", "{\"set\":{\(many)}}").expect(.tooManyKeys, 422)
            try await api.send(.post, "/v1/sessions", "{\"state\":{\(many)}}").expect(.tooManyKeys, 422)
            try await api.send(.put, "/v1/session-templates/t", "{\"defaults\":{\(many)}}").expect(.tooManyKeys, 422)
            let values = (0..<33).map { "\"v\($0)\":\(full)" }.joined(separator: ",")
            try await api.send(.patch, "/v1/sessions/s/state", "{\"set\":{\(values)}}").expect(.payloadTooLarge, 413)
            #expect(try await api.send(.get, "/v1/sessions/s").json["state_key_count"] == 1)
        }
    }
}
