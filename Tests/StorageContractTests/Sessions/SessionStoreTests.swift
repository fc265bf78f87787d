// The contract of SessionStore: lives, state, templates, debounces, under racing callers too.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct SessionStoreTests {
    // MARK: Creating and opening

    @Test func aSessionIsCreatedOnce() async throws {
        try await SessionFixture.run { fixture, storage in
            let session = try await storage.create(state: ["a": 1, "b": "two"])
            #expect(session.version == 1)
            #expect(session.stateKeyCount == 2 && session.stateSizeBytes == 6)
            #expect(session.timeToLive == .finite(milliseconds: 86_400_000))
            #expect(session.expiresAt == fixture.now.advanced(milliseconds: 86_400_000))
            #expect(session.metadata == JSONText([:]))
            #expect(try await storage.session(.s) == session)
            #expect(await code { try await storage.create() } == .sessionExists)
            #expect(await code { try await storage.session(Name(stored: "other")) } == .sessionNotFound)
        }
    }

    @Test func openingSetsDefaultsWhereAbsent() async throws {
        try await SessionFixture.run { _, storage in
            let draft = SessionDraft(metadata: JSONText(["user": "ada"]), state: stateEntries(["a": 1]))
            let first = try await storage.openSession(
                .s, draft, defaults: stateEntries(["a": 2, "b": 3]), condition: .none)
            #expect(first.isNew && first.initializedKeys == ["b"])
            #expect(try await storage.stateText() == #"{"a":1,"b":3}"#)
            let again = try await storage.openSession(
                .s, SessionDraft(metadata: JSONText([:]), state: stateEntries(["a": 9])),
                defaults: stateEntries(["b": 4, "c": nil]), condition: .none)
            #expect(!again.isNew && again.initializedKeys == ["c"])
            #expect(again.session.version == first.session.version + 1)
            #expect(again.session.metadata == draft.metadata)
            #expect(try await storage.stateText() == #"{"a":1,"b":3,"c":null}"#)
        }
    }

    @Test func openingASessionThatHasAllItsKeysWritesNothing() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.open(defaults: ["a": 1, "b": 2])
            let writes = storage.writer.statistics.operations
            fixture.advance(seconds: 5)
            let opening = try await storage.open(defaults: ["a": 3, "b": 4])
            #expect(!opening.isNew && opening.initializedKeys.isEmpty)
            #expect(opening.session.lastActiveAt == fixture.now)
            let change = try await storage.patch(setDefault: ["a": 5])
            #expect(change.version == 1 && change.initializedKeys.isEmpty && change.stateKeyCount == 2)
            #expect(storage.writer.statistics.operations == writes)
        }
    }

    @Test func lifetimesComeFromSessionThenTemplateThenSetting() async throws {
        try await SessionFixture.run(settings: Settings.with(.sessionTTL, .decimal(100))) { _, storage in
            try await storage.define(ttl: 50)
            #expect(try await storage.create(Name(stored: "a")).timeToLive == .finite(milliseconds: 100_000))
            #expect(
                try await storage.create(Name(stored: "b"), template: .template).timeToLive
                    == .finite(milliseconds: 50_000))
            #expect(
                try await storage.create(Name(stored: "c"), ttl: 7, template: .template).timeToLive
                    == .finite(milliseconds: 7000))
            let forever = try await storage.createSession(Name(stored: "d"), SessionDraft(timeToLive: .never))
            #expect(forever.expiresAt == nil)
            #expect(
                await code { try await storage.create(template: Name(stored: "unknown")) } == .validationFailed)
        }
    }

    // MARK: Expiry

    @Test func expiryAndActivityDecideOnEveryAccess() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(ttl: 10, state: ["a": 1])
            try await storage.append("i")
            for _ in 0..<5 {
                fixture.advance(seconds: 9.999)
                _ = try await storage.stateValue("a", of: .s, condition: .none)
            }
            fixture.advance(seconds: 10)
            #expect(await code { try await storage.session(.s) } == .sessionNotFound)
            #expect(
                await code { try await storage.state(of: .s, keys: nil, condition: .none) } == .sessionNotFound)
            #expect(
                await code { try await storage.stateValue("a", of: .s, condition: .none) } == .sessionNotFound)
            #expect(await code { try await storage.patch(set: ["a": 2]) } == .sessionNotFound)
            #expect(await code { try await storage.append("j") } == .sessionNotFound)
            #expect(await code { try await storage.itemIDs() } == .sessionNotFound)
            #expect(await code { try await storage.optimizeSession(.s, keep: []) } == .sessionNotFound)
            #expect(await code { try await storage.clearHistory(of: .s) } == .sessionNotFound)
            #expect(await code { try await storage.removeSession(.s) } == .sessionNotFound)
            #expect(
                await code { try await storage.debounce(.s, of: .s, delayMilliseconds: 0) } == .sessionNotFound)
            #expect(try await storage.sessions(activeWithinMilliseconds: nil, after: nil, limit: 10).items.isEmpty)
            #expect(try await storage.history(HistoryFilter(), after: nil, limit: 10).items.isEmpty)
        }
    }

    @Test func readsExtendALifeWithoutWriting() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(ttl: 10)
            let writes = storage.writer.statistics.operations
            fixture.advance(seconds: 6)
            _ = try await storage.session(.s)
            fixture.advance(seconds: 6)
            #expect(try await storage.session(.s).lastActiveAt == fixture.now)
            #expect(storage.writer.statistics.operations == writes)
            #expect(storage.backlog().hasCounters)
            try await storage.flushCounters()
            #expect(!storage.backlog().hasCounters)
            #expect(
                try await storage.number("SELECT last_active_at_ms FROM sessions") == fixture.now.milliseconds)
            fixture.advance(seconds: 9)
            _ = try await storage.session(.s)
        }
    }

    @Test func theSweepSparesWhatMemoryKnowsToLive() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(ttl: 10)
            try await storage.create(Name(stored: "idle"), ttl: 10)
            fixture.advance(seconds: 8)
            _ = try await storage.session(.s)
            fixture.advance(seconds: 4)
            // By its row alone the session is expired.
            #expect(try await storage.number("SELECT count(*) FROM sessions WHERE expires_at_ms <= 1800000012000") == 2)
            #expect(try await storage.perform(.sessionExpiry, isDryRun: true) == Removal(removed: 1))
            #expect(try await storage.perform(.sessionExpiry, isDryRun: false) == Removal(removed: 1))
            _ = try await storage.session(.s)
            #expect(try await storage.number("SELECT count(*) FROM sessions") == 1)
        }
    }

    @Test func activityNotedBetweenFlushAndSweepCounts() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(ttl: 10)
            fixture.advance(seconds: 8)
            // As if the read came after the sweep's own flush: noted in memory only.
            _ = try await storage.session(.s)
            fixture.advance(seconds: 4)
            let (removal, isDone) = try await storage.sessionTransaction { try $0.removeExpired() }
            #expect(removal == Removal() && isDone)
            #expect(try await storage.session(.s).timeToLive == .finite(milliseconds: 10_000))
        }
    }

    @Test func anIdIsFreeAtOnceAndItsVersionGoesOn() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(ttl: 10, state: ["old": 1])
            try await storage.append("i")
            try await storage.patch(set: ["old": 2])
            fixture.advance(seconds: 10)
            let session = try await storage.create(ttl: 10)
            #expect(session.version == 3 && session.stateKeyCount == 0 && session.historyCount == 0)
            #expect(try await storage.stateText() == "{}")
            #expect(try await storage.itemIDs() == [])
            #expect(try await storage.number("SELECT count(*) FROM history_items") == 0)
            fixture.advance(seconds: 10)
            _ = try await storage.perform(.sessionExpiry, isDryRun: false)
            #expect(try await storage.create().version == 4)
        }
    }

    @Test func activitySurvivesARestart() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(ttl: 10)
            fixture.advance(seconds: 9)
            _ = try await storage.session(.s)
        } reopened: { fixture, storage in
            fixture.advance(seconds: 9)
            _ = try await storage.session(.s)
        }
    }

    @Test func theDeadlineOfTheNextSessionIsKnown() async throws {
        try await SessionFixture.run { fixture, storage in
            #expect(storage.backlog().nextSessionExpiry == nil)
            try await storage.create(ttl: 10)
            #expect(storage.backlog().nextSessionExpiry == fixture.now.advanced(milliseconds: 10_000))
        } reopened: { fixture, storage in
            #expect(storage.backlog().nextSessionExpiry == fixture.now.advanced(milliseconds: 10_000))
            fixture.advance(seconds: 9)
            _ = try await storage.session(.s)
            _ = try await storage.perform(.sessionExpiry, isDryRun: false)
            #expect(storage.backlog().nextSessionExpiry == fixture.now.advanced(milliseconds: 10_000))
        }
    }

    // MARK: Lists

    @Test func listsByActivityPageByPage() async throws {
        try await SessionFixture.run { fixture, storage in
            for number in 0..<7 {
                try await storage.create(Name(stored: "s\(number)"))
                fixture.advance(seconds: number < 3 ? 0 : 1)
            }
            fixture.advance(seconds: 1)
            _ = try await storage.session(Name(stored: "s2"))
            var ids: [String] = []
            var position: CollectionPosition?
            repeat {
                let page = try await storage.sessions(activeWithinMilliseconds: nil, after: position, limit: 2)
                ids += page.items.map(\.id.rawValue)
                position = page.next
            } while position != nil
            #expect(ids == ["s2", "s6", "s5", "s4", "s3", "s1", "s0"])
            let recent = try await storage.sessions(activeWithinMilliseconds: 2000, after: nil, limit: 10)
            #expect(recent.items.map(\.id.rawValue) == ["s2", "s6"])
        }
    }

    // MARK: State

    @Test func aPatchWorksInItsOrder() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create(state: ["a": 1, "p_1": 1, "p_2": 2, "q": 1, "z": 1])
            let change = try await storage.patch(
                set: ["p_1": 9, "new": 5], setDefault: ["q": 7, "new": 6, "d": nil], delete: ["q", "none", "a"],
                deletePrefixes: ["p_", "z"], keep: ["p_2"])
            #expect(change.initializedKeys == ["d", "q"])
            #expect(change.removedKeys == ["a", "z"])
            #expect(change.version == 2)
            #expect(change.stateKeyCount == 5 && change.stateSizeBytes == 1 + 4 + 1 + 1 + 1)
            #expect(try await storage.stateText() == #"{"d":null,"new":5,"p_1":9,"p_2":2,"q":7}"#)
            #expect(try await storage.stateText(keys: ["q", "absent", "d"]) == #"{"q":7,"d":null}"#)
            try await storage.expectRightFigures()
        }
    }

    @Test func onlyChangesCountTheVersionUp() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create(state: ["a": 1])
            #expect(try await storage.patch().version == 1)
            #expect(try await storage.patch(set: ["a": 1], setDefault: ["a": 2], delete: ["b"]).version == 1)
            #expect(try await storage.setStateValue(stateEntries(["a": 1])[0], of: .s, condition: .none).version == 1)
            #expect(try await storage.patch(set: ["a": 2]).version == 2)
            try await storage.append("i")
            #expect(try await storage.session(.s).version == 2)
            try await storage.removeStateValue("a", of: .s, condition: .none)
            #expect(try await storage.session(.s).version == 3)
            #expect(try await storage.optimizeSession(.s, keep: []).keysRemoved == [])
            #expect(try await storage.session(.s).version == 3)
        }
    }

    @Test func singleValues() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create()
            let entry = StateEntry(key: "k", value: JSONText(.null))
            #expect(try await storage.setStateValue(entry, of: .s, condition: .none) == (isNew: true, version: 2))
            #expect(
                try await storage.stateValue("k", of: .s, condition: .none)
                    == StateValue(version: 2, value: JSONText(.null)))
            let known = EntityCondition(noneMatch: .strong("2"))
            #expect(try await storage.stateValue("k", of: .s, condition: known).value == nil)
            #expect(try await storage.state(of: .s, keys: nil, condition: known).entries == nil)
            #expect(
                await code {
                    try await storage.setStateValue(entry, of: .s, condition: EntityCondition(noneMatch: .any))
                } == .preconditionFailed)
            let stale = EntityCondition(match: .strong("1"))
            #expect(
                await code { try await storage.removeStateValue("k", of: .s, condition: stale) }
                    == .preconditionFailed)
            #expect(
                await code { try await storage.patch(set: ["x": 1], condition: stale) } == .preconditionFailed)
            #expect(
                await code { try await storage.patch(setDefault: ["k": 1], condition: stale) }
                    == .preconditionFailed)
            try await storage.removeStateValue("k", of: .s, condition: EntityCondition(match: .strong("2")))
            #expect(
                await code { try await storage.removeStateValue("k", of: .s, condition: .none) }
                    == .stateKeyNotFound)
            #expect(
                await code { try await storage.stateValue("k", of: .s, condition: .none) } == .stateKeyNotFound)
        }
    }

    @Test func keysThatOnlyLookAlikeAreTwo() async throws {
        try await SessionFixture.run { _, storage in
            let composed: Key = "caf\u{E9}"
            let decomposed: Key = "cafe\u{301}"
            try await storage.create()
            let one = JSONText(1)
            let patch = StatePatch(set: [
                StateEntry(key: composed, value: one), StateEntry(key: decomposed, value: one),
            ])
            #expect(try await storage.patchState(of: .s, patch, condition: .none).stateKeyCount == 2)
            let replacing = StatePatch(set: [StateEntry(key: composed, value: one)], delete: [decomposed])
            #expect(
                try await storage.patchState(of: .s, replacing, condition: .none).removedKeys == [decomposed])
        }
    }

    @Test func boundsHoldAndNothingIsStored() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create(state: ["a": 1])
            let many = Dictionary(uniqueKeysWithValues: (0..<1000).map { ("k\($0)", JSON.integer($0)) })
            #expect(await code { try await storage.patch(set: many) } == .tooManyKeys)
            #expect(await code { try await storage.open(defaults: many) } == .tooManyKeys)
            #expect(
                await code {
                    try await storage.create(Name(stored: "t"), state: many.merging(["x": 1]) { a, _ in a })
                }
                    == .tooManyKeys)
            #expect(await code { try await storage.session(Name(stored: "t")) } == .sessionNotFound)
            let large = JSON.text(bytes: Limits.maxStateValueBytes)
            let tooLarge = JSON.text(bytes: Limits.maxStateValueBytes + 1)
            #expect(await code { try await storage.patch(set: ["b": 1, "l": tooLarge]) } == .payloadTooLarge)
            let full = Dictionary(uniqueKeysWithValues: (0..<32).map { ("l\($0)", large) })
            #expect(await code { try await storage.patch(set: full) } == .payloadTooLarge)
            #expect(try await storage.stateText() == #"{"a":1}"#)
            #expect(try await storage.patch(set: full, delete: ["a"]).stateSizeBytes == Limits.maxStateBytes)
            #expect(await code { try await storage.patch(set: ["b": 1]) } == .payloadTooLarge)
            try await storage.patch(set: ["b": 1], delete: ["l0"])
            try await storage.expectRightFigures()
        }
    }

    @Test func figuresFollowWhateverChangesRows() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.define(defaults: ["d": "default", "temp_d": 1])
            try await storage.create(template: .template)
            var seed: UInt64 = 7
            func random(_ bound: UInt64) -> Int {
                seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Int((seed >> 33) % bound)
            }
            let prefixes = ["temp_", "cache_", "k", "tempX", "d"]
            for _ in 0..<200 {
                let key = prefixes[random(5)] + "\(random(4))"
                switch random(5) {
                case 0: try await storage.patch(delete: [Key(stored: key)])
                case 1: try await storage.patch(deletePrefixes: [prefixes[random(5)]])
                case 2: try await storage.append("i\(random(30))", data: .text(bytes: 2 + random(50)))
                default: try await storage.patch(set: [key: .text(bytes: 2 + random(300))])
                }
            }
            try await storage.expectRightFigures()
            let session = try await storage.session(.s)
            let state = try await storage.state(of: .s, keys: nil, condition: .none).entries!
            #expect(session.stateKeyCount == state.count)
            #expect(session.stateSizeBytes == state.reduce(0) { $0 + $1.value.sizeBytes })
            try await storage.execute(
                """
                UPDATE session_state SET key = 'temp_' || key, value = '"é"';
                UPDATE history_items SET data = '[]';
                DELETE FROM history_items WHERE item_ref % 2 = 0;
                UPDATE session_template_defaults SET value = '"longer than before"';
                """)
            try await storage.expectRightFigures()
        }
    }

    // MARK: Templates

    @Test func defaultsAreResolvedAndCostNoRows() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.define(defaults: ["a": 1, "b": "two", "n": nil])
            let opening = try await storage.open(template: .template, defaults: ["a": 9, "c": 3])
            #expect(opening.initializedKeys == ["c"])
            #expect(opening.session.stateKeyCount == 4 && opening.session.stateSizeBytes == 1 + 5 + 4 + 1)
            #expect(try await storage.stateText() == #"{"a":1,"b":"two","c":3,"n":null}"#)
            #expect(try await storage.number("SELECT count(*) FROM session_state") == 1)
            #expect(try await storage.setStateValue(stateEntries(["b": 2])[0], of: .s, condition: .none).isNew == false)
            let changed = try await storage.session(.s)
            #expect(changed.stateKeyCount == 4 && changed.stateSizeBytes == 7)
            let change = try await storage.patch(delete: ["a", "b"])
            #expect(change.removedKeys == ["b"] && change.stateKeyCount == 4)
            #expect(try await storage.stateText() == #"{"a":1,"b":"two","c":3,"n":null}"#)
            #expect(
                await code { try await storage.removeStateValue("a", of: .s, condition: .none) }
                    == .stateKeyNotFound)
        }
    }

    @Test func changedTemplatesApplyAtOnceAndCountVersionsUp() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.define(defaults: ["a": 1])
            try await storage.create(template: .template)
            var versions = [try await storage.session(.s).version]
            func next(_ state: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
                #expect(try await storage.stateText() == state, sourceLocation: sourceLocation)
                versions.append(try await storage.session(.s).version)
            }
            #expect(versions == [1])
            try await storage.define(defaults: ["a": 2, "b": 3])
            try await next(#"{"a":2,"b":3}"#)
            try await storage.patch(set: ["x": 1])
            try await next(#"{"a":2,"b":3,"x":1}"#)
            try await storage.removeTemplate(.template, condition: .none)
            try await next(#"{"x":1}"#)
            #expect(try await storage.session(.s).template == .template)
            #expect(await code { try await storage.template(.template) } == .templateNotFound)
            #expect(try await storage.templates(after: nil, limit: 10).items.isEmpty)
            #expect(
                await code { try await storage.create(Name(stored: "t"), template: .template) }
                    == .validationFailed)
            try await storage.define(defaults: ["a": 4])
            try await next(#"{"a":4,"x":1}"#)
            #expect(versions == versions.sorted() && Set(versions).count == versions.count, "\(versions)")
            let unchanged = try await storage.define(defaults: ["a": 4])
            #expect(try await storage.template(.template) == unchanged)
            #expect(try await storage.session(.s).version == versions.last)
            // What a deleted template leaves behind goes with its last session.
            try await storage.removeTemplate(.template, condition: .none)
            #expect(try await storage.number("SELECT count(*) FROM session_templates") == 1)
            try await storage.removeSession(.s)
            _ = try await storage.perform(.sessionExpiry, isDryRun: false)
            #expect(try await storage.number("SELECT count(*) FROM session_templates") == 0)
        }
    }

    @Test func templatesAreListedAndConditional() async throws {
        try await SessionFixture.run { fixture, storage in
            for name in ["b", "a", "c"] { try await storage.define(Name(stored: name), defaults: ["k": .string(name)]) }
            let (items, next) = try await storage.templates(after: nil, limit: 2)
            #expect(items.map(\.name.rawValue) == ["a", "b"] && next?.rawValue == "b")
            #expect(try await storage.templates(after: "b", limit: 2).items.map(\.name.rawValue) == ["c"])
            let stale = EntityCondition(match: .strong(items[0].tag))
            fixture.advance(seconds: 1)
            let (changed, isNew) = try await storage.setTemplate(
                SessionTemplateDraft(defaults: stateEntries(["k": 2])), of: items[0].name, condition: stale)
            #expect(!isNew && changed.tag != items[0].tag)
            #expect(changed.createdAt == items[0].createdAt && changed.updatedAt == fixture.now)
            #expect(
                await code {
                    try await storage.setTemplate(SessionTemplateDraft(), of: items[0].name, condition: stale)
                } == .preconditionFailed)
            #expect(
                await code { try await storage.removeTemplate(items[0].name, condition: stale) }
                    == .preconditionFailed)
            try await storage.removeTemplate(items[0].name, condition: .none)
            #expect(
                await code { try await storage.removeTemplate(items[0].name, condition: .none) }
                    == .templateNotFound)
            let again = try await storage.define(items[0].name, defaults: ["k": .string("a")])
            #expect(again.tag != items[0].tag, "another template of the same name and content has another tag")
        }
    }

    @Test func templatesAreBounded() async throws {
        try await SessionFixture.run { _, storage in
            for number in 0..<Limits.maxTemplates { try await storage.define(Name(stored: "t\(number)")) }
            #expect(await code { try await storage.define() } == .tooManyTemplates)
            try await storage.define(Name(stored: "t0"), defaults: ["a": 1])
            try await storage.removeTemplate(Name(stored: "t1"), condition: .none)
            try await storage.define()
            let many = Dictionary(uniqueKeysWithValues: (0...1000).map { ("k\($0)", JSON.integer($0)) })
            #expect(await code { try await storage.define(defaults: many) } == .tooManyKeys)
        }
    }

    @Test func aStateOverItsBoundsThroughItsTemplateMayShrink() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.define()
            let own = Dictionary(uniqueKeysWithValues: (0..<600).map { ("own\($0)", JSON.integer($0)) })
            try await storage.create(template: .template, state: own)
            try await storage.define(
                defaults: Dictionary(uniqueKeysWithValues: (0..<600).map { ("default\($0)", JSON.integer($0)) }))
            #expect(try await storage.session(.s).stateKeyCount == 1200)
            #expect(await code { try await storage.patch(set: ["more": 1]) } == .tooManyKeys)
            try await storage.patch(set: ["own1": 5])
            #expect(try await storage.patch(delete: ["own1"]).stateKeyCount == 1199)
        }
    }

    // MARK: Optimizing and removing

    @Test func optimizingRemovesWhatCanBeComputedAgain() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(
                state: [
                    "temp_a": "xx", "cache_b": 1, "temp_current_generation": 1, "temperature": 1, "a_temp_": 1,
                    "cache": 1,
                ])
            for number in 0..<5 { try await storage.append("i\(number)", data: .text(bytes: 10)) }
            #expect(fixture.settings.apply(SettingOverrides(values: ["max_history_items": "2"], version: 1)).isEmpty)
            let done = try await storage.optimizeSession(.s, keep: [TemporaryKeys.keptByDefault])
            #expect(done == SessionOptimization(historyRemoved: 3, keysRemoved: ["temp_a", "cache_b"], freedBytes: 35))
            #expect(try await storage.itemIDs() == ["i4", "i3"])
            #expect(
                try await storage.stateText() == #"{"a_temp_":1,"cache":1,"temp_current_generation":1,"temperature":1}"#
            )
            let all = try await storage.optimizeSession(.s, keep: [])
            #expect(all.keysRemoved == [TemporaryKeys.keptByDefault] && all.historyRemoved == 0)
            try await storage.expectRightFigures()
        }
    }

    @Test func removingTakesEverythingAlong() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create(state: ["a": 1])
            try await storage.append("i")
            _ = try await storage.debounce(.s, of: .s, delayMilliseconds: 500)
            try await storage.removeSession(.s)
            #expect(await code { try await storage.removeSession(.s) } == .sessionNotFound)
            #expect(
                try await storage.number(
                    """
                    SELECT (SELECT count(*) FROM sessions) + (SELECT count(*) FROM session_state)
                        + (SELECT count(*) FROM history_items) + (SELECT count(*) FROM debounce_marks)
                    """) == 0)
        }
    }

    @Test func aLargeSessionGoesAtOnceForEverybodyAndStepByStepFromTheFile() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(cap: 10_000, state: ["a": 1])
            try await storage.execute(
                """
                WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000)
                INSERT INTO history_items (session_ref, id, created_at_ms, updated_at_ms, data)
                SELECT 1, 'i' || n, 1800000000000, 1800000000000, '[1,2,3]' FROM numbers
                """)
            try await storage.removeSession(.s)
            #expect(await code { try await storage.session(.s) } == .sessionNotFound)
            #expect(try await storage.history(HistoryFilter(), after: nil, limit: 10).items.isEmpty)
            #expect(try await storage.number("SELECT count(*) FROM history_items") == 3000)
            try await storage.create()
            #expect(try await storage.itemIDs() == [])
            #expect(storage.backlog().nextSessionExpiry.map { $0 <= fixture.now } == true)
            let expected = Removal(removed: 1, freedBytes: 3000 * 7 + 1)
            #expect(try await storage.perform(.sessionExpiry, isDryRun: true) == expected)
            #expect(try await storage.perform(.sessionExpiry, isDryRun: false) == expected)
            #expect(try await storage.number("SELECT count(*) FROM history_items") == 0)
            #expect(try await storage.number("SELECT count(*) FROM sessions") == 1)
        }
    }

    // MARK: Racing

    @Test func racingOpensCreateOneSessionAndInitializeEachDefaultOnce() async throws {
        try await SessionFixture.run { _, storage in
            for round in 0..<20 {
                let id = Name(stored: "r\(round)")
                let openings = try await withThrowingTaskGroup(of: SessionOpening.self) { group in
                    for caller in 0..<8 {
                        group.addTask {
                            try await storage.open(id, defaults: ["a": .integer(caller), "b\(caller % 2)": 1])
                        }
                    }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                #expect(openings.count { $0.isNew } == 1)
                for key in ["a", "b0", "b1"] as [Key] {
                    #expect(openings.count { $0.initializedKeys.contains(key) } == 1, "\(key)")
                }
                #expect(try await storage.session(id).stateKeyCount == 3)
            }
        }
    }

    @Test func racingConditionalPatchesLoseNoUpdate() async throws {
        try await SessionFixture.run { _, storage in
            try await storage.create(state: ["count": 0])
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<10 {
                    group.addTask {
                        var left = 10
                        while left > 0 {
                            let state = try await storage.state(of: .s, keys: ["count"], condition: .none)
                            let count = try state.entries![0].value.parsed().integerValue!
                            do {
                                try await storage.patch(
                                    set: ["count": .integer(count + 1)],
                                    condition: EntityCondition(match: .strong(String(state.version))))
                                left -= 1
                            } catch let failure as Failure where failure.code == .preconditionFailed {}
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await storage.stateText() == #"{"count":100}"#)
            #expect(try await storage.session(.s).version == 101)
        }
    }

    @Test func racingDebouncesAllowOne() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create()
            for round in 0..<3 {
                let decisions = try await withThrowingTaskGroup(of: DebounceDecision.self) { group in
                    for _ in 0..<100 {
                        group.addTask { try await storage.debounce(.s, of: .s, delayMilliseconds: 500) }
                    }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                #expect(decisions.count { $0.isAllowed } == 1, "round \(round)")
                #expect(decisions.allSatisfy { $0.lastAllowedAt == fixture.now })
                #expect(decisions.allSatisfy { $0.isAllowed || $0.retryAfterMilliseconds == 500 })
                fixture.advance(seconds: 0.5)
            }
        }
    }

    // MARK: Debounces

    @Test func debouncesAreRememberedThenForgotten() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create()
            let start = fixture.now
            #expect(try await storage.debounce(.s, of: .s, delayMilliseconds: 500).isAllowed)
            fixture.advance(seconds: 3599)
            let long = try await storage.debounce(.s, of: .s, delayMilliseconds: 86_400_000)
            #expect(!long.isAllowed && long.lastAllowedAt == start && long.retryAfterMilliseconds == 82_801_000)
            #expect(try await storage.perform(.debounceMarks, isDryRun: true) == Removal())
            fixture.advance(seconds: 1)
            #expect(try await storage.perform(.debounceMarks, isDryRun: true) == Removal(removed: 1))
            #expect(try await storage.perform(.debounceMarks, isDryRun: false) == Removal(removed: 1))
            #expect(try await storage.number("SELECT count(*) FROM debounce_marks") == 0)
            #expect(try await storage.debounce(.s, of: .s, delayMilliseconds: 86_400_000).isAllowed)
        }
    }

    @Test func aSessionRemembersABoundedNumberOfDebounces() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create()
            for number in 0...Limits.maxDebounceMarks {
                _ = try await storage.debounce(Name(stored: "d\(number)"), of: .s, delayMilliseconds: 10_000_000)
                fixture.advance(seconds: 0.001)
            }
            #expect(try await storage.number("SELECT count(*) FROM debounce_marks") == 1000)
            #expect(
                try await storage.debounce(Name(stored: "d1"), of: .s, delayMilliseconds: 10_000_000).isAllowed == false
            )
            #expect(try await storage.debounce(Name(stored: "d0"), of: .s, delayMilliseconds: 10_000_000).isAllowed)
        }
    }

    // MARK: Cleanup

    @Test func temporaryKeysOfIdleSessionsGo() async throws {
        try await SessionFixture.run(settings: Settings.with(.cleanupInterval, .decimal(60))) { fixture, storage in
            let state: [String: JSON] = ["temp_a": "xx", "cache_b": 1, "temp_current_generation": 1, "a": 1]
            for name in ["idle", "read", "expired"] {
                try await storage.create(Name(stored: name), ttl: name == "expired" ? 30 : nil, state: state)
            }
            fixture.advance(seconds: 59)
            _ = try await storage.session(Name(stored: "read"))
            #expect(try await storage.perform(.stateTemporaries, isDryRun: false) == Removal())
            fixture.advance(seconds: 1)
            let expected = Removal(removed: 2, freedBytes: 5)
            #expect(try await storage.perform(.stateTemporaries, isDryRun: true) == expected)
            #expect(try await storage.perform(.stateTemporaries, isDryRun: false) == expected)
            #expect(try await storage.perform(.stateTemporaries, isDryRun: false) == Removal())
            #expect(try await storage.stateText(Name(stored: "idle")) == #"{"a":1,"temp_current_generation":1}"#)
            #expect(try await storage.session(Name(stored: "idle")).version == 2)
            #expect(try await storage.session(Name(stored: "read")).version == 1)
            try await storage.expectRightFigures()
        }
    }

    @Test func aDryRunOfAllTasksTellsWhatARunRemoves() async throws {
        try await SessionFixture.run(settings: Settings.with(.cleanupInterval, .decimal(60))) { fixture, storage in
            try await storage.define(cap: 6)
            for number in 0..<150 {
                let id = Name(stored: "s\(number)")
                try await storage.create(
                    id, ttl: number % 3 == 0 ? 50 : nil, template: number % 2 == 0 ? .template : nil,
                    cap: number % 5 == 0 ? 8 : nil,
                    state: ["temp_x": .text(bytes: 2 + number), "k": 1, "temp_current_generation": 1])
                for item in 0..<7 { try await storage.append("i\(item)", data: .text(bytes: 2 + item), to: id) }
                _ = try await storage.debounce(.s, of: id, delayMilliseconds: 1)
            }
            fixture.advance(seconds: 4000)
            fixture.settings.apply(SettingOverrides(values: ["max_history_items": "3"], version: 1))
            try await storage.define(cap: 2)
            let tasks: [MaintenanceTask] = [.sessionExpiry, .historyCaps, .stateTemporaries, .debounceMarks]
            var announced: [Removal] = []
            for task in tasks { announced.append(try await storage.perform(task, isDryRun: true)) }
            #expect(try await storage.number("SELECT count(*) FROM sessions") == 150)
            var removed: [Removal] = []
            for task in tasks { removed.append(try await storage.perform(task, isDryRun: false)) }
            #expect(announced == removed)
            #expect(removed.allSatisfy { $0.removed > 0 })
            for task in tasks { #expect(try await storage.perform(task, isDryRun: false) == Removal(), "\(task)") }
            let wrong = try await storage.number(
                """
                SELECT count(*) FROM sessions
                WHERE history_count > coalesce(max_history_items, 3) OR (max_history_items = 8 AND history_count <> 7)
                """)
            #expect(wrong == 0)
            try await storage.expectRightFigures()
        }
    }

    @Test func manyExpiredSessionsGoWhileOthersAreUsed() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.create(state: ["a": 1])
            for number in 0..<300 { try await storage.create(Name(stored: "e\(number)"), ttl: 1, state: ["b": 2]) }
            fixture.advance(seconds: 1)
            async let sweep = storage.perform(.sessionExpiry, isDryRun: false)
            for number in 0..<50 { try await storage.patch(set: ["a": .integer(number)]) }
            #expect(try await sweep == Removal(removed: 300, freedBytes: 300))
            #expect(try await storage.number("SELECT count(*) FROM sessions") == 1)
            #expect(try await storage.number("SELECT count(*) FROM session_state") == 1)
        }
    }

    @Test func viewsTellISOTimesAndResolvedFigures() async throws {
        try await SessionFixture.run { fixture, storage in
            try await storage.define(defaults: ["a": 1, "b": 2])
            try await storage.create(ttl: 10, template: .template, state: ["a": 10])
            try await storage.append("i", kind: "k", data: [1])
            let row = try await storage.writer.perform { connection in
                try connection.first(
                    """
                    SELECT s.session_id, s.created_at, s.expires_at, s.version, s.state_key_count, s.state_size_bytes,
                        h.item_id, h.created_at
                    FROM session_overview s JOIN history_overview h USING (session_id)
                    """
                ) { row in
                    "\(row.text(0)) \(row.text(1)) \(row.text(2)) \(row.int(3)) \(row.int(4)) \(row.int(5)) "
                        + "\(row.text(6)) \(row.text(7))"
                }
            }
            let created = fixture.now.rfc3339
            let expires = fixture.now.advanced(milliseconds: 10_000).rfc3339
            #expect(row == "s \(created) \(expires) 1 2 3 i \(created)")
        }
    }
}
