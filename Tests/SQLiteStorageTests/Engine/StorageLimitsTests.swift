// How the engine's limits relate to each other and to the service's: changing one alone can make another unreachable.

import Domain
import Testing

@testable import SQLiteStorage

struct StorageLimitsTests {
    /// The smaller one first.
    private func isInOrder<T: Comparable>(_ limits: T...) -> Bool {
        zip(limits, limits.dropFirst()).allSatisfy { $0 <= $1 }
    }

    @Test func whatOneRequestWritesFitsIntoTheQueue() {
        #expect(isInOrder(Limits.chunkBytes, StorageLimits.maxGroupBytes, StorageLimits.maxQueuedWriteBytes))
        #expect(isInOrder(StorageLimits.maxGroupOperations, StorageLimits.maxQueuedWrites))
        #expect(isInOrder(Limits.maxBatchBodyBytes, StorageLimits.maxQueuedWriteBytes))
    }

    @Test func stepsAreShorterThanGroups() {
        #expect(StorageLimits.backgroundStepMicroseconds < StorageLimits.foregroundStepMicroseconds)
        #expect(StorageLimits.foregroundStepMicroseconds < StorageLimits.maxGroupMilliseconds * 1000)
        #expect(StorageLimits.sweepReadRows < StorageLimits.sweepBatchRows)
        #expect(StorageLimits.sweepReadRows < StorageLimits.sweepBatchSessionRows)
        #expect(StorageLimits.sweepReadBytes < StorageLimits.sweepBatchBytes)
        #expect(StorageLimits.sweepBatchBytes.isMultiple(of: Limits.chunkBytes))
        #expect(StorageLimits.sweepReadRows < StorageLimits.maxEvictionsPerWrite)
        // So that a write finds as many entries as it may evict.
        #expect(StorageLimits.maxEvictionsPerWrite <= StorageLimits.maxEvictionLooks)
    }

    @Test func whatIsReadFitsIntoItsLimits() {
        #expect(isInOrder(StorageLimits.maxSQLValueBytes, Limits.maxSQLAnswerBytes))
        #expect(isInOrder(StorageLimits.maxPointReadKeys, Limits.maxKeysPerSession))
        #expect(isInOrder(StorageLimits.maxPointReadBytes, Limits.maxStateBytes))
        // A stored value, with what its row holds beside it.
        #expect(isInOrder(Limits.maxStateValueBytes, StorageLimits.maxSQLValueBytes))
        #expect(isInOrder(Limits.maxHistoryItemBytes, StorageLimits.maxSQLValueBytes))
    }

    /// The tests of the contract speak of numbers that no engine handles in one step.
    @Test func theContractIsTestedWithMoreThanAStep() {
        #expect(isInOrder(StorageLimits.sweepBatchRows, 128))
        #expect(isInOrder(StorageLimits.maxEvictionsPerWrite, 256))
        #expect(isInOrder(StorageLimits.maxClearsPerMiss, 64))
    }
}
