// Conditional writes: the truth table of RFC 9110, section 13.

import Domain
import Testing

struct WriteConditionTests {
    private static let current = EntityTag(digest: Array(repeating: 1, count: 32))
    private static let other = EntityTag(digest: Array(repeating: 2, count: 32))
    private static let updatedAt = Instant(milliseconds: 10_500)

    @Test(
        arguments: [
            // condition, allowed on a live entry, allowed without one
            (.none, true, true),
            (.add, false, true),
            (WriteCondition(match: .any), true, false),
            (WriteCondition(match: .oneOf([other, current])), true, false),
            (WriteCondition(match: .oneOf([other])), false, false),
            (WriteCondition(match: .oneOf([])), false, false),
            (WriteCondition(noneMatch: .oneOf([current])), false, true),
            (WriteCondition(noneMatch: .oneOf([other])), true, true),
            (WriteCondition(match: .any, noneMatch: .any), false, false),
            (WriteCondition(match: .oneOf([current]), noneMatch: .oneOf([other])), true, false),
            // Whole seconds are compared, for no more can be sent.
            (WriteCondition(unmodifiedSince: Instant(milliseconds: 10_000)), true, true),
            (WriteCondition(unmodifiedSince: Instant(milliseconds: 9_000)), false, true),
            (WriteCondition(unmodifiedSince: Instant(milliseconds: 11_000)), true, true),
            // Beside If-Match it is ignored.
            (WriteCondition(match: .any, unmodifiedSince: Instant(milliseconds: 9_000)), true, false),
            (WriteCondition(noneMatch: .any, unmodifiedSince: Instant(milliseconds: 11_000)), false, true),
        ] as [(WriteCondition, Bool, Bool)])
    func allows(condition: WriteCondition, onLiveEntry: Bool, withoutOne: Bool) {
        #expect(condition.allows((Self.current, Self.updatedAt)) == onLiveEntry)
        #expect(condition.allows(nil) == withoutOne)
    }

    @Test func anEntityTagIsPrintedInLowerCaseHexadecimal() {
        let tag = EntityTag(digest: [0x00, 0x0F, 0xA5, 0xFF] + Array(repeating: 0, count: 28))
        #expect(tag.hex == "000fa5ff" + String(repeating: "0", count: 56))
    }
}
