// The file beside each backup: what the backup itself cannot hold.

import Domain
import FoundationEssentials

/// The facts about a backup, as JSON. What a later version adds is ignored.
struct BackupFacts: Equatable {
    var createdAt: Instant
    var sizeBytes: Int
    var entityTag: EntityTag
    var durationSeconds: Double
    /// The path of the database that was copied.
    var database: String

    /// What a backup's name is followed by.
    static let suffix = ".json"

    init(_ backup: Backup, database: String) {
        self.init(
            createdAt: backup.createdAt, sizeBytes: backup.sizeBytes, entityTag: backup.entityTag,
            durationSeconds: backup.durationSeconds, database: database)
    }

    init(createdAt: Instant, sizeBytes: Int, entityTag: EntityTag, durationSeconds: Double, database: String) {
        self.createdAt = createdAt
        self.sizeBytes = sizeBytes
        self.entityTag = entityTag
        self.durationSeconds = durationSeconds
        self.database = database
    }

    /// - Returns: nil if there is no such file, or if it is not what this program writes.
    init?(contentsOf path: String) {
        guard let size = FileSystem.size(of: path), size <= StorageLimits.maxBackupFactsBytes,
            let bytes = FileManager.default.contents(atPath: path), let json = try? JSON(parsing: Array(bytes)),
            let createdAt = json["created_at"]?.stringValue.flatMap(Instant.init(rfc3339:)),
            let sizeBytes = json["size_bytes"]?.integerValue,
            let entityTag = json["sha256"]?.stringValue.flatMap(EntityTag.init(hex:)),
            let durationSeconds = json["duration_seconds"]?.doubleValue
        else { return nil }
        self.init(
            createdAt: createdAt, sizeBytes: Int(sizeBytes), entityTag: entityTag, durationSeconds: durationSeconds,
            database: json["database"]?.stringValue ?? "")
    }

    func backup(named name: Name) -> Backup {
        Backup(
            name: name, createdAt: createdAt, sizeBytes: sizeBytes, entityTag: entityTag,
            durationSeconds: durationSeconds)
    }

    /// Writes a new file and syncs it.
    func write(to path: String, isOfService: Bool = true) throws(FileError) {
        let json: JSON = [
            "created_at": .instant(createdAt), "size_bytes": .integer(sizeBytes), "sha256": .string(entityTag.hex),
            "duration_seconds": .decimal(durationSeconds), "database": .string(database),
            "reprise_version": .string(Version.current),
        ]
        let file = try NewFile(path, isOfService: isOfService)
        try (json.utf8 + [UInt8(ascii: "\n")]).withUnsafeBufferPointer { (bytes) throws(FileError) in
            try file.write(UnsafeRawBufferPointer(bytes))
        }
        try file.sync()
    }
}
