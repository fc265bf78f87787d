// What every storage engine promises about the cache. Held by the contract tests, which run over each engine.

/// Durable cached results with expiry.
///
/// The engine's own clock decides what is live: an entry is gone from every answer at its `expiresAt`, swept or not.
/// Writes are atomic and in one order; a method that returns has made its effect durable. Besides what each method
/// names, all throw `overloaded`, `deadline_exceeded`, `shutting_down` and the storage failures.
public protocol CacheStore: Sendable {
    /// Reads a live entry and counts the hit or the miss.
    /// - Throws: `cache_miss` with its reason.
    func read(_ address: EntryAddress) async throws -> CacheHit

    /// Begins a value too large for memory. Abandoned uploads are swept away.
    /// - Parameter sizeBytes: its size, if it is known: a value that cannot be stored is refused before it is received.
    /// - Throws: `payload_too_large` for a value that the store will never have room for; `storage_full`.
    func beginUpload(sizeBytes: Int?) async throws -> any ValueUpload

    /// Stores a value, replacing any live or expired entry in one step: no reader sees a mix of the two.
    ///
    /// The namespace is created if needed. Its caps hold afterwards: other entries are evicted if they have to be.
    /// - Throws: `precondition_failed`, `payload_too_large` for the namespace's policy, `too_many_namespaces`.
    func write(_ write: CacheWrite, namespace: Name) async throws -> CacheWriteOutcome

    /// Removes an entry. It is not an error if there is none, unless `condition` requires one.
    /// - Returns: whether a live entry was removed.
    /// - Throws: `precondition_failed`.
    @discardableResult
    func delete(_ address: EntryAddress, condition: EntityCondition) async throws -> Bool

    /// - Throws: `cache_miss`. Counts neither as a hit nor as a miss.
    func metadata(_ address: EntryAddress) async throws -> CacheMetadata

    /// Renews an entry's lifetime from now on: with `timeToLive`, or with the one it had.
    /// - Throws: `precondition_failed`, `cache_miss`.
    func touch(
        _ address: EntryAddress, timeToLive: TimeToLive?, condition: EntityCondition
    ) async throws -> CacheMetadata

    /// Adds to an entry holding a JSON integer, creating it if absent.
    /// - Returns: the sum.
    /// - Throws: `not_an_integer`, `integer_overflow`, and what ``write(_:namespace:)`` throws.
    func increment(_ increment: CacheIncrement, namespace: Name) async throws -> Int64

    /// Performs operations in order, each seeing those before it, by the rules of ``CacheBatch``.
    /// - Returns: one result for each operation.
    func batch(_ operations: [CacheOperation], namespace: Name, atomic: Bool) async throws -> [CacheOperationResult]

    /// Live entries in the byte order of their keys, after `key`.
    func list(_ namespace: Name, filter: EntryFilter, after key: String?, limit: Int) async throws -> [CacheMetadata]

    /// Removes entries. Without a filter the cost does not grow with their number; with one, entries are removed in
    /// steps, and those written after the call began stay. A dry run only reports what that would remove now.
    func clear(_ namespace: Name, filter: EntryFilter, isDryRun: Bool) async throws -> Removal

    /// Removes a tag's entries across all namespaces, in steps; with nil, every entry of every namespace. A dry run
    /// only reports what that would remove now.
    func clearAll(tag: Tag?, isDryRun: Bool) async throws -> Removal

    /// Namespaces by name, after `name`.
    func namespaces(after name: String?, limit: Int) async throws -> [CacheNamespace]

    /// What the cache did in a span of time, excluding the end, and what it holds now. The span begins with the whole
    /// minute, or the whole hour where minutes are no longer kept, that holds its beginning. Counters may lag by a
    /// second or two.
    /// - Parameters:
    ///   - stepMilliseconds: also reports steps, which begin at multiples of this length, as ``MetricQuery/steps``.
    ///   - limit: how many namespaces are named, the busiest first.
    func figures(in range: MetricRange, stepMilliseconds: Int64?, limit: Int) async throws -> CacheFigures

    /// - Throws: `namespace_not_found`.
    func namespace(_ name: Name) async throws -> CacheNamespace

    /// Sets a namespace's policy, creating it if absent. New caps are in force when this returns, except for what the
    /// background task still has to evict; lifetimes of entries already there do not change.
    /// - Returns: the namespace, and whether it was created.
    /// - Throws: `too_many_namespaces`.
    func setPolicy(_ policy: CachePolicy, of name: Name) async throws -> (namespace: CacheNamespace, created: Bool)

    /// Removes a namespace: entries, figures and policy.
    /// - Throws: `namespace_not_found`.
    func removeNamespace(_ name: Name) async throws
}

extension CacheStore {
    public func beginUpload() async throws -> any ValueUpload { try await beginUpload(sizeBytes: nil) }

    public func clear(_ namespace: Name, filter: EntryFilter) async throws -> Removal {
        try await clear(namespace, filter: filter, isDryRun: false)
    }

    public func clearAll(tag: Tag?) async throws -> Removal { try await clearAll(tag: tag, isDryRun: false) }
}
