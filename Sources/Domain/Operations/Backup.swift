// Backups: copies of everything at one instant, and what an engine promises about them.

/// One backup.
public struct Backup: Sendable, Equatable {
    /// Unique among the backups. In order of names, backups are in the order in which they were made, as far as the
    /// clock was not set back.
    public var name: Name
    /// The instant whose state it holds: everything acknowledged before it, and nothing written after it.
    public var createdAt: Instant
    public var sizeBytes: Int
    /// The SHA-256 of its bytes.
    public var entityTag: EntityTag
    /// How long it took to make it and to verify it.
    public var durationSeconds: Double

    public init(name: Name, createdAt: Instant, sizeBytes: Int, entityTag: EntityTag, durationSeconds: Double) {
        self.name = name
        self.createdAt = createdAt
        self.sizeBytes = sizeBytes
        self.entityTag = entityTag
        self.durationSeconds = durationSeconds
    }
}

extension Backup {
    /// As the API answers it.
    public var json: JSON {
        [
            "name": .string(name.rawValue), "created_at": .instant(createdAt), "size_bytes": .integer(sizeBytes),
            "sha256": .string(entityTag.hex), "duration_seconds": .decimal(durationSeconds),
        ]
    }

    /// From what the API answers; nil for anything else.
    public init?(json: JSON) {
        guard let name = json["name"]?.stringValue.flatMap({ try? Name($0, field: "name") }),
            let createdAt = json["created_at"]?.stringValue.flatMap(Instant.init(rfc3339:)),
            let sizeBytes = json["size_bytes"]?.integerValue,
            let entityTag = json["sha256"]?.stringValue.flatMap(EntityTag.init(hex:)),
            let durationSeconds = json["duration_seconds"]?.doubleValue
        else { return nil }
        self.init(
            name: name, createdAt: createdAt, sizeBytes: Int(sizeBytes), entityTag: entityTag,
            durationSeconds: durationSeconds)
    }
}

/// What every storage engine that has backups promises about them.
///
/// A backup is one file, complete in itself. Those that are listed are complete and were verified; one that was not
/// finished, even because the process was killed, is never listed. They stay when the engine is closed.
public protocol BackupStore: Sendable {
    /// Makes a backup while reads and writes continue: none of them waits for it for longer than for a step of other
    /// background work. When it is made, the oldest beyond the setting `backup_keep` are removed, but never the newest.
    /// - Throws: `backup_running` while another is made; `storage_full` with the figures; `database_damaged` when the
    ///   copy is not sound; `shutting_down`; the storage failures. Nothing of it remains then.
    func createBackup() async throws -> Backup

    /// Backups in descending order of their names, below `name`.
    func backups(before name: Name?, limit: Int) async throws -> [Backup]

    /// Opens a backup for reading. It stays readable while the content is held, even if it is removed.
    /// - Throws: `backup_not_found`.
    func openBackup(_ name: Name) async throws -> (backup: Backup, content: any LargeValue)

    /// Removes a backup.
    /// - Throws: `backup_not_found`, `precondition_failed`.
    func deleteBackup(_ name: Name, condition: EntityCondition) async throws

    /// The latest one that was made, from memory; nil if there is none.
    var latestBackup: Backup? { get }
}
