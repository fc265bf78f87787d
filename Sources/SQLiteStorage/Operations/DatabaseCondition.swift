// What only this engine can tell about its file: log, free pages, schema, library, disk.

import Domain
import Glibc

extension Finding.Code {
    static let logLarge = Self(rawValue: "log_large")
    static let freeSpaceHigh = Self(rawValue: "free_space_high")
    static let spaceNotReturned = Self(rawValue: "space_not_returned")
    static let indexMissing = Self(rawValue: "index_missing")
    static let schemaDiffers = Self(rawValue: "schema_differs")
    static let sqliteDefect = Self(rawValue: "sqlite_wal_reset_defect")
    static let diskNearlyFull = Self(rawValue: "disk_nearly_full")
    static let diskFull = Self(rawValue: "disk_full")
    static let databaseReplaced = Self(rawValue: "database_replaced")
    static let clockSet = Self(rawValue: "clock_set")
    static let writerSaturated = Self(rawValue: "writer_saturated")
}

/// The figures of one database file, and the rules about them. The rules are pure, as those of ``DiagnosticSnapshot``.
struct DatabaseCondition: Sendable, Equatable {
    var path: String
    var fileBytes = 0
    var logBytes = 0
    /// Bytes of free pages inside the file.
    var freeBytes = 0
    /// Whether free pages can be returned to the file system in steps (`auto_vacuum`).
    var returnsSpace = true
    var schema = SchemaComparison()
    var libraryVersion = Connection.libraryVersion
    /// Bytes that are free on the disk; nil if unknown.
    var diskFreeBytes: Int? { space.freeBytes }
    var diskBytes: Int?
    /// The disk, and what a server does about it.
    var space = DiskSpace.Figures()
    /// Writes that wait; nil without a server.
    var queuedWrites: Int?
    /// Whether the file that a server has open is no longer the one under its name.
    var isReplaced = false
    /// Values that were found to be damaged since the server was started.
    var damagedReads = 0
    /// How often the clock was set since then, in the last ``DiagnosticThresholds/clockJumpMilliseconds``.
    var clockJumps = 0
    var latestClockJump: ClockWatch.Jump?

    init(path: String) { self.path = path }

    /// - Parameter version: of the database's schema.
    init(_ connection: Connection, path: String, version: Int) throws {
        self.path = path
        fileBytes = FileSystem.size(of: path) ?? 0
        logBytes = FileSystem.size(of: path + "-wal") ?? 0
        let pageBytes = try connection.first("PRAGMA page_size") { $0.int(0) } ?? 0
        freeBytes = pageBytes * (try connection.freePages())
        // 2 is INCREMENTAL. https://sqlite.org/pragma.html#pragma_auto_vacuum
        returnsSpace = try connection.first("PRAGMA auto_vacuum") { $0.int(0) } == 2
        schema = try SchemaComparison(connection, version: version)
        (space.freeBytes, diskBytes) = FreeSpace.figures(at: path)
    }

    var findings: [Finding] { replacement + log + freePages + objects + library + disk + writer + damage + clock }

    private typealias Thresholds = DiagnosticThresholds

    private var replacement: [Finding] { isReplaced ? [.databaseReplaced(path)] : [] }

    private var log: [Finding] {
        guard logBytes > Thresholds.logBytes else { return [] }
        return [
            Finding(
                .warning, .logLarge, "The write-ahead log has \(logBytes >> 20) MiB",
                detail: "It is written back every 4 MiB and truncated to \(StorageLimits.maxLogBytes >> 20) MiB, "
                    + "unless a read that does not end keeps it from that. A long log makes reads slower and fills the "
                    + "disk.",
                evidence: [
                    "log_bytes": .integer(logBytes), "truncated_to_bytes": .integer(StorageLimits.maxLogBytes),
                    "database_bytes": .integer(fileBytes),
                ],
                remedy: "Find the programs that have the file open with 'fuser -v \(path)', and end the one that holds "
                    + "a read transaction: an sqlite3 shell or Datasette left open, a copy that hangs. Never delete "
                    + "the log.")
        ]
    }

