// Sessions as a whole, templates, optimizing and debouncing, as clients see them.

import Domain
import HTTPTypes
import Testing

struct SessionRoutesTests {
    @Test func creatingAndReading() async throws {
        try await SessionAPI.run { api in
            let created = try await api.send(
                .post, "/v1/sessions",
                #"{"id":"ada:1","ttl_seconds":1.5,"metadata":{"user":"ada","n":1.50},"state":{"a":[1, 2]}}"#)
            #expect(created.status == 201)
            #expect(created.headers[.location] == "/v1/sessions/ada:1")
            let now = api.now.rfc3339
            let expires = api.now.advanced(milliseconds: 1500).rfc3339
            #expect(
                created.text
                    == #"{"id":"ada:1","created_at":"\#(now)","last_active_at":"\#(now)","expires_at":"\#(expires)","#
                    + #""ttl_seconds":1.5,"version":1,"template":null,"metadata":{"user":"ada","n":1.50},"#
                    + #""state_key_count":1,"state_size_bytes":5,"history_count":0,"history_size_bytes":0}"#)
            let read = try await api.send(.get, "/v1/sessions/ada:1")
            #expect(read.status == 200 && read.text == created.text)
            let known = try await api.send(
                .get, "/v1/sessions/ada:1", headers: ["If-None-Match": read.entityTag!])
            #expect(known.status == 304 && known.text == "")
            #expect(try await api.send(.head, "/v1/sessions/ada:1").status == 200)
            try await api.send(.post, "/v1/sessions", #"{"id":"ada:1"}"#).expect(.sessionExists, 409)
            let random = try await api.send(.post, "/v1/sessions")
            #expect(random.status == 201 && random.string("id")?.utf8.count == 32)
            #expect(random.json["ttl_seconds"]?.integerValue == 86_400)
            let forever = try await api.send(.post, "/v1/sessions", #"{"ttl_seconds":null}"#)
            #expect(forever.json["expires_at"] == .null && forever.json["ttl_seconds"] == .null)
        }
    }

    @Test func openingAnswersWhatARerunNeeds() async throws {
        try await SessionAPI.run { api in
            let path = "/v1/sessions/tab-7"
            let new = try await api.send(.put, path + "?include=state,history", #"{"defaults":{"volume":0.8}}"#)
            #expect(new.status == 201)
            #expect(new.text.hasSuffix(#""initialized_keys":["volume"],"state":{"volume":0.8},"history":[],"# +
                #""history_next_cursor":null}"#))
            for id in ["a", "b"] { try await api.send(.post, path + "/history", #"{"id":"\#(id)","data":1}"#) }
            let again = try await api.send(.put, path + "?include=history&include=state")
            #expect(again.status == 200 && again.json["state"]?["volume"]?.doubleValue == 0.8)
            let listed = try await api.send(.get, path + "/history")
            #expect(again.json["history"]?.text == listed.json["items"]?.text)
            #expect(again.json["history_count"]?.integerValue == 2)
            let encoded = try await api.send(.put, path + "?include=state%2Chistory")
            #expect(encoded.json["history"]?.text == again.json["history"]?.text && encoded.json["state"] != nil)
            let half = try await api.send(.put, path + "?include=state")
            #expect(half.json["state"] != nil && half.json["history"] == nil)
            #expect(half.json["history_next_cursor"] == nil)
            for wrong in ["include=metadata", "include=", "include=state,", "includes=state"] {
                try await api.send(.put, path + "?" + wrong).expect(.validationFailed, 422)
            }
        }
    }

    @Test func aLongHistoryIsContinued() async throws {
        try await SessionAPI.run { api in
            let path = "/v1/sessions/s"
            try await api.send(.put, path, #"{"max_history_items":2000}"#)
            let count = Limits.maxPageItems + 5
            for number in 0..<count { try await api.send(.post, path + "/history", #"{"data":\#(number)}"#) }
            let opened = try await api.send(.put, path + "?include=history")
            guard case .array(let items)? = opened.json["history"] else {
                Issue.record("no history")
                return
            }
            #expect(items.count == Limits.maxPageItems && items[0]["data"]?.integerValue == Int64(count - 1))
            let cursor = try #require(opened.string("history_next_cursor"))
            let rest = try await api.send(.get, path + "/history?cursor=" + cursor)
            guard case .array(let older)? = rest.json["items"] else {
                Issue.record("no items")
                return
            }
            #expect(older.map { $0["data"]?.integerValue } == [4, 3, 2, 1, 0])
        }
    }

    @Test func writesThatMayCreate() async throws {
        try await SessionAPI.run { api in
            let writes = [
                (HTTPRequest.Method.patch, "/v1/sessions/a/state", #"{"set":{"k":1}}"#),
                (.post, "/v1/sessions/b/history", #"{"data":1}"#),
                (.post, "/v1/sessions/c/debounce/click", "{}"),
            ]
            for (method, path, body) in writes {
                try await api.send(method, path, body).expect(.sessionNotFound, 404)
                try await api.send(method, path + "?create=false", body).expect(.sessionNotFound, 404)
                try await api.send(method, path + "?create=yes", body).expect(.validationFailed, 422)
                try await api.send(method, path + "?creat=true", body).expect(.validationFailed, 422)
                let status = try await api.send(method, path + "?create=true", body).status
                #expect(status == 200 || status == 201)
                #expect(try await api.send(method, path, body).status < 300)
            }
            #expect(try await api.send(.get, "/v1/sessions/a").json["ttl_seconds"]?.integerValue == 86_400)
            try await api.send(.put, "/v1/sessions/d/state/k?create=true", "1").expect(.validationFailed, 422)
        }
    }

    /// Reading a session counts as activity, but the reader does not see that as a change.
    @Test func conditionsAreAboutTheSessionBeforeTheLook() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s")
            api.advance(seconds: 1)
            let tag = try #require(await api.send(.get, "/v1/sessions/s").entityTag)
            api.advance(seconds: 1)
            let matched = try await api.send(.get, "/v1/sessions/s", headers: ["If-Match": tag])
            #expect(matched.status == 200 && matched.string("last_active_at") == api.now.rfc3339)
            let newer = try #require(matched.entityTag)
            #expect(newer != tag)
            api.advance(seconds: 1)
            let known = try await api.send(.get, "/v1/sessions/s", headers: ["If-None-Match": newer])
            #expect(known.status == 304 && known.entityTag == newer)
            // That read was activity too.
            let unknown = try await api.send(.get, "/v1/sessions/s", headers: ["If-None-Match": newer])
            #expect(unknown.status == 200)
            try await api.send(.get, "/v1/sessions/s", headers: ["If-Match": tag]).expect(.preconditionFailed, 412)
        }
    }

    @Test func aLifeSlidesAndEnds() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s", #"{"ttl_seconds":10}"#)
            api.advance(seconds: 9)
            let touched = try await api.send(.post, "/v1/sessions/s/touch")
            #expect(touched.status == 200)
            #expect(touched.string("expires_at") == api.now.advanced(milliseconds: 10_000).rfc3339)
            api.advance(seconds: 9)
            #expect(try await api.send(.get, "/v1/sessions/s/state").status == 200)
            api.advance(seconds: 10)
            for (method, path) in [
                (.get, ""), (.get, "/state"), (.get, "/state/a"), (.get, "/history"), (.get, "/history/i"),
                (.delete, ""),
                (.post, "/touch"), (.post, "/optimize"), (.post, "/debounce/d"), (.delete, "/history"), (.head, ""),
            ] as [(HTTPRequest.Method, String)] {
                let answer = try await api.send(method, "/v1/sessions/s" + path)
                #expect(answer.status == 404, "\(method) \(path)")
                if method != .head { answer.expect(.sessionNotFound, 404) }
            }
            #expect(try await api.send(.get, "/v1/sessions").items("id") == [])
            #expect(try await api.send(.put, "/v1/sessions/s").status == 201)
        }
    }

    @Test func openingIsCreatingOrTouching() async throws {
        try await SessionAPI.run { api in
            let body = #"{"id":"s","state":{"a":1},"defaults":{"a":2,"b":null}}"#
            let first = try await api.send(.put, "/v1/sessions/s", body)
            #expect(first.status == 201 && first.headers[.location] == "/v1/sessions/s")
            #expect(first.json["initialized_keys"] == ["b"])
            #expect(first.json["state_key_count"] == 2)
            let again = try await api.send(.put, "/v1/sessions/s", body)
            #expect(again.status == 200 && again.json["initialized_keys"] == [])
            #expect(try await api.send(.delete, "/v1/sessions/s").status == 204)
            try await api.send(.delete, "/v1/sessions/s").expect(.sessionNotFound, 404)
        }
    }

    @Test func listing() async throws {
        try await SessionAPI.run { api in
            for number in 0..<5 {
                try await api.send(.put, "/v1/sessions/s\(number)")
                api.advance(seconds: 1)
            }
            _ = try await api.send(.get, "/v1/sessions/s1/state")
            let first = try await api.send(.get, "/v1/sessions?limit=3")
            #expect(first.items("id") == [#""s1""#, #""s4""#, #""s3""#])
            let next = try #require(first.string("next_cursor"))
            let second = try await api.send(.get, "/v1/sessions?limit=3&cursor=\(next)")
            #expect(second.items("id") == [#""s2""#, #""s0""#] && second.json["next_cursor"] == .null)
            #expect(
                try await api.send(.get, "/v1/sessions?active_within_seconds=1").items("id") == [#""s1""#, #""s4""#])
            for query in ["cursor=x", "limit=0", "limit=501", "active_within_seconds=-1", "unknown=1"] {
                try await api.send(.get, "/v1/sessions?" + query).expect(.validationFailed, 422)
            }
        }
    }

    // MARK: Templates

    @Test func templates() async throws {
        try await SessionAPI.run { api in
            let created = try await api.send(
                .put, "/v1/session-templates/web",
                #"{"defaults":{"b":1.50,"a":null},"ttl_seconds":null,"max_history_items":5}"#)
            let now = api.now.rfc3339
            #expect(created.status == 201)
            #expect(
                created.text
                    == #"{"name":"web","defaults":{"a":null,"b":1.50},"ttl_seconds":null,"max_history_items":5,"#
                    + #""created_at":"\#(now)","updated_at":"\#(now)"}"#)
            let read = try await api.send(.get, "/v1/session-templates/web")
            #expect(read.text == created.text && read.entityTag == created.entityTag)
            let known = ["If-None-Match": read.entityTag!]
            #expect(try await api.send(.get, "/v1/session-templates/web", headers: known).status == 304)
            let replaced = try await api.send(
                .put, "/v1/session-templates/web", #"{"defaults":{"a":1}}"#, headers: ["If-Match": read.entityTag!])
            #expect(replaced.status == 200 && replaced.json["ttl_seconds"] == 86_400)
            #expect(replaced.json["max_history_items"] == 20)
            try await api.send(.put, "/v1/session-templates/web", "{}", headers: ["If-Match": read.entityTag!])
                .expect(.preconditionFailed, 412)
            try await api.send(.put, "/v1/session-templates/web", "{}", headers: ["If-None-Match": "*"])
                .expect(.preconditionFailed, 412)
            try await api.send(.put, "/v1/session-templates/a")
            let list = try await api.send(.get, "/v1/session-templates?limit=1")
            #expect(list.items("name") == [#""a""#])
            let rest = try await api.send(.get, "/v1/session-templates?cursor=\(list.string("next_cursor")!)")
            #expect(rest.items("name") == [#""web""#])
            #expect(try await api.send(.delete, "/v1/session-templates/web").status == 204)
            try await api.send(.delete, "/v1/session-templates/web").expect(.templateNotFound, 404)
            try await api.send(.get, "/v1/session-templates/web").expect(.templateNotFound, 404)
        }
    }

    @Test func aSessionCanBeMadeOnlyOrTouchedOnly() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s", "{}", headers: ["If-Match": "*"])
                .expect(.preconditionFailed, 412)
            try await api.send(.get, "/v1/sessions/s").expect(.sessionNotFound, 404)
            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for number in 0..<20 {
                    group.addTask {
                        try await api.send(
                            .put, "/v1/sessions/s", #"{"state":{"by":\#(number)}}"#, headers: ["If-None-Match": "*"]
                        ).status
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(statuses.sorted() == [201] + Array(repeating: 412, count: 19))
            let again = try await api.send(
                .put, "/v1/sessions/s", #"{"defaults":{"b":1}}"#, headers: ["If-Match": "*"])
            #expect(again.status == 200 && again.json["initialized_keys"] == ["b"])
            try await api.send(.put, "/v1/sessions/s", "{}", headers: ["If-Match": #""1""#])
                .expect(.preconditionFailed, 412)
        }
    }

    @Test func aTemplatesChangeIsSeenThroughItsSessionsTags() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/session-templates/web", #"{"defaults":{"a":1}}"#)
            try await api.send(.put, "/v1/sessions/s", #"{"template":"web"}"#)
            let before = try await api.send(.get, "/v1/sessions/s/state")
            #expect(before.text == #"{"state":{"a":1},"version":1}"#)
            let known = ["If-None-Match": before.entityTag!]
            #expect(try await api.send(.get, "/v1/sessions/s/state", headers: known).status == 304)
            try await api.send(.put, "/v1/session-templates/web", #"{"defaults":{"a":2}}"#)
            let after = try await api.send(.get, "/v1/sessions/s/state", headers: known)
            #expect(after.status == 200 && after.json["state"] == ["a": 2])
            try await api.send(
                .patch, "/v1/sessions/s/state", #"{"set":{"b":1}}"#, headers: ["If-Match": before.entityTag!]
            ).expect(.preconditionFailed, 412)
        }
    }

    // MARK: Optimizing and debouncing

    @Test func optimizing() async throws {
        try await SessionAPI.run { api in
            try await api.send(
                .put, "/v1/sessions/s", #"{"state":{"temp_a":"xx","cache_b":1,"temp_current_generation":2,"c":3}}"#)
            let first = try await api.send(.post, "/v1/sessions/s/optimize")
            #expect(first.text == #"{"history_removed":0,"keys_removed":["temp_a","cache_b"],"freed_bytes":5}"#)
            let second = try await api.send(.post, "/v1/sessions/s/optimize", #"{"keep":[]}"#)
            #expect(second.text == #"{"history_removed":0,"keys_removed":["temp_current_generation"],"freed_bytes":1}"#)
            #expect(try await api.send(.get, "/v1/sessions/s/state").json["state"] == ["c": 3])
        }
    }

    @Test func debouncing() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s")
            let now = api.now.rfc3339
            let first = try await api.send(.post, "/v1/sessions/s/debounce/rerun")
            #expect(first.text == #"{"allowed":true,"retry_after_seconds":0,"last_allowed_at":"\#(now)"}"#)
            api.advance(seconds: 0.2)
            let second = try await api.send(.post, "/v1/sessions/s/debounce/rerun")
            #expect(second.text == #"{"allowed":false,"retry_after_seconds":0.3,"last_allowed_at":"\#(now)"}"#)
            #expect(try await api.send(.post, "/v1/sessions/s/debounce/other").json["allowed"] == true)
            let shorter = try await api.send(.post, "/v1/sessions/s/debounce/rerun", #"{"delay_seconds":0.2}"#)
            #expect(shorter.json["allowed"] == true)
            #expect(
                try await api.send(.post, "/v1/sessions/s/debounce/rerun", #"{"delay_seconds":0}"#).json["allowed"]
                    == true)
            for delay in ["-1", "86401", #""1""#, "true"] {
                try await api.send(.post, "/v1/sessions/s/debounce/rerun", #"{"delay_seconds":\#(delay)}"#)
                    .expect(.validationFailed, 422)
            }
        }
    }

    @Test func ofAHundredRacingClicksOneIsAllowed() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/s")
            let allowed = try await withThrowingTaskGroup(of: Bool.self) { group in
                for _ in 0..<100 {
                    group.addTask { try await api.send(.post, "/v1/sessions/s/debounce/rerun").json["allowed"] == true }
                }
                return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
            }
            #expect(allowed == 1)
        }
    }

    @Test func inactiveSessionsAreRemovedTogether() async throws {
        try await SessionAPI.run { api in
            for id in ["a", "b", "c"] { try await api.send(.put, "/v1/sessions/\(id)", #"{"defaults":{"k":1}}"#) }
            api.advance(seconds: 90.5)
            try await api.send(.get, "/v1/sessions/c")
            let path = "/v1/sessions?inactive_for_seconds="
            #expect(try await api.send(.delete, path + "90.5&dry_run=true").text == #"{"removed":2}"#)
            #expect(try await api.send(.get, "/v1/sessions").items("id").count == 3)
            #expect(try await api.send(.delete, path + "90.501").text == #"{"removed":0}"#)
            let answer = try await api.send(.delete, path + "90.5")
            #expect(answer.status == 200 && answer.text == #"{"removed":2}"#)
            #expect(try await api.send(.get, "/v1/sessions").items("id") == [#""c""#])
            try await api.send(.get, "/v1/sessions/a/state").expect(.sessionNotFound, 404)
            #expect(try await api.send(.delete, path + "90.5").text == #"{"removed":0}"#)
        }
    }

    @Test func nothingIsRemovedWhenTheRemovalIsNotSaidPrecisely() async throws {
        try await SessionAPI.run { api in
            try await api.send(.put, "/v1/sessions/a")
            api.advance(seconds: 60)
            for (query, field) in [
                ("", "inactive_for_seconds"), ("?dry_run=true", "inactive_for_seconds"),
                ("?inactive_for_seconds=", "inactive_for_seconds"),
                ("?inactive_for_seconds=-1", "inactive_for_seconds"),
                ("?inactive_for_seconds=1d", "inactive_for_seconds"),
                ("?inactive_for_seconds=0&inactive_for_seconds=1", "inactive_for_seconds"),
                ("?inactive_for_second=0", "inactive_for_second"), ("?inactive_for_seconds=0&dry_run=1", "dry_run"),
                ("?inactive_for_seconds=0&prefix=a", "prefix"),
            ] {
                let answer = try await api.send(.delete, "/v1/sessions" + query)
                answer.expect(.validationFailed, 422)
                #expect(answer.fields == [field], "\(query)")
            }
            try await api.send(.delete, "/v1/sessions?inactive_for_seconds=0", headers: ["If-Match": #""x""#])
                .expect(.preconditionFailed, 412)
            #expect(try await api.send(.get, "/v1/sessions").items("id") == [#""a""#])
        }
    }

    @Test func racingPutsCreateOneSession() async throws {
        try await SessionAPI.run { api in
            let answers = try await withThrowingTaskGroup(of: SessionAPI.Answer.self) { group in
                for number in 0..<10 {
                    group.addTask {
                        try await api.send(
                            .put, "/v1/sessions/s", #"{"defaults":{"a":\#(number),"b\#(number % 2)":1}}"#)
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(answers.count { $0.status == 201 } == 1)
            #expect(answers.allSatisfy { $0.status == 201 || $0.status == 200 })
            let initialized = answers.flatMap { answer -> [String] in
                guard case .array(let keys) = answer.json["initialized_keys"] else { return [] }
                return keys.compactMap(\.stringValue)
            }
            #expect(initialized.sorted() == ["a", "b0", "b1"])
        }
    }
}
