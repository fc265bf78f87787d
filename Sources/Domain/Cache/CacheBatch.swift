// Many operations in one request: what becomes of each, whichever engine performs them.

/// One step of a batch.
public enum CacheOperation: Sendable {
    case get(Key)
    case set(CacheWrite)
    case delete(Key, condition: EntityCondition = .none)
    /// nil renews the entry's own lifetime.
    case touch(Key, TimeToLive?, condition: EntityCondition = .none)
    case increment(CacheIncrement)
    /// Invalid, so there is nothing to perform. The key, if that is valid.
    case invalid(Failure, key: Key?)

    /// The key it is about; nil if there is no valid one.
    public var key: Key? {
        switch self {
        case .get(let key), .delete(let key, _), .touch(let key, _, _): key
        case .set(let write): write.key
        case .increment(let increment): increment.key
        case .invalid(_, let key): key
        }
    }
}

/// What one step of a batch did.
public enum CacheOperationResult: Sendable {
    /// The value in full.
    case value(CacheHit, [UInt8])
    case stored(CacheWriteOutcome)
    /// Whether there was a live entry to remove.
    case deleted(Bool)
    case touched(CacheMetadata)
    case counted(Int64)
    case failed(Failure)
}

/// Operations that are performed in order, each seeing those before it.
///
/// Not atomic: each succeeds or fails on its own. Atomic: one that fails undoes all of them. A miss is an answer, not a
/// failure.
public struct CacheBatch: Sendable {
    public let operations: [CacheOperation]
    public let isAtomic: Bool

    public init(_ operations: [CacheOperation], isAtomic: Bool) {
        self.operations = operations
        self.isAtomic = isAtomic
    }

    /// That an atomic batch must be undone, with what its operations answer then.
    public struct Aborted: Error {
        public let results: [CacheOperationResult]
    }

    /// Whether none of it changes an entry.
    public var onlyReads: Bool {
        operations.allSatisfy { operation in
            switch operation {
            case .get, .invalid: true
            case .set, .delete, .touch, .increment: false
            }
        }
    }

    /// - Parameter perform: performs one operation that is not `invalid`, and has changed nothing when it throws a
    ///   ``Failure``.
    /// - Returns: one result for each operation.
    /// - Throws: ``Aborted``, after which nothing of the batch may remain; anything `perform` throws that is not a
    ///   ``Failure``.
    public func run(_ perform: (CacheOperation) throws -> CacheOperationResult) throws -> [CacheOperationResult] {
        if isAtomic { try checkValidity() }
        return try operations.enumerated().map { index, operation in
            do {
                if case .invalid(let failure, _) = operation { throw failure }
                return try perform(operation)
            } catch let failure as Failure {
                if isAtomic, failure.code != .cacheMiss { throw aborted(by: [index: failure]) }
                return .failed(failure)
            }
        }
    }

    /// An atomic batch with an invalid operation is not attempted, and all invalid operations are reported at once.
    private func checkValidity() throws(Aborted) {
        var failures: [Int: Failure] = [:]
        for (index, operation) in operations.enumerated() {
            if case .invalid(let failure, _) = operation { failures[index] = failure }
        }
        if !failures.isEmpty { throw aborted(by: failures) }
    }

    private func aborted(by failures: [Int: Failure]) -> Aborted {
        let others = Failure(
            .batchAborted,
            "Operation \(failures.keys.min()!) failed. The batch is atomic, so nothing was changed.")
        return Aborted(results: operations.indices.map { .failed(failures[$0] ?? others) })
    }
}

/// The bytes of values that one batch may still answer.
public struct CacheBatchAllowance: Sendable {
    private var bytesLeft = Limits.maxBatchAnswerBytes

    public init() {}

    /// Subtracts a value's size.
    /// - Throws: `payload_too_large` when it does not fit; a smaller one still may.
    public mutating func take(_ sizeBytes: Int) throws(Failure) {
        guard sizeBytes <= bytesLeft else {
            throw Failure(
                .payloadTooLarge,
                "The answer would exceed \(Limits.maxBatchAnswerBytes) bytes of values. Read this entry on its own.")
        }
        bytesLeft -= sizeBytes
    }
}
