// The database's schema, step by step. To change it add a file and a line here; never edit a file that was released.

/// One step: forward only, applied in a transaction of its own.
public struct Migration: Sendable {
    /// Counts from 1 without gaps.
    public let version: Int
    /// The file's name without its number and extension.
    public let name: String
    /// The statements, as UTF-8.
    public let script: [UInt8]

    public init(version: Int, name: String, script: [UInt8]) {
        self.version = version
        self.name = name
        self.script = script
    }

    /// All steps, in order. SwiftPM turns `0001_cache.sql` into `_001_cache_sql`.
    public static let all = [
        Migration(version: 1, name: "cache", script: PackageResources._001_cache_sql),
        Migration(version: 2, name: "operations", script: PackageResources._002_operations_sql),
        Migration(version: 3, name: "sessions", script: PackageResources._003_sessions_sql),
        Migration(version: 4, name: "samples", script: PackageResources._004_samples_sql),
        Migration(version: 5, name: "views", script: PackageResources._005_views_sql),
        Migration(version: 6, name: "activity", script: PackageResources._006_activity_sql),
        Migration(version: 7, name: "expiry", script: PackageResources._007_expiry_sql),
        Migration(version: 8, name: "miss_reasons", script: PackageResources._008_miss_reasons_sql),
        Migration(version: 9, name: "session_versions", script: PackageResources._009_session_versions_sql),
        Migration(version: 10, name: "write_numbers", script: PackageResources._010_write_numbers_sql),
        Migration(version: 11, name: "access", script: PackageResources._011_access_sql),
        Migration(version: 12, name: "idempotency", script: PackageResources._012_idempotency_sql),
    ]
}
