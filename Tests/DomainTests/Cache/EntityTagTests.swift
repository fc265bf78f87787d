// Entity tags of cache entries.

import Domain
import Testing

struct EntityTagTests {
    @Test func anEntityTagIsPrintedInLowerCaseHexadecimal() {
        let tag = EntityTag(digest: [0x00, 0x0F, 0xA5, 0xFF] + Array(repeating: 0, count: 28))
        #expect(tag.hex == "000fa5ff" + String(repeating: "0", count: 56))
    }
}