    private var freePages: [Finding] {
        guard fileBytes > 0, Double(freeBytes) > Thresholds.freeShare * Double(fileBytes),
            freeBytes > Thresholds.freeBytes
        else { return [] }
        let evidence: JSON = ["free_bytes": .integer(freeBytes), "database_bytes": .integer(fileBytes)]
        guard returnsSpace else {
            return [
                Finding(
                    .warning, .spaceNotReturned, "The database cannot return free space to the disk",
                    detail: "\(freeBytes >> 20) of its \(fileBytes >> 20) MiB are free, but it was made without "
                        + "auto_vacuum=INCREMENTAL: by a dump that was read in again, for example.",
                    evidence: evidence,
                    remedy: "Stop the server, run sqlite3 \(path) \"PRAGMA auto_vacuum=2; VACUUM\" with as much free "
                        + "disk space as the database has, and start it again.")
            ]
        }
        return [
            Finding(
                .info, .freeSpaceHigh, "\(freeBytes >> 20) of the database's \(fileBytes >> 20) MiB are free",
                detail: "Freed pages are returned in small steps, except for a tenth of the file. After much was "
                    + "removed this takes a while.",
                evidence: evidence,
                remedy: "If it lasts, POST /v1/maintenance/cleanup with {\"tasks\": [\"space\"]}, which reports an "
                    + "error if there is one.")
        ]
    }

    private var objects: [Finding] {
        var findings: [Finding] = []
        for index in schema.missing where index.kind == .index {
            findings.append(
                Finding(
                    index.isUnique ? .critical : .warning, .indexMissing, "The index \(index.name) is missing",
                    detail: index.isUnique
                        ? "Writes that rely on it fail, and reads walk a whole table."
                        : "Statements that use it by name fail, and others walk a whole table.",
                    remedy: "Stop the server, run sqlite3 \(path) \"\(index.definition)\" and start it again."))
        }
        let missing = schema.missing.filter { $0.kind != .index }
        let others = schema.changed + schema.foreignTriggers
        guard !missing.isEmpty || !others.isEmpty else { return findings }
        func list(_ objects: [SchemaComparison.Object]) -> String {
            objects.map { "\($0.kind.rawValue) \($0.name)" }.joined(separator: ", ")
        }
        var seen: [String] = []
        if !missing.isEmpty { seen.append("Missing: \(list(missing)).") }
        if !schema.changed.isEmpty { seen.append("Defined differently: \(list(schema.changed)).") }
        if !schema.foreignTriggers.isEmpty { seen.append("Added by somebody: \(list(schema.foreignTriggers)).") }
        findings.append(
            Finding(
                missing.isEmpty ? .warning : .critical, .schemaDiffers, "The schema is not what the migrations make",
                detail: seen.joined(separator: " ") + " Another program has changed it.",
                evidence: [
                    "missing_objects": .integer(missing.count), "changed_objects": .integer(schema.changed.count),
                    "foreign_triggers": .integer(schema.foreignTriggers.count),
                ],
                remedy: "Undo the change with sqlite3 while the server is stopped, or restore a backup from before "
                    + "it."))
        return findings
    }

    /// The data race of checkpoints, in 3.7.0 to 3.51.2 but for two maintained branches.
    /// https://sqlite.org/wal.html#walresetbug
    static func hasCheckpointRace(_ version: Int) -> Bool {
        let fixed =
            version >= 3_051_003 || (3_050_007..<3_051_000).contains(version)
            || (3_044_006..<3_045_000).contains(version)
        return version >= 3_007_000 && !fixed
    }

    private var library: [Finding] {
        guard Self.hasCheckpointRace(libraryVersion) else { return [] }
        let text = "\(libraryVersion / 1_000_000).\(libraryVersion / 1000 % 1000).\(libraryVersion % 1000)"
        return [
            Finding(
                .info, .sqliteDefect, "SQLite \(text) has a defect that this service cannot meet",
                detail: "In versions before 3.51.3, two connections that write and checkpoint at the same moment may "
                    + "damage the database. The service has a single connection that does either, and a lock that "
                    + "keeps a second server out.",
                evidence: ["sqlite_version": .integer(libraryVersion), "fixed_in_version": .integer(3_051_003)],
                remedy: "Open the database with other programs only read-only (sqlite3 -readonly): one that writes to "
                    + "it could meet the defect. An update of libsqlite3-0 to 3.51.3 or later removes it.")
        ]
    }

