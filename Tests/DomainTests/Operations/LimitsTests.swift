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
        #expect(Limits.sweepBatchBytes.isMultiple(of: Limits.chunkBytes))
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

    @Test func whatOneRequestWritesFitsIntoTheQueue() {
        #expect(isInOrder(Limits.maxGroupBytes, Limits.maxQueuedWriteBytes))
        #expect(isInOrder(Limits.maxGroupOperations, Limits.maxQueuedWrites))
        #expect(isInOrder(Limits.chunkBytes, Limits.maxGroupBytes))
        #expect(isInOrder(Limits.maxBatchBodyBytes, Limits.maxQueuedWriteBytes))
    }

    @Test func stepsAreShorterThanGroups() {
        #expect(Limits.backgroundStepMicroseconds < Limits.foregroundStepMicroseconds)
        #expect(Limits.foregroundStepMicroseconds < Limits.maxGroupMilliseconds * 1000)
        #expect(Limits.sweepReadRows < Limits.sweepBatchRows)
        #expect(Limits.sweepReadRows < Limits.sweepBatchSessionRows)
        #expect(Limits.sweepReadBytes < Limits.sweepBatchBytes)
        #expect(Limits.sweepReadRows < Limits.maxEvictionsPerWrite)
        // So that a write finds as many entries as it may evict.
        #expect(Limits.maxEvictionsPerWrite <= Limits.maxEvictionLooks)
    }

    @Test func whatIsSentWithoutALimitIsWithinTheLargest() {
        #expect(isInOrder(Limits.defaultPageItems, Limits.maxPageItems))
        #expect(isInOrder(Limits.defaultSQLRows, Limits.maxSQLRows))
        #expect(isInOrder(Limits.maxSQLValueBytes, Limits.maxSQLAnswerBytes, Limits.maxHeldSQLAnswerBytes))
        #expect(isInOrder(Limits.maxBatchAnswerBytes, Limits.maxHeldLongBodyBytes))
        #expect(isInOrder(Limits.maxPointReadKeys, Limits.maxKeysPerSession))
        #expect(isInOrder(Limits.maxPointReadBytes, Limits.maxStateBytes))
    }
}
