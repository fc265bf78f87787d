// Large values, received and sent chunk by chunk.

import Domain
import Synchronization

/// Writes chunks that nothing points at yet. If an upload is dropped before an entry has taken the blob, the blob is an
/// orphan, which the sweep removes.
final class BlobUpload: ValueUpload {
    let blobID: Int64
    private let storage: SQLiteStorage
    private let lease: BlobLeases.Lease
    private let chunks = Atomic(0)
    private let bytes = Atomic(0)

    init(storage: SQLiteStorage) throws {
        blobID = storage.signals.nextBlobID.wrappingAdd(1, ordering: .relaxed).oldValue
        self.storage = storage
        guard let lease = storage.leases.lease(blobID) else { preconditionFailure("a new blob id is in use") }
        self.lease = lease
    }

    /// Whether nothing has been appended yet, in which case there is no blob.
    var isEmpty: Bool { chunks.load(ordering: .relaxed) == 0 }

    deinit {
        storage.unfinishedUploadBytes.wrappingSubtract(bytes.load(ordering: .relaxed), ordering: .relaxed)
        // The blob may be attached by now or not: the sweep checks.
        storage.signals.hasOrphans.store(true, ordering: .relaxed)
    }

    func append(_ bytes: [UInt8]) async throws {
        let number = chunks.wrappingAdd(1, ordering: .relaxed).oldValue
        self.bytes.wrappingAdd(bytes.count, ordering: .relaxed)
        storage.unfinishedUploadBytes.wrappingAdd(bytes.count, ordering: .relaxed)
        let (blobID, clock) = (blobID, storage.clock)
        try await storage.writer.perform(bytes: bytes.count, .withNext) { connection in
            if number == 0 { try connection.insertBlob(blobID, now: clock.now()) }
            try connection.insertChunk(bytes, number: number, of: blobID)
        }
    }
}

/// A large value that is being sent.
final class StoredBlob: LargeValue {
    private let blobID: Int64
    private let readers: Readers
    private let lease: BlobLeases.Lease
    private let check: StreamedCheck?

    /// - Parameter check: nil if the value need not be checked this time.
    init(readers: Readers, lease: BlobLeases.Lease, check: StreamedCheck?) {
        self.blobID = lease.blobID
        self.readers = readers
        self.lease = lease
        self.check = check
    }

    func read(from offset: Int, atMost count: Int) async throws -> [UInt8] {
        let blobID = blobID
        let bytes = try await readers.pooled(.chunks) { connection in
            try connection.chunk(of: blobID, from: offset, atMost: count)
        }
        try check?.add(bytes, from: offset)
        return bytes
    }
}

extension Connection {
    func insertBlob(_ blobID: Int64, now: Instant) throws(SQLiteError) {
        try run("INSERT INTO cache_blobs (blob_id, created_at_ms) VALUES (?1, ?2)", .integer(blobID), .instant(now))
    }

    func insertChunk(_ bytes: [UInt8], number: Int, of blobID: Int64) throws(SQLiteError) {
        try run(
            "INSERT INTO cache_chunks (blob_id, number, data) VALUES (?1, ?2, ?3)",
            .integer(blobID), .integer(number), .blob(bytes))
    }

    /// The rest of the chunk in which `offset` lies, or the beginning of it.
    func chunk(of blobID: Int64, from offset: Int, atMost count: Int = Limits.chunkBytes) throws -> [UInt8] {
        let (number, skipped) = offset.quotientAndRemainder(dividingBy: Limits.chunkBytes)
        let sql: StaticString =
            "SELECT substr(data, ?3, ?4) FROM cache_chunks WHERE blob_id = ?1 AND number = ?2"
        let bytes = try first(
            sql, .integer(blobID), .integer(number), .integer(skipped + 1), .integer(count)
        ) { $0.blob(0) }
        guard let bytes, !bytes.isEmpty else { throw Failure.valueMissing }
        return bytes
    }

    func hasBlob(_ blobID: Int64) throws(SQLiteError) -> Bool {
        try first("SELECT 1 FROM cache_blobs WHERE blob_id = ?1", .integer(blobID)) { _ in true } ?? false
    }
}

extension Failure {
    static let valueMissing = Failure(.databaseDamaged, "A part of the stored value is missing.")
}
