// The contract of SessionStore, run over every storage engine: lives, state, templates, debounces, racing callers.

import Domain
import TestSupport
import Testing

struct SessionStoreTests {
    // MARK: Creating and opening

    @Test(arguments: Engine.allCases)
    func aSessionIsCreatedOnce(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            let session = try await store.create(state: ["a": 1, "b": "two"])
            #expect(session.version == 1)
            #expect(session.stateKeyCount == 2 && session.stateSizeBytes == 6)
            #expect(session.timeToLive == .finite(milliseconds: 86_400_000))
            #expect(session.expiresAt == clock.now.advanced(milliseconds: 86_400_000))
            #expect(session.metadata == JSONText([:]))
            #expect(try await store.session(.s) == session)
            #expect(await code { try await store.create() } == .sessionExists)
            #expect(await code { try await store.session(Name(stored: "other")) } == .sessionNotFound)
        }
    }

    @Test(arguments: Engine.allCases)
    func openingSetsDefaultsWhereAbsent(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            let draft = SessionDraft(metadata: JSONText(["user": "ada"]), state: stateEntries(["a": 1]))
            let first = try await store.openSession(
                .s, draft, defaults: stateEntries(["a": 2, "b": 3]), condition: .none)
            #expect(first.isNew && first.initializedKeys == ["b"])
            #expect(try await store.stateText() == #"{"a":1,"b":3}"#)
            let again = try await store.openSession(
                .s, SessionDraft(metadata: JSONText([:]), state: stateEntries(["a": 9])),
                defaults: stateEntries(["b": 4, "c": nil]), condition: .none)
            #expect(!again.isNew && again.initializedKeys == ["c"])
            #expect(again.session.version == first.session.version + 1)
            #expect(again.session.metadata == draft.metadata)
            #expect(try await store.stateText() == #"{"a":1,"b":3,"c":null}"#)
        }
    }

    @Test(arguments: Engine.allCases)
    func openingASessionThatHasAllItsKeysWritesNothing(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.open(defaults: ["a": 1, "b": 2])
            let writes = await store.operationalFigures().writes
            clock.advance(seconds: 5)
            let opening = try await store.open(defaults: ["a": 3, "b": 4])
            #expect(!opening.isNew && opening.initializedKeys.isEmpty)
            #expect(opening.session.lastActiveAt == clock.now)
            let change = try await store.patch(setDefault: ["a": 5])
            #expect(change.version == 1 && change.initializedKeys.isEmpty && change.stateKeyCount == 2)
            #expect(await store.operationalFigures().writes == writes)
        }
    }

    @Test(arguments: Engine.allCases)
    func lifetimesComeFromSessionThenTemplateThenSetting(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.sessionTTL, .decimal(100))) { store, _ async throws in
            try await store.define(ttl: 50)
            #expect(try await store.create(Name(stored: "a")).timeToLive == .finite(milliseconds: 100_000))
            #expect(
                try await store.create(Name(stored: "b"), template: .template).timeToLive
                    == .finite(milliseconds: 50_000))
            #expect(
                try await store.create(Name(stored: "c"), ttl: 7, template: .template).timeToLive
                    == .finite(milliseconds: 7000))
            let forever = try await store.createSession(Name(stored: "d"), SessionDraft(timeToLive: .never))
            #expect(forever.expiresAt == nil)
            #expect(
                await code { try await store.create(template: Name(stored: "unknown")) } == .validationFailed)
        }
    }

    // MARK: Expiry

    @Test(arguments: Engine.allCases)
    func expiryAndActivityDecideOnEveryAccess(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create(ttl: 10, state: ["a": 1])
            try await store.append("i")
            for _ in 0..<5 {
                clock.advance(seconds: 9.999)
                _ = try await store.stateValue("a", of: .s, condition: .none)
            }
            clock.advance(seconds: 10)
            #expect(await code { try await store.session(.s) } == .sessionNotFound)
            #expect(
                await code { try await store.state(of: .s, keys: nil, condition: .none) } == .sessionNotFound)
            #expect(
                await code { try await store.stateValue("a", of: .s, condition: .none) } == .sessionNotFound)
            #expect(await code { try await store.patch(set: ["a": 2]) } == .sessionNotFound)
            #expect(await code { try await store.append("j") } == .sessionNotFound)
            #expect(await code { try await store.itemIDs() } == .sessionNotFound)
            #expect(await code { try await store.optimizeSession(.s, keep: []) } == .sessionNotFound)
            #expect(await code { try await store.clearHistory(of: .s) } == .sessionNotFound)
            #expect(await code { try await store.removeSession(.s) } == .sessionNotFound)
            #expect(
                await code { try await store.debounce(.s, of: .s, delayMilliseconds: 0) } == .sessionNotFound)
            #expect(try await store.sessions(activeWithinMilliseconds: nil, after: nil, limit: 10).items.isEmpty)
            #expect(try await store.history(HistoryFilter(), after: nil, limit: 10).items.isEmpty)
        }
    }

    @Test(arguments: Engine.allCases)
    func aWriteKnowsOfReadsThatAreNotWrittenYet(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            try await store.create(ttl: 10)
            for round in 1...3 {
                clock.advance(seconds: 6)
                _ = try await store.session(.s)
                clock.advance(seconds: 6)
                try await store.patch(set: ["round": .integer(round)])
                clock.advance(seconds: 6)
                _ = try await store.session(.s)
                clock.advance(seconds: 6)
                try await store.append("i\(round)")
            }
            #expect(await code { try await store.create() } == .sessionExists)
        }
    }

    @Test(arguments: Engine.allCases)
    func readsExtendALifeWithoutWriting(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create(ttl: 10)
            let writes = await store.operationalFigures().writes
            clock.advance(seconds: 6)
            _ = try await store.session(.s)
            clock.advance(seconds: 6)
            #expect(try await store.session(.s).lastActiveAt == clock.now)
            #expect(await store.operationalFigures().writes == writes)
            #expect(store.backlog().hasCounters)
            try await store.flushCounters()
            #expect(!store.backlog().hasCounters)
            clock.advance(seconds: 9)
            _ = try await store.session(.s)
        }
    }

    @Test(arguments: Engine.allCases)
    func theSweepSparesWhatMemoryKnowsToLive(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create(ttl: 10)
            try await store.create(Name(stored: "idle"), ttl: 10)
            clock.advance(seconds: 8)
            _ = try await store.session(.s)
            clock.advance(seconds: 4)
            #expect(try await store.perform(.sessionExpiry, isDryRun: true) == Removal(removed: 1))
            #expect(try await store.perform(.sessionExpiry, isDryRun: false) == Removal(removed: 1))
            _ = try await store.session(.s)
            #expect(await code { try await store.session(Name(stored: "idle")) } == .sessionNotFound)
        }
    }

    @Test(arguments: Engine.allCases)
    func anIdIsFreeAtOnceAndItsVersionGoesOn(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create(ttl: 10, state: ["old": 1])
            try await store.append("i")
            try await store.patch(set: ["old": 2])
            clock.advance(seconds: 10)
            let session = try await store.create(ttl: 10)
            #expect(session.version == 3 && session.stateKeyCount == 0 && session.historyCount == 0)
            #expect(try await store.stateText() == "{}")
            #expect(try await store.itemIDs() == [])
            clock.advance(seconds: 10)
            _ = try await store.perform(.sessionExpiry, isDryRun: false)
            #expect(try await store.create().version == 4)
        }
    }

    @Test(arguments: Engine.allCases)
    func activitySurvivesARestart(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create(ttl: 10)
            clock.advance(seconds: 9)
            _ = try await store.session(.s)
        } reopened: { store, clock async throws in
            clock.advance(seconds: 9)
            _ = try await store.session(.s)
        }
    }

    @Test(arguments: Engine.allCases)
    func theDeadlineOfTheNextSessionIsKnown(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            #expect(store.backlog().deadlines[.sessionExpiry] == nil)
            try await store.create(ttl: 10)
            #expect(store.backlog().deadlines[.sessionExpiry] == clock.now.advanced(milliseconds: 10_000))
        } reopened: { store, clock async throws in
            #expect(store.backlog().deadlines[.sessionExpiry] == clock.now.advanced(milliseconds: 10_000))
            clock.advance(seconds: 9)
            _ = try await store.session(.s)
            _ = try await store.perform(.sessionExpiry, isDryRun: false)
            #expect(store.backlog().deadlines[.sessionExpiry] == clock.now.advanced(milliseconds: 10_000))
        }
    }

    // MARK: Lists

    @Test(arguments: Engine.allCases)
    func listsByActivityPageByPage(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            for number in 0..<7 {
                try await store.create(Name(stored: "s\(number)"))
                clock.advance(seconds: number < 3 ? 0 : 1)
            }
            clock.advance(seconds: 1)
            _ = try await store.session(Name(stored: "s2"))
            var ids: [String] = []
            var position: CollectionPosition?
            repeat {
                let page = try await store.sessions(activeWithinMilliseconds: nil, after: position, limit: 2)
                ids += page.items.map(\.id.rawValue)
                position = page.next
            } while position != nil
            #expect(ids == ["s2", "s6", "s5", "s4", "s3", "s1", "s0"])
            let recent = try await store.sessions(activeWithinMilliseconds: 2000, after: nil, limit: 10)
            #expect(recent.items.map(\.id.rawValue) == ["s2", "s6"])
        }
    }

    // MARK: State

    @Test(arguments: Engine.allCases)
    func aPatchWorksInItsOrder(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.create(state: ["a": 1, "p_1": 1, "p_2": 2, "q": 1, "z": 1])
            let change = try await store.patch(
                set: ["p_1": 9, "new": 5], setDefault: ["q": 7, "new": 6, "d": nil], delete: ["q", "none", "a"],
                deletePrefixes: ["p_", "z"], keep: ["p_2"])
            #expect(change.initializedKeys == ["d", "q"])
            #expect(change.removedKeys == ["a", "z"])
            #expect(change.version == 2)
            #expect(change.stateKeyCount == 5 && change.stateSizeBytes == 1 + 4 + 1 + 1 + 1)
            #expect(try await store.stateText() == #"{"d":null,"new":5,"p_1":9,"p_2":2,"q":7}"#)
            #expect(try await store.stateText(keys: ["q", "absent", "d"]) == #"{"q":7,"d":null}"#)
        }
    }

    /// A key that one patch deletes and sets is replaced, not removed; with the same value, nothing has changed.
    @Test(arguments: Engine.allCases)
    func aKeyDeletedAndSetIsReplaced(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            try await store.create(state: ["a": 1])
            let same = try await store.patch(set: ["a": 1], delete: ["a"])
            #expect(same.removedKeys == [] && same.version == 1)
            let other = try await store.patch(set: ["a": 2], delete: ["a"], deletePrefixes: ["a"])
            #expect(other.removedKeys == [] && other.version == 2)
            #expect(try await store.stateText() == #"{"a":2}"#)
        }
    }

    @Test(arguments: Engine.allCases)
    func onlyChangesCountTheVersionUp(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.create(state: ["a": 1])
            #expect(try await store.patch().version == 1)
            #expect(try await store.patch(set: ["a": 1], setDefault: ["a": 2], delete: ["b"]).version == 1)
            #expect(try await store.setStateValue(stateEntries(["a": 1])[0], of: .s, condition: .none).version == 1)
            #expect(try await store.patch(set: ["a": 2]).version == 2)
            try await store.append("i")
            #expect(try await store.session(.s).version == 2)
            try await store.removeStateValue("a", of: .s, condition: .none)
            #expect(try await store.session(.s).version == 3)
            #expect(try await store.optimizeSession(.s, keep: []).keysRemoved == [])
            #expect(try await store.session(.s).version == 3)
        }
    }

    @Test(arguments: Engine.allCases)
    func singleValues(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.create()
            let entry = StateEntry(key: "k", value: JSONText(.null))
            #expect(try await store.setStateValue(entry, of: .s, condition: .none) == (isNew: true, version: 2))
            #expect(
                try await store.stateValue("k", of: .s, condition: .none)
                    == StateValue(version: 2, value: JSONText(.null)))
            let known = EntityCondition(noneMatch: .strong("2"))
            #expect(try await store.stateValue("k", of: .s, condition: known).value == nil)
            #expect(try await store.state(of: .s, keys: nil, condition: known).entries == nil)
            #expect(
                await code {
                    try await store.setStateValue(entry, of: .s, condition: EntityCondition(noneMatch: .any))
                } == .preconditionFailed)
            let stale = EntityCondition(match: .strong("1"))
            #expect(
                await code { try await store.removeStateValue("k", of: .s, condition: stale) }
                    == .preconditionFailed)
            #expect(
                await code { try await store.patch(set: ["x": 1], condition: stale) } == .preconditionFailed)
            #expect(
                await code { try await store.patch(setDefault: ["k": 1], condition: stale) }
                    == .preconditionFailed)
            try await store.removeStateValue("k", of: .s, condition: EntityCondition(match: .strong("2")))
            #expect(
                await code { try await store.removeStateValue("k", of: .s, condition: .none) }
                    == .stateKeyNotFound)
            #expect(
                await code { try await store.stateValue("k", of: .s, condition: .none) } == .stateKeyNotFound)
        }
    }

    /// Whatever makes it, the session is one without a template, and what was there before is gone.
    @Test(arguments: Engine.allCases)
    func aWriteCanCreateItsSession(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            let defaults = StatePatch(setDefault: stateEntries(["a": 1]))
            let draft = SessionDraft()
            #expect(
                await code { try await store.patchState(of: .s, defaults, condition: .none) } == .sessionNotFound)
            let change = try await store.patchState(of: .s, defaults, condition: .none, orCreating: draft)
            #expect(change.initializedKeys == ["a"] && change.version == 2)
            let again = try await store.patchState(of: .s, defaults, condition: .none, orCreating: draft)
            #expect(again.initializedKeys == [] && again.version == 2)
            let item = HistoryDraft(id: Name(stored: "i"), kind: nil, data: JSONText(1))
            let second = Name(stored: "second")
            #expect(try await store.appendHistory(item, to: second, orCreating: draft).isNew)
            #expect(try await !store.appendHistory(item, to: second, orCreating: draft).isNew)
            let third = Name(stored: "third")
            for isAllowed in [true, false] {
                let decision = try await store.debounce(.s, of: third, delayMilliseconds: 500, orCreating: draft)
                #expect(decision.isAllowed == isAllowed)
            }
            clock.advance(seconds: 86_400)
            // Expired ones are not revived.
            let new = try await store.patchState(of: .s, StatePatch(), condition: .none, orCreating: draft)
            #expect(new.stateKeyCount == 0 && new.version > change.version)
            #expect(try await store.appendHistory(item, to: second, orCreating: draft).isNew)
            #expect(try await store.debounce(.s, of: third, delayMilliseconds: 1, orCreating: draft).isAllowed)
        }
    }

    @Test(arguments: Engine.allCases)
    func conditionsOfAWriteThatMayCreate(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            let patch = StatePatch(set: stateEntries(["a": 1]))
            func code(_ condition: EntityCondition) async -> Failure.Code? {
                await TestSupport.code {
                    try await store.patchState(of: .s, patch, condition: condition, orCreating: SessionDraft())
                }
            }
            #expect(await code(EntityCondition(match: .any)) == .preconditionFailed)
            #expect(await code(EntityCondition(match: .strong("1"))) == .preconditionFailed)
            // Nothing of it is there.
            #expect(await TestSupport.code { try await store.session(.s) } == .sessionNotFound)
            #expect(await code(EntityCondition(noneMatch: .any)) == nil)
            #expect(await code(EntityCondition(noneMatch: .any)) == .preconditionFailed)
            #expect(await code(EntityCondition(match: .any)) == nil)
        }
    }

    @Test(arguments: Engine.allCases)
    func racingWritesCreateOneSession(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(100))) { store, _ async throws in
            await withTaskGroup(of: Void.self) { group in
                for number in 0..<32 {
                    group.addTask {
                        do {
                            let draft = SessionDraft()
                            let item = HistoryDraft(id: .random(), kind: nil, data: JSONText(.integer(number)))
                            _ = try await store.appendHistory(item, to: .s, orCreating: draft)
                            _ = try await store.patchState(
                                of: .s, StatePatch(set: stateEntries(["k\(number)": 1])), condition: .none,
                                orCreating: draft)
                        } catch {
                            Issue.record("\(error)")
                        }
                    }
                }
            }
            let session = try await store.session(.s)
            #expect(session.historyCount == 32 && session.stateKeyCount == 32)
        }
    }

    /// Small ones are read on the calling thread, others on one of the pool.
    @Test(arguments: Engine.allCases, [1, 300])
    func contentsAreOfOneInstant(engine: Engine, keys: Int) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(2000))) { store, _ async throws in
            let filler = Dictionary(uniqueKeysWithValues: (0..<keys).map { ("f\($0)", JSON.integer($0)) })
            try await store.create(state: filler)
            // Each write appends an item, and then counts.
            let writer = Task {
                for number in 1...100 {
                    try await store.append(data: .integer(number))
                    try await store.patch(set: ["n": .integer(number)])
                }
            }
            var seen = 0
            while seen < 100 {
                let contents = try await store.sessionContents(of: .s, including: [.state, .history])
                let state = try #require(contents.state)
                let items = try #require(contents.history).items
                let count = state.first(where: { $0.key == "n" })?.value
                seen = try Int(count?.parsed().integerValue ?? 0)
                #expect((seen...seen + 1).contains(items.count))
                #expect(contents.session.historyCount == items.count)
                #expect(contents.session.stateKeyCount == state.count)
                #expect(try items.first?.data.parsed().integerValue ?? 0 == Int64(items.count))
            }
            try await writer.value
            let none = try await store.sessionContents(of: .s, including: [])
            #expect(none.state == nil && none.history == nil)
            let other = Name(stored: "other")
            #expect(await code { try await store.sessionContents(of: other, including: []) } == .sessionNotFound)
        }
    }

    @Test(arguments: Engine.allCases)
    func keysThatOnlyLookAlikeAreTwo(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            let composed: Key = "caf\u{E9}"
            let decomposed: Key = "cafe\u{301}"
            try await store.create()
            let one = JSONText(1)
            let patch = StatePatch(set: [
                StateEntry(key: composed, value: one), StateEntry(key: decomposed, value: one),
            ])
            #expect(try await store.patchState(of: .s, patch, condition: .none).stateKeyCount == 2)
            let replacing = StatePatch(set: [StateEntry(key: composed, value: one)], delete: [decomposed])
            #expect(
                try await store.patchState(of: .s, replacing, condition: .none).removedKeys == [decomposed])
        }
    }

    @Test(arguments: Engine.allCases)
    func boundsHoldAndNothingIsStored(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.create(state: ["a": 1])
            let many = Dictionary(uniqueKeysWithValues: (0..<1000).map { ("k\($0)", JSON.integer($0)) })
            #expect(await code { try await store.patch(set: many) } == .tooManyKeys)
            #expect(await code { try await store.open(defaults: many) } == .tooManyKeys)
            #expect(
                await code {
                    try await store.create(Name(stored: "t"), state: many.merging(["x": 1]) { a, _ in a })
                }
                    == .tooManyKeys)
            #expect(await code { try await store.session(Name(stored: "t")) } == .sessionNotFound)
            let large = JSON.text(bytes: Limits.maxStateValueBytes)
            let tooLarge = JSON.text(bytes: Limits.maxStateValueBytes + 1)
            #expect(await code { try await store.patch(set: ["b": 1, "l": tooLarge]) } == .payloadTooLarge)
            let full = Dictionary(uniqueKeysWithValues: (0..<32).map { ("l\($0)", large) })
            #expect(await code { try await store.patch(set: full) } == .payloadTooLarge)
            #expect(try await store.stateText() == #"{"a":1}"#)
            #expect(try await store.patch(set: full, delete: ["a"]).stateSizeBytes == Limits.maxStateBytes)
            #expect(await code { try await store.patch(set: ["b": 1]) } == .payloadTooLarge)
            try await store.patch(set: ["b": 1], delete: ["l0"])
        }
    }

    // MARK: Templates

    @Test(arguments: Engine.allCases)
    func defaultsAreResolved(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.define(defaults: ["a": 1, "b": "two", "n": nil])
            let opening = try await store.open(template: .template, defaults: ["a": 9, "c": 3])
            #expect(opening.initializedKeys == ["c"])
            #expect(opening.session.stateKeyCount == 4 && opening.session.stateSizeBytes == 1 + 5 + 4 + 1)
            #expect(try await store.stateText() == #"{"a":1,"b":"two","c":3,"n":null}"#)
            #expect(try await store.setStateValue(stateEntries(["b": 2])[0], of: .s, condition: .none).isNew == false)
            let changed = try await store.session(.s)
            #expect(changed.stateKeyCount == 4 && changed.stateSizeBytes == 7)
            let change = try await store.patch(delete: ["a", "b"])
            #expect(change.removedKeys == ["b"] && change.stateKeyCount == 4)
            #expect(try await store.stateText() == #"{"a":1,"b":"two","c":3,"n":null}"#)
            #expect(
                await code { try await store.removeStateValue("a", of: .s, condition: .none) }
                    == .stateKeyNotFound)
        }
    }

    @Test(arguments: Engine.allCases)
    func changedTemplatesApplyAtOnceAndCountVersionsUp(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.define(defaults: ["a": 1])
            try await store.create(template: .template)
            var versions = [try await store.session(.s).version]
            func next(_ state: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
                #expect(try await store.stateText() == state, sourceLocation: sourceLocation)
                versions.append(try await store.session(.s).version)
            }
            #expect(versions == [1])
            try await store.define(defaults: ["a": 2, "b": 3])
            try await next(#"{"a":2,"b":3}"#)
            try await store.patch(set: ["x": 1])
            try await next(#"{"a":2,"b":3,"x":1}"#)
            try await store.removeTemplate(.template, condition: .none)
            try await next(#"{"x":1}"#)
            #expect(try await store.session(.s).template == .template)
            #expect(await code { try await store.template(.template) } == .templateNotFound)
            #expect(try await store.templates(after: nil, limit: 10).items.isEmpty)
            #expect(
                await code { try await store.create(Name(stored: "t"), template: .template) }
                    == .validationFailed)
            try await store.define(defaults: ["a": 4])
            try await next(#"{"a":4,"x":1}"#)
            #expect(versions == versions.sorted() && Set(versions).count == versions.count, "\(versions)")
            let unchanged = try await store.define(defaults: ["a": 4])
            #expect(try await store.template(.template) == unchanged)
            #expect(try await store.session(.s).version == versions.last)
        }
    }

    @Test(arguments: Engine.allCases)
    func templatesAreListedAndConditional(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            for name in ["b", "a", "c"] { try await store.define(Name(stored: name), defaults: ["k": .string(name)]) }
            let (items, next) = try await store.templates(after: nil, limit: 2)
            #expect(items.map(\.name.rawValue) == ["a", "b"] && next?.rawValue == "b")
            #expect(try await store.templates(after: "b", limit: 2).items.map(\.name.rawValue) == ["c"])
            let stale = EntityCondition(match: .strong(items[0].tag))
            clock.advance(seconds: 1)
            let (changed, isNew) = try await store.setTemplate(
                SessionTemplateDraft(defaults: stateEntries(["k": 2])), of: items[0].name, condition: stale)
            #expect(!isNew && changed.tag != items[0].tag)
            #expect(changed.createdAt == items[0].createdAt && changed.updatedAt == clock.now)
            #expect(
                await code {
                    try await store.setTemplate(SessionTemplateDraft(), of: items[0].name, condition: stale)
                } == .preconditionFailed)
            #expect(
                await code { try await store.removeTemplate(items[0].name, condition: stale) }
                    == .preconditionFailed)
            try await store.removeTemplate(items[0].name, condition: .none)
            #expect(
                await code { try await store.removeTemplate(items[0].name, condition: .none) }
                    == .templateNotFound)
            let again = try await store.define(items[0].name, defaults: ["k": .string("a")])
            #expect(again.tag != items[0].tag, "another template of the same name and content has another tag")
        }
    }

    @Test(arguments: Engine.allCases)
    func templatesAreBounded(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            for number in 0..<Limits.maxTemplates { try await store.define(Name(stored: "t\(number)")) }
            #expect(await code { try await store.define() } == .tooManyTemplates)
            try await store.define(Name(stored: "t0"), defaults: ["a": 1])
            try await store.removeTemplate(Name(stored: "t1"), condition: .none)
            try await store.define()
            let many = Dictionary(uniqueKeysWithValues: (0...1000).map { ("k\($0)", JSON.integer($0)) })
            #expect(await code { try await store.define(defaults: many) } == .tooManyKeys)
        }
    }

    @Test(arguments: Engine.allCases)
    func aStateOverItsBoundsThroughItsTemplateMayShrink(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.define()
            let own = Dictionary(uniqueKeysWithValues: (0..<600).map { ("own\($0)", JSON.integer($0)) })
            try await store.create(template: .template, state: own)
            try await store.define(
                defaults: Dictionary(uniqueKeysWithValues: (0..<600).map { ("default\($0)", JSON.integer($0)) }))
            #expect(try await store.session(.s).stateKeyCount == 1200)
            #expect(await code { try await store.patch(set: ["more": 1]) } == .tooManyKeys)
            try await store.patch(set: ["own1": 5])
            #expect(try await store.patch(delete: ["own1"]).stateKeyCount == 1199)
        }
    }

    // MARK: Optimizing and removing

    @Test(arguments: Engine.allCases)
    func optimizingRemovesWhatCanBeComputedAgain(engine: Engine) async throws {
        let settings = Settings.with(.maxHistoryItems, .integer(20))
        try await engine.run(settings: settings) { store, clock async throws in
            try await store.create(
                state: [
                    "temp_a": "xx", "cache_b": 1, "temp_current_generation": 1, "temperature": 1, "a_temp_": 1,
                    "cache": 1,
                ])
            for number in 0..<5 { try await store.append("i\(number)", data: .text(bytes: 10)) }
            #expect(settings.apply(SettingOverrides(values: ["max_history_items": "2"], version: 1)).isEmpty)
            let done = try await store.optimizeSession(.s, keep: [TemporaryKeys.keptByDefault])
            #expect(done == SessionOptimization(historyRemoved: 3, keysRemoved: ["temp_a", "cache_b"], freedBytes: 35))
            #expect(try await store.itemIDs() == ["i4", "i3"])
            #expect(
                try await store.stateText() == #"{"a_temp_":1,"cache":1,"temp_current_generation":1,"temperature":1}"#
            )
            let all = try await store.optimizeSession(.s, keep: [])
            #expect(all.keysRemoved == [TemporaryKeys.keptByDefault] && all.historyRemoved == 0)
        }
    }

    @Test(arguments: Engine.allCases)
    func inactiveSessionsAreRemovedTogether(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            for name in ["expired", "read", "touched"] {
                try await store.create(Name(stored: name), ttl: name == "expired" ? 50 : nil)
            }
            for number in 0..<150 {
                let id = Name(stored: "s\(number)")
                _ = try await store.createSession(id, SessionDraft(timeToLive: .never, state: stateEntries(["a": 1])))
                try await store.append("i", to: id)
                _ = try await store.debounce(.s, of: id, delayMilliseconds: 1)
            }
            clock.advance(seconds: 60)
            // Noted in memory only.
            _ = try await store.session(Name(stored: "read"))
            _ = try await store.touchSession(Name(stored: "touched"))
            try await store.create(Name(stored: "new"))
            #expect(try await store.removeSessions(inactiveForMilliseconds: 60_001, isDryRun: false) == 0)
            #expect(try await store.removeSessions(inactiveForMilliseconds: 60_000, isDryRun: true) == 150)
            #expect(try await store.sessionFigures().sessionCount == 153)
            #expect(try await store.removeSessions(inactiveForMilliseconds: 60_000, isDryRun: false) == 150)
            let left = try await store.sessions(activeWithinMilliseconds: nil, after: nil, limit: 10)
            #expect(Set(left.items.map(\.id.rawValue)) == ["new", "read", "touched"])
            #expect(try await store.history(HistoryFilter(), after: nil, limit: 10).items.isEmpty)
            // A session of the same id is a new one.
            let again = try await store.open(Name(stored: "s7"), defaults: ["a": 2])
            #expect(again.isNew && again.session.version > 1 && again.session.historyCount == 0)
            #expect(try await store.debounce(.s, of: Name(stored: "s7"), delayMilliseconds: 3_600_000).isAllowed)
            #expect(try await store.removeSessions(inactiveForMilliseconds: 0, isDryRun: true) == 4)
            // Expired sessions are the sweep's.
            #expect(try await store.perform(.sessionExpiry, isDryRun: false).removed == 1)
        }
    }

    // MARK: Racing

    /// Whoever was answered by a session beside the removal still has it afterwards, whether reading or writing.
    @Test(arguments: Engine.allCases)
    func aSessionUsedBesideTheRemovalOfInactiveOnesStays(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            for round in 0..<5 {
                let ids = (0..<200).map { Name(stored: "r\(round)-\($0)") }
                for id in ids { try await store.create(id, state: ["a": 1]) }
                clock.advance(seconds: 60)
                let (removed, used) = try await withThrowingTaskGroup(of: [Name].self) { group in
                    for user in 0..<4 {
                        group.addTask {
                            var used: [Name] = []
                            // From the end, so that users and removal meet.
                            for id in ids.reversed() where id.rawValue.utf8.last! % 4 == UInt8(user) {
                                let isWriter = id.rawValue.utf8.count % 2 == 0
                                let code = await code {
                                    if isWriter {
                                        try await store.patch(id, set: ["a": 2])
                                    } else {
                                        _ = try await store.stateValue("a", of: id, condition: .none)
                                    }
                                }
                                #expect(code == nil || code == .sessionNotFound)
                                if code == nil { used.append(id) }
                            }
                            return used
                        }
                    }
                    let removed = try await store.removeSessions(inactiveForMilliseconds: 60_000, isDryRun: false)
                    return (removed, try await group.reduce(into: []) { $0 += $1 })
                }
                for id in used { #expect(await code { try await store.session(id) } == nil, "\(id)") }
                #expect(removed + used.count == ids.count)
                #expect(try await store.removeSessions(inactiveForMilliseconds: 0, isDryRun: false) == used.count)
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func racingOpensCreateOneSessionAndInitializeEachDefaultOnce(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            for round in 0..<20 {
                let id = Name(stored: "r\(round)")
                let openings = try await withThrowingTaskGroup(of: SessionOpening.self) { group in
                    for caller in 0..<8 {
                        group.addTask {
                            try await store.open(id, defaults: ["a": .integer(caller), "b\(caller % 2)": 1])
                        }
                    }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                #expect(openings.count { $0.isNew } == 1)
                for key in ["a", "b0", "b1"] as [Key] {
                    #expect(openings.count { $0.initializedKeys.contains(key) } == 1, "\(key)")
                }
                #expect(try await store.session(id).stateKeyCount == 3)
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func racingConditionalPatchesLoseNoUpdate(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, _ async throws in
            try await store.create(state: ["count": 0])
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<10 {
                    group.addTask {
                        var left = 10
                        while left > 0 {
                            let state = try await store.state(of: .s, keys: ["count"], condition: .none)
                            let count = try state.entries![0].value.parsed().integerValue!
                            do {
                                try await store.patch(
                                    set: ["count": .integer(count + 1)],
                                    condition: EntityCondition(match: .strong(String(state.version))))
                                left -= 1
                            } catch let failure as Failure where failure.code == .preconditionFailed {}
                        }
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await store.stateText() == #"{"count":100}"#)
            #expect(try await store.session(.s).version == 101)
        }
    }

    @Test(arguments: Engine.allCases)
    func racingDebouncesAllowOne(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create()
            for round in 0..<3 {
                let decisions = try await withThrowingTaskGroup(of: DebounceDecision.self) { group in
                    for _ in 0..<100 {
                        group.addTask { try await store.debounce(.s, of: .s, delayMilliseconds: 500) }
                    }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                #expect(decisions.count { $0.isAllowed } == 1, "round \(round)")
                #expect(decisions.allSatisfy { $0.lastAllowedAt == clock.now })
                #expect(decisions.allSatisfy { $0.isAllowed || $0.retryAfterMilliseconds == 500 })
                clock.advance(seconds: 0.5)
            }
        }
    }

    // MARK: Debounces

    @Test(arguments: Engine.allCases)
    func debouncesAreRememberedThenForgotten(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create()
            let start = clock.now
            #expect(try await store.debounce(.s, of: .s, delayMilliseconds: 500).isAllowed)
            clock.advance(seconds: 3599)
            let long = try await store.debounce(.s, of: .s, delayMilliseconds: 86_400_000)
            #expect(!long.isAllowed && long.lastAllowedAt == start && long.retryAfterMilliseconds == 82_801_000)
            #expect(try await store.perform(.debounceMarks, isDryRun: true) == Removal())
            clock.advance(seconds: 1)
            #expect(try await store.perform(.debounceMarks, isDryRun: true) == Removal(removed: 1))
            #expect(try await store.perform(.debounceMarks, isDryRun: false) == Removal(removed: 1))
            #expect(try await store.debounce(.s, of: .s, delayMilliseconds: 86_400_000).isAllowed)
        }
    }

    @Test(arguments: Engine.allCases)
    func aSessionRemembersABoundedNumberOfDebounces(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create()
            for number in 0...Limits.maxDebounceMarks {
                _ = try await store.debounce(Name(stored: "d\(number)"), of: .s, delayMilliseconds: 10_000_000)
                clock.advance(seconds: 0.001)
            }
            #expect(
                try await store.debounce(Name(stored: "d1"), of: .s, delayMilliseconds: 10_000_000).isAllowed == false
            )
            #expect(try await store.debounce(Name(stored: "d0"), of: .s, delayMilliseconds: 10_000_000).isAllowed)
        }
    }

    // MARK: Cleanup

    @Test(arguments: Engine.allCases)
    func temporaryKeysOfIdleSessionsGo(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.cleanupInterval, .decimal(60))) { store, clock async throws in
            let state: [String: JSON] = ["temp_a": "xx", "cache_b": 1, "temp_current_generation": 1, "a": 1]
            for name in ["idle", "read", "expired"] {
                try await store.create(Name(stored: name), ttl: name == "expired" ? 30 : nil, state: state)
            }
            clock.advance(seconds: 59)
            _ = try await store.session(Name(stored: "read"))
            #expect(try await store.perform(.stateTemporaries, isDryRun: false) == Removal())
            clock.advance(seconds: 1)
            let expected = Removal(removed: 2, freedBytes: 5)
            #expect(try await store.perform(.stateTemporaries, isDryRun: true) == expected)
            #expect(try await store.perform(.stateTemporaries, isDryRun: false) == expected)
            #expect(try await store.perform(.stateTemporaries, isDryRun: false) == Removal())
            #expect(try await store.stateText(Name(stored: "idle")) == #"{"a":1,"temp_current_generation":1}"#)
            #expect(try await store.session(Name(stored: "idle")).version == 2)
            #expect(try await store.session(Name(stored: "read")).version == 1)
        }
    }

    @Test(arguments: Engine.allCases)
    func manyExpiredSessionsGoWhileOthersAreUsed(engine: Engine) async throws {
        try await engine.run(settings: Settings.with(.maxHistoryItems, .integer(20))) { store, clock async throws in
            try await store.create(state: ["a": 1])
            for number in 0..<300 { try await store.create(Name(stored: "e\(number)"), ttl: 1, state: ["b": 2]) }
            clock.advance(seconds: 1)
            async let sweep = store.perform(.sessionExpiry, isDryRun: false)
            for number in 0..<50 { try await store.patch(set: ["a": .integer(number)]) }
            #expect(try await sweep == Removal(removed: 300, freedBytes: 300))
        }
    }
}
