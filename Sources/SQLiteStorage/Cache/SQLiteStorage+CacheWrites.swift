// Changing the cache, entry by entry and in batches.

import Domain

extension SQLiteStorage: CacheStore {
    public func beginUpload(sizeBytes: Int?) async throws -> any ValueUpload {
        if space.isShort { throw space.refusal() }
        if let sizeBytes {
            if let limit = databaseLimit, sizeBytes > limit.mostValueBytes {
                throw Failure(
                    .payloadTooLarge,
                    "The value is larger than what max_database_bytes, \(limit.bytes) bytes, has room for. Nothing was "
                        + "stored.")
            }
            guard space.hasRoom(for: sizeBytes) else { throw space.refusal() }
        }
        return try BlobUpload(storage: self)
    }

    public func write(_ write: CacheWrite, namespace: Name) async throws -> CacheWriteOutcome {
        let bytes = if case .bytes(let bytes) = write.content { bytes.count } else { 0 }
        return try await transaction(bytes: bytes) { try $0.set(write, namespace: namespace) }
    }

    @discardableResult
    public func delete(_ address: EntryAddress, condition: EntityCondition) async throws -> Bool {
        try await transaction(.foreground, .shrinking) {
            try $0.delete(address.key, namespace: address.namespace, condition: condition)
        }
    }

    public func touch(
        _ address: EntryAddress, timeToLive: TimeToLive?, condition: EntityCondition
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
        let batch = CacheBatch(operations, isAtomic: atomic)
        do {
            return batch.onlyReads
                ? try await read(batch, namespace: namespace) : try await change(batch, namespace: namespace)
        } catch let aborted as CacheBatch.Aborted {
            return aborted.results
        }
    }

    /// Performs a batch that only reads, on one snapshot.
    private func read(_ batch: CacheBatch, namespace: Name) async throws -> [CacheOperationResult] {
        try await readers.consistently { connection in
            var reading = BatchReading(storage: self)
            return try batch.run { operation in
                guard case .get(let key) = operation else { preconditionFailure("only gets") }
                return try reading.get(key, namespace: namespace, connection: connection, now: self.clock.now())
            }
        }
    }

    private func change(_ batch: CacheBatch, namespace: Name) async throws -> [CacheOperationResult] {
        let growth: Writer.Growth = batch.operations.allSatisfy(\.onlyRemoves) ? .shrinking : .growing
        let bytes = batch.operations.reduce(0) { $0 + $1.heldBytes }
        return try await transaction(.foreground, growth, bytes: bytes) { transaction in
            var reading = BatchReading(storage: self)
            return try batch.run { try transaction.step($0, namespace: namespace, reading: &reading) }
        }
    }
}

extension CacheTransaction {
    /// One operation of a batch in its own savepoint, which undoes the changes of a failed operation.
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
            throw failure
        }
    }

    private func change(_ operation: CacheOperation, namespace: Name) throws -> CacheOperationResult {
        switch operation {
        case .get, .invalid: preconditionFailure("there is nothing to change")
        case .set(let write): return .stored(try set(write, namespace: namespace))
        case .delete(let key, let condition):
            return .deleted(try delete(key, namespace: namespace, condition: condition))
        case .touch(let key, let lifetime, let condition):
            return .touched(try touch(key, namespace: namespace, timeToLive: lifetime, condition: condition))
        case .increment(let increment): return .counted(try self.increment(increment, namespace: namespace))
        }
    }
}

/// The gets of one batch, with a bound on the whole answer.
private struct BatchReading {
    let storage: SQLiteStorage
    private var allowance = CacheBatchAllowance()

    init(storage: SQLiteStorage) { self.storage = storage }

    mutating func get(
        _ key: Key, namespace: Name, connection: Connection, now: Instant
    ) throws -> CacheOperationResult {
        let found = try connection.find(EntryAddress(namespace: namespace, key: key), now: now)
        guard case .live(let entry) = found.outcome else {
            if let id = found.namespaceID {
                storage.ledger.countMiss(namespaceID: id, found.miss, at: now)
            }
            throw Failure.miss(found.miss)
        }
        try allowance.take(entry.sizeBytes)
        var bytes = entry.value
        if let blobID = entry.blobID {
            // Inside a transaction the chunks cannot be removed.
            while bytes.count < entry.sizeBytes { bytes += try connection.chunk(of: blobID, from: bytes.count) }
        }
        try storage.valueCheck.require(bytes, toBe: entry.digest, entryID: entry.id)
        storage.ledger.countHit(namespaceID: found.namespaceID!, entryID: entry.id, at: now)
        return .value(entry.hit(content: .bytes(bytes), now: now), bytes)
    }
}

extension CacheOperation {
    fileprivate var onlyRemoves: Bool {
        switch self {
        case .get, .delete, .invalid: true
        case .set, .touch, .increment: false
        }
    }

    /// About how many bytes it holds while it waits.
    fileprivate var heldBytes: Int {
        if case .set(let write) = self, case .bytes(let bytes) = write.content { bytes.count } else { 0 }
    }
}
