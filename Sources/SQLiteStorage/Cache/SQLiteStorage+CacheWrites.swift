// Changing the cache, entry by entry and in batches.

import Domain

extension SQLiteStorage: CacheStore {
    public func beginUpload() async throws -> any ValueUpload {
        try BlobUpload(storage: self)
    }

    public func write(_ write: CacheWrite, namespace: Name) async throws -> CacheWriteOutcome {
        let bytes = if case .bytes(let bytes) = write.content { bytes.count } else { 0 }
        return try await transaction(bytes: bytes) { try $0.set(write, namespace: namespace) }
    }

    public func delete(_ address: EntryAddress, condition: WriteCondition) async throws {
        try await transaction { try $0.delete(address.key, namespace: address.namespace, condition: condition) }
    }

    public func touch(
        _ address: EntryAddress, timeToLive: TimeToLive?, condition: WriteCondition
    ) async throws -> CacheMetadata {
        try await transaction {
            try $0.touch(address.key, namespace: address.namespace, timeToLive: timeToLive, condition: condition)
        }
    }

    public func increment(_ increment: CacheIncrement, namespace: Name) async throws -> Int64 {
        try await transaction { try $0.increment(increment, namespace: namespace) }
    }

    public func batch(
        _ operations: [CacheOperation], namespace: Name, atomic: Bool
    ) async throws -> [CacheOperationResult] {
        let onlyReads = operations.allSatisfy { if case .get = $0 { true } else { false } }
        if onlyReads {
            return try await readers.consistently { connection in
                // One snapshot for all of them.
                var reading = BatchReading(storage: self)
                return try operations.map { operation in
                    guard case .get(let key) = operation else { preconditionFailure("only gets") }
                    return try reading.get(key, namespace: namespace, connection: connection, now: self.clock.now())
                }
            }
        }
        let bytes = operations.reduce(0) { $0 + $1.heldBytes }
        do {
            return try await change(operations, bytes: bytes, namespace: namespace, atomic: atomic)
        } catch let aborted as BatchAborted {
            let others = Failure(
                .batchAborted, "Operation \(aborted.index) failed, and the batch is atomic: nothing was done.")
            return operations.indices.map { .failed($0 == aborted.index ? aborted.failure : others) }
        }
    }

    private func change(
        _ operations: [CacheOperation], bytes: Int, namespace: Name, atomic: Bool
    ) async throws -> [CacheOperationResult] {
        try await transaction(bytes: bytes) { transaction in
            var reading = BatchReading(storage: self)
            var results: [CacheOperationResult] = []
            for operation in operations {
                let result = try transaction.step(operation, namespace: namespace, reading: &reading)
                results.append(result)
                if atomic, case .failed(let failure) = result, failure.code != .cacheMiss {
                    throw BatchAborted(index: results.count - 1, failure: failure)
                }
            }
            return results
        }
    }
}

/// Carries what undid an atomic batch out of its transaction.
private struct BatchAborted: Error {
    var index: Int
    var failure: Failure
}

extension CacheTransaction {
    /// One operation of a batch in a savepoint of its own.
    fileprivate func step(
        _ operation: CacheOperation, namespace: Name, reading: inout BatchReading
    ) throws -> CacheOperationResult {
        if case .get(let key) = operation {
            return try reading.get(key, namespace: namespace, connection: connection, now: now)
        }
        try connection.run("SAVEPOINT step")
        do {
            let result = try change(operation, namespace: namespace)
            try connection.run("RELEASE step")
            return result
        } catch let failure as Failure {
            try connection.run("ROLLBACK TO step")
            try connection.run("RELEASE step")
            return .failed(failure)
        }
    }

    private func change(_ operation: CacheOperation, namespace: Name) throws -> CacheOperationResult {
        switch operation {
        case .get: preconditionFailure("a get changes nothing")
        case .set(let write): return .stored(try set(write, namespace: namespace))
        case .delete(let key):
            try delete(key, namespace: namespace, condition: .none)
            return .deleted
        case .touch(let key, let lifetime):
            return .touched(try touch(key, namespace: namespace, timeToLive: lifetime, condition: .none))
        case .increment(let increment): return .counted(try self.increment(increment, namespace: namespace))
        }
    }
}

/// The gets of one batch, whose answer is bounded as a whole.
private struct BatchReading {
    let storage: SQLiteStorage
    var bytesLeft = Limits.maxBatchAnswerBytes

    init(storage: SQLiteStorage) { self.storage = storage }

    mutating func get(
        _ key: Key, namespace: Name, connection: Connection, now: Instant
    ) throws -> CacheOperationResult {
        let found = try connection.find(EntryAddress(namespace: namespace, key: key), now: now)
        guard case .live(let entry) = found.outcome else {
            if let id = found.namespaceID {
                storage.ledger.countMiss(namespaceID: id, reason: found.miss.reason, at: now)
            }
            return .failed(.miss(found.miss))
        }
        guard entry.sizeBytes <= bytesLeft else {
            return .failed(
                Failure(
                    .payloadTooLarge,
                    "The answer would exceed \(Limits.maxBatchAnswerBytes) bytes of values. Get this one singly."
                ))
        }
        bytesLeft -= entry.sizeBytes
        var bytes = entry.value
        if let blobID = entry.blobID {
            // Inside a transaction the chunks cannot go.
            while bytes.count < entry.sizeBytes { bytes += try connection.chunk(of: blobID, from: bytes.count) }
        }
        storage.ledger.countHit(namespaceID: found.namespaceID!, entryID: entry.id, at: now)
        return .value(entry.hit(content: .bytes(bytes), now: now), bytes)
    }
}

extension CacheOperation {
    /// About how many bytes it holds while it waits.
    fileprivate var heldBytes: Int {
        if case .set(let write) = self, case .bytes(let bytes) = write.content { bytes.count } else { 0 }
    }
}