    private var disk: [Finding] {
        guard !space.isShort else { return [fullDisk] }
        guard let free = space.freeBytes, free < Thresholds.diskFreeBytes else { return [] }
        let isCritical = free < Thresholds.criticalDiskFreeBytes
        var evidence: [JSON.Member] = [
            .init(name: "disk_free_bytes", value: .integer(free)),
            .init(name: "database_bytes", value: .integer(fileBytes)),
            .init(name: "log_bytes", value: .integer(logBytes)),
        ]
        if let diskBytes { evidence.append(.init(name: "disk_bytes", value: .integer(diskBytes))) }
        return [
            Finding(
                isCritical ? .critical : .warning, .diskNearlyFull, "\(free >> 20) MiB are left on the disk",
                detail: "When it is full, writes are refused with 507 storage_full.", evidence: .object(evidence),
                remedy: "Free space on the disk or enlarge it. To make the database smaller, clear namespaces that are "
                    + "not needed (GET /v1/metrics/cache lists their sizes) and give "
                    + "the others max_bytes.")
        ]
    }

    private var fullDisk: Finding {
        var evidence: [JSON.Member] = [
            .init(name: "refused_writes", value: .integer(space.refusedWrites)),
            .init(name: "reserve_bytes", value: .integer(space.reserveBytes)),
        ]
        if let free = space.freeBytes { evidence.append(.init(name: "disk_free_bytes", value: .integer(free))) }
        return Finding(
            .critical, .diskFull, "The disk is full",
            detail: "Writes are refused with 507 storage_full, except those that remove something. Reads go on.",
            evidence: .object(evidence),
            remedy: "Free space on the disk of \(path), but leave the files whose names begin with the database's. Or "
                + "delete entries, sessions or namespaces, which works now. Writes are accepted again by themselves.")
    }

    private var damage: [Finding] {
        guard damagedReads > 0 else { return [] }
        return [
            Finding(
                .critical, .damageSeen, "Stored values are damaged",
                detail: "\(damagedReads) reads since the server was started met a value that does not have the SHA-256 "
                    + "it was stored with. They were answered 503 database_damaged.",
                evidence: ["damaged_reads": .integer(damagedReads)],
                remedy: "Stop the server and keep the files. 'reprise doctor --deep' lists the values. Restore a "
                    + "backup, or delete them; and check the disk before you rely on it again.")
        ]
    }

    private var clock: [Finding] {
        guard clockJumps > 0, let latest = latestClockJump else { return [] }
        let seconds = Double(latest.milliseconds) / 1000
        let isForward = latest.milliseconds > 0
        return [
            Finding(
                .warning, .clockSet,
                "The machine's clock was set \(isForward ? "forward" : "back") by \(abs(latest.milliseconds) / 1000) s",
                detail: isForward
                    ? "What expired by that is in no answer. It is deleted after an hour, unless the clock is set back "
                        + "before."
                    : "Lifetimes that were too long by that have been shortened.",
                evidence: ["jumps": .integer(clockJumps), "latest_jump_seconds": .decimal(seconds)],
                remedy: "Let the machine's clock be kept by NTP, which moves it in small steps: 'timedatectl' says "
                    + "whether it is.")
        ]
    }

    private var writer: [Finding] {
        guard let queuedWrites, queuedWrites > Thresholds.queuedWrites else { return [] }
        return [
            Finding(
                .critical, .writerSaturated, "\(queuedWrites) writes are waiting",
                detail: "At \(StorageLimits.maxQueuedWrites), further ones are answered 503.",
                evidence: [
                    "queued_writes": .integer(queuedWrites),
                    "max_queued_writes": .integer(StorageLimits.maxQueuedWrites),
                ],
                remedy: "The disk is too slow for the writes: combine them in batches, send fewer, or use a faster "
                    + "disk. durability=normal does not wait for the disk, but may lose the last commits in a power "
                    + "cut.")
        ]
    }
}

extension Finding {
    static func databaseReplaced(_ path: String) -> Finding {
        Finding(
            .critical, .databaseReplaced, "The database's file was removed, moved or replaced while the server runs",
            detail: "Writes are refused with 503 database_replaced. Reads go on, from the file that the server has "
                + "open.",
            remedy: "Put \(path) and its -wal back: the server notices. If they are lost, POST /v1/backups still "
                + "copies the open file; then stop the server, and restore the backup.")
    }
}
