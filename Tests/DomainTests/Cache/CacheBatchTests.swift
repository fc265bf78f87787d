// The results of the operations of a batch, without an engine.

import Domain
import Testing

struct CacheBatchTests {
    private struct Broken: Error {}

    private func get(_ key: String) -> CacheOperation { .get(Key(stored: key)) }

    private func delete(_ key: String) -> CacheOperation { .delete(Key(stored: key)) }

    private func invalid(_ field: String) -> CacheOperation { .invalid(.invalid(field, "is wrong."), key: nil) }

    /// Performs a batch in which the keys determine the outcome, and records which operations were performed.
    private func run(
        _ operations: [CacheOperation], atomic: Bool, performed: inout [String]
    ) throws -> [CacheOperationResult] {
        try CacheBatch(operations, isAtomic: atomic).run { operation in
            let key = operation.key?.rawValue ?? ""
            performed.append(key)
            switch key {
            case "miss": throw Failure.miss(.absent)
            case "conflict": throw Failure(.preconditionFailed, "No.")
            case "broken": throw Broken()
            default: return .deleted(true)
            }
        }
    }

    private func words(_ results: [CacheOperationResult]) -> [String] {
        results.map { if case .failed(let failure) = $0 { failure.code.rawValue } else { "done" } }
    }

    @Test func eachSucceedsOrFailsOnItsOwn() throws {
        var performed: [String] = []
        let results = try run(
            [delete("a"), delete("conflict"), invalid("x"), get("miss"), delete("b")], atomic: false,
            performed: &performed)
        #expect(words(results) == ["done", "precondition_failed", "validation_failed", "cache_miss", "done"])
        #expect(performed == ["a", "conflict", "miss", "b"])
    }

    @Test func theFirstFailureAbortsAnAtomicBatch() throws {
        var performed: [String] = []
        do {
            _ = try run(
                [delete("a"), get("miss"), delete("conflict"), delete("b")], atomic: true, performed: &performed)
            Issue.record("it must be undone")
        } catch let aborted as CacheBatch.Aborted {
            #expect(
                words(aborted.results) == ["batch_aborted", "batch_aborted", "precondition_failed", "batch_aborted"])
            guard case .failed(let other) = aborted.results[3] else { return }
            #expect(other.detail.contains("Operation 2 "))
        }
        #expect(performed == ["a", "miss", "conflict"])
    }

    @Test func aMissDoesNotAbort() throws {
        var performed: [String] = []
        #expect(
            words(try run([get("miss"), delete("a")], atomic: true, performed: &performed)) == ["cache_miss", "done"])
    }

    @Test func nothingOfAnAtomicBatchIsTriedWhenAnyIsWrong() throws {
        var performed: [String] = []
        do {
            _ = try run(
                [delete("a"), invalid("x"), delete("conflict"), invalid("y")], atomic: true, performed: &performed)
            Issue.record("it must be undone")
        } catch let aborted as CacheBatch.Aborted {
            #expect(
                words(aborted.results) == ["batch_aborted", "validation_failed", "batch_aborted", "validation_failed"])
        }
        #expect(performed.isEmpty)
    }

    /// A storage error in the middle is not the failure of a single operation.
    @Test(arguments: [false, true])
    func whatIsNoFailureEndsTheBatch(atomic: Bool) {
        var performed: [String] = []
        #expect(throws: Broken.self) {
            try run([delete("a"), delete("broken"), delete("b")], atomic: atomic, performed: &performed)
        }
        #expect(performed == ["a", "broken"])
    }

    @Test func onlyGetsReadOnly() {
        let key = Key(stored: "k")
        #expect(CacheBatch([get("a"), invalid("x")], isAtomic: true).onlyReads)
        #expect(CacheBatch([], isAtomic: false).onlyReads)
        for operation in [delete("a"), .touch(key, nil), .increment(CacheIncrement(key: key))] {
            #expect(!CacheBatch([get("a"), operation], isAtomic: false).onlyReads)
        }
    }

    @Test func anAllowanceIsUsedUp() throws {
        var allowance = CacheBatchAllowance()
        try allowance.take(Limits.maxBatchAnswerBytes - 10)
        #expect(throws: Failure.self) { try allowance.take(11) }
        // A refused value does not count towards the limit.
        try allowance.take(10)
        try allowance.take(0)
        #expect(throws: Failure.self) { try allowance.take(1) }
    }
}
