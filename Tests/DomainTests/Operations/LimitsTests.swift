// How the limits relate: changing one alone can make another unreachable.

import Domain
import Testing

struct LimitsTests {
    /// The smaller one first.
    private func isInOrder<T: Comparable>(_ limits: T...) -> Bool {
        zip(limits, limits.dropFirst()).allSatisfy { $0 <= $1 }
    }

    @Test func whatIsKeptTogetherFitsTogether() {
        // A value that is kept in a row is never larger than one chunk.
        #expect(isInOrder(Limits.maxInlineValueBytes, Limits.chunkBytes, Limits.maxEntryBytesCeiling))
        #expect(isInOrder(Limits.maxStateValueBytes, Limits.maxStateBytes))
        #expect(isInOrder(Limits.maxHistoryItemBytes, Limits.maxPageBytes))
    }

    @Test func whatMayBeStoredMayBeSent() {
        // A body contains the names of its fields in addition to the values.
        #expect(Limits.maxStateBytes < Limits.maxStateBodyBytes)
        #expect(Limits.maxStateValueBytes < Limits.maxJSONBodyBytes)
        #expect(Limits.maxHistoryItemBytes < Limits.maxJSONBodyBytes)
        #expect(Limits.maxMetadataBytes < Limits.maxJSONBodyBytes)
        #expect(Limits.maxSQLBytes < Limits.maxJSONBodyBytes)
        for largest in [
            Limits.maxJSONBodyBytes, Limits.maxStateBodyBytes, Limits.maxBatchBodyBytes, Limits.maxSamplesBodyBytes,
        ] {
            #expect(largest * 4 <= Limits.maxHeldLongBodyBytes / 2)
        }
    }

    @Test func whatIsSentWithoutALimitIsWithinTheLargest() {
        #expect(isInOrder(Limits.defaultPageItems, Limits.maxPageItems))
        #expect(isInOrder(Limits.defaultSQLRows, Limits.maxSQLRows))
        #expect(isInOrder(Limits.maxSQLAnswerBytes, Limits.maxHeldSQLAnswerBytes))
        #expect(isInOrder(Limits.maxBatchAnswerBytes, Limits.maxHeldLongBodyBytes))
    }
}
