// Conditional requests: RFC 9110, section 13, for all combinations of request and stored entity.

import Domain
import TestSupport
import Testing

struct EntityConditionTests {
    private typealias Entity = EntityCondition.Entity

    /// What a caller may send in `If-Match` or `If-None-Match`, and whether it names the strong tag `"a"` by the strong
    /// comparison and by the weak one.
    private static let headers: [(sent: String?, isStar: Bool, namesStrongly: Bool, namesWeakly: Bool)] = [
        (nil, false, false, false),
        ("*", true, false, false),
        (#""a""#, false, true, true),
        (#"W/"a""#, false, false, true),
        (#""b""#, false, false, false),
        (#"W/"b""#, false, false, false),
        (#""b", "a""#, false, true, true),
        ("\"b\" ,\tW/\"a\",, \"c\"", false, false, true),
        (#"W/"b","c""#, false, false, false),
        ("", false, false, false),
    ]

    /// The stored entity, if any: it changed 500 ms after the 10th second, if it has a date.
    private static let entities: [(entity: EntityCondition.Entity, isPresent: Bool, hasTag: Bool, hasDate: Bool)] = [
        (.absent, false, false, false),
        (.present("a", updatedAt: Instant(milliseconds: 10_500)), true, true, true),
        (.present("a"), true, true, false),
        (.untagged(isPresent: true), true, false, false),
        (.untagged(isPresent: false), false, false, false),
        (.member(isPresent: true, of: "a"), true, true, false),
        (.member(isPresent: false, of: "a"), false, true, false),
    ]

    /// Whole seconds before, at and after the change.
    private static let dates: [Int64?] = [nil, 9, 10, 11]

    /// Section 13.2.2, step by step.
    private func expected(
        match: Int, noneMatch: Int, unmodifiedSince: Int64?, modifiedSince: Int64?, entity: Int, isWrite: Bool
    ) -> EntityCondition.Verdict {
        let (match, noneMatch) = (Self.headers[match], Self.headers[noneMatch])
        let (_, isPresent, hasTag, hasDate) = Self.entities[entity]
        // Steps 1 and 2.
        if match.sent != nil {
            let holds = match.isStar ? isPresent : hasTag && match.namesStrongly
            if !holds { return .failed }
        } else if let unmodifiedSince, hasDate, unmodifiedSince < 10 {
            return .failed
        }
        // Steps 3 and 4.
        if noneMatch.sent != nil {
            let isNamed = isPresent && (noneMatch.isStar || (hasTag && noneMatch.namesWeakly))
            if isNamed { return isWrite ? .failed : .notModified }
        } else if !isWrite, let modifiedSince, hasDate, modifiedSince >= 10 {
            return .notModified
        }
        return .proceed
    }

    @Test func everyCombination() {
        func tags(_ index: Int) -> EntityCondition.Tags? {
            Self.headers[index].sent.map { EntityCondition.Tags(header: $0) }
        }
        func instant(_ seconds: Int64?) -> Instant? { seconds.map { Instant(milliseconds: $0 * 1000) } }
        var checked = 0
        for match in Self.headers.indices {
            for noneMatch in Self.headers.indices {
                for unmodifiedSince in Self.dates {
                    for modifiedSince in Self.dates {
                        let condition = EntityCondition(
                            match: tags(match), noneMatch: tags(noneMatch), unmodifiedSince: instant(unmodifiedSince),
                            modifiedSince: instant(modifiedSince))
                        for entity in Self.entities.indices {
                            for isWrite in [false, true] {
                                let stands = Self.entities[entity].entity
                                let verdict =
                                    isWrite
                                    ? condition.verdict(onWriting: stands) : condition.verdict(onReading: stands)
                                let right = expected(
                                    match: match, noneMatch: noneMatch, unmodifiedSince: unmodifiedSince,
                                    modifiedSince: modifiedSince, entity: entity, isWrite: isWrite)
                                if verdict != right {
                                    Issue.record("\(condition) on \(stands), write: \(isWrite): \(verdict)")
                                }
                                checked += 1
                            }
                        }
                    }
                }
            }
        }
        #expect(checked == 10 * 10 * 4 * 4 * 7 * 2)
    }

    @Test func readsAndWritesActOnTheVerdict() async throws {
        let stale = EntityCondition(match: .strong("b"))
        let known = EntityCondition(noneMatch: .strong("a"))
        #expect(try known.isKnown(.present("a")))
        #expect(try !known.isKnown(.present("b")))
        #expect(try !EntityCondition.none.isKnown(.present("a")))
        #expect(await code { _ = try stale.isKnown(.present("a")) } == .preconditionFailed)
        #expect(await code { try stale.check(.present("a")) } == .preconditionFailed)
        #expect(await code { try known.check(.present("a")) } == .preconditionFailed)
        #expect(await code { try known.check(.present("b")) } == nil)
        #expect(await code { try EntityCondition.add.check(.present("b")) } == .preconditionFailed)
        #expect(await code { try EntityCondition.add.check(.absent) } == nil)
        #expect(await code { try EntityCondition.none.check(.absent) } == nil)
    }

    @Test func anOptionalTagIsThatOfWhatMayBeThere() {
        #expect(EntityCondition.Entity.optional("a") == .present("a"))
        #expect(EntityCondition.Entity.optional(nil) == .absent)
    }

    @Test(
        arguments: [
            (" * ", .any),
            (#""*""#, .strong("*")),
            (#""a", "b""#, .strong("a", "b")),
            (#"W/"a" , "b,c""#, .oneOf([.init("a", isWeak: true), .init("b,c")])),
            (#""""#, .strong("")),
            // The prefix of a weak tag is a capital letter. Anything that is not a tag ends the list.
            (#""a", w/"b", "c""#, .strong("a")),
            (#""a", b, "c""#, .strong("a")),
            (#""a", *"#, .strong("a")),
            (#""a", "b"#, .strong("a")),
            ("a", .oneOf([])),
            ("* *", .oneOf([])),
            ("W/", .oneOf([])),
        ] as [(String, EntityCondition.Tags)])
    func readsTheListInAHeader(header: String, tags: EntityCondition.Tags) {
        #expect(EntityCondition.Tags(header: header) == tags)
    }
}
