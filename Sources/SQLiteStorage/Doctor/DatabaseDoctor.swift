// Examines a database file that need not be healthy, without a server and without changing it.

import Domain
import Glibc
import Migrations

extension Finding.Code {
    static let databaseMissing = Self(rawValue: "database_missing")
    static let databaseForeign = Self(rawValue: "database_foreign")
    static let databaseDamaged = Self(rawValue: "database_damaged")
    static let notADatabase = Self(rawValue: "not_a_database")
    static let hardLinks = Self(rawValue: "hard_links")
    static let filesReadable = Self(rawValue: "files_readable_by_others")
    static let fileReadOnly = Self(rawValue: "file_read_only")
    static let schemaOld = Self(rawValue: "schema_old")
    static let schemaNewer = Self(rawValue: "schema_newer")
    static let expiredLeftovers = Self(rawValue: "expired_leftovers")
}

/// Reads a database file for `reprise doctor`. Whatever is wrong with it becomes a finding.
///
/// The file is never written. Where no log is left beside it, it is read as immutable, so that SQLite creates nothing
/// next to it; otherwise the log has to be read too, and SQLite makes the log's index (`-shm`) again if it is missing.
public struct DatabaseDoctor: Sendable {
    public let path: String
    private let now: Instant
    /// Whether a server has the file open, which then sweeps it.
    private let isHeld: Bool
    private let backups: BackupFolder

    /// - Parameters:
    ///   - path: of the file, which need not exist.
    ///   - backupDirectory: the setting.
    ///   - claim: keeps a server from starting meanwhile, or says that one runs.
    public init(path: String, backupDirectory: String, claim: FileClaim, now: Instant) {
        self.path = path
        backups = BackupFolder(setting: backupDirectory, database: claim.database)
        self.now = now
        isHeld = claim.isHeld
    }

    /// - Parameters:
    ///   - isDeep: whether every row and every value is checked, which reads the whole file.
    ///   - progress: called often during a deep examination.
    public func examine(isDeep: Bool, progress: (ExaminationProgress) -> Void) -> DiagnosticFigures {
        var figures = DiagnosticFigures()
        let (findings, isReadable) = lookAtFiles()
        figures.findings = findings
        guard isReadable else { return figures }
        do {
            let connection = try open()
            let version = try schemaVersion(connection, &figures)
            guard let version else { return figures }
            // A damaged page must not hide what can be found elsewhere.
            var problems: [Finding] = []
            do {
                figures.findings += try DatabaseCondition(connection, path: path, version: version).findings
                if version == Migration.all.count { try look(at: connection, &figures) }
            } catch {
                problems.append(finding(for: error))
            }
            if isDeep {
                var examination = DeepExamination(connection, path: path, isCurrent: version == Migration.all.count)
                figures.findings += examination.run(progress)
            }
            figures.findings += problems.filter { problem in
                !figures.findings.contains { $0.code == problem.code }
            }
        } catch let error as OpeningError {
            figures.findings.append(
                Finding(
                    .critical, .databaseForeign, "The file belongs to another program", detail: error.description,
                    remedy: "Choose another path with --database."))
        } catch {
            figures.findings.append(finding(for: error))
        }
        return figures
    }

    // MARK: Files

    private func lookAtFiles() -> (findings: [Finding], isReadable: Bool) {
        var status = stat()
        guard stat(path, &status) == 0 else {
            let code = errno
            guard code == ENOENT else { return ([unreadable(code)], false) }
            guard !isHeld else { return ([.databaseReplaced(path)], false) }
            return (
                [
                    Finding(
                        .warning, .databaseMissing, "There is no database at \(path)",
                        detail: "'reprise serve' would create a new, empty one there.",
                        remedy: "If you expect data, check --database, REPRISE_DATABASE and the working directory. "
                            + "Otherwise start the server.")
                ], false
            )
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            return (
                [
                    Finding(
                        .critical, .notADatabase, "\(path) is not a file",
                        detail: "It is a folder or a device.", remedy: "Give the path of a file with --database.")
                ], false
            )
        }
        guard access(path, R_OK) == 0 else { return ([unreadable(errno)], false) }
        var findings: [Finding] = []
        if status.st_nlink > 1 {
            findings.append(
                Finding(
                    .critical, .hardLinks, "The file has several names",
                    detail: "Servers that use different ones would damage it, because the log is named after the file.",
                    evidence: ["link_count": .integer(Int(status.st_nlink))],
                    remedy: "Remove the other links: find / -xdev -inum \(status.st_ino) lists them."))
        }
        findings += permissions()
        guard status.st_size > 0 else {
            findings.append(
                Finding(
                    .warning, .databaseMissing, "The file is empty",
                    detail: "'reprise serve' would make a new database of it.",
                    remedy: "If you expect data, restore a backup. Otherwise start the server."))
            return (findings, false)
        }
        guard hasHeader() else {
            findings.append(
                Finding(
                    .critical, .notADatabase, "The file is not an SQLite database",
                    detail: "It does not begin as one does.", evidence: ["file_bytes": .integer(Int(status.st_size))],
                    remedy: "Choose another path with --database. If this was a database, its beginning was "
                        + "overwritten: keep the file, and restore a backup."))
            return (findings, false)
        }
        return (findings, true)
    }

    private func unreadable(_ code: Int32) -> Finding {
        Finding(
            .critical, .databaseUnreadable, "The database cannot be read",
            detail: "\(path): \(String(cString: strerror(code))).",
            remedy: "Run this as the user that the server runs as, and check the permissions of the folders above it.")
    }

    private func permissions() -> [Finding] {
        let files = [path, path + "-wal", path + "-shm"]
        let open = files.filter { file in
            var status = stat()
            return stat(file, &status) == 0 && status.st_mode & 0o077 != 0
        }
        var findings: [Finding] = []
        if !open.isEmpty {
            findings.append(
                Finding(
                    .warning, .filesReadable, "Other users of this machine may read the database",
                    detail: "These files are open to others: \(open.joined(separator: ", ")).",
                    evidence: ["file_count": .integer(open.count)],
                    remedy: "chmod 600 \(open.joined(separator: " "))"))
        }
        if access(path, W_OK) != 0 {
            findings.append(
                Finding(
                    .warning, .fileReadOnly, "This user may not write the database",
                    detail: "\(path): \(String(cString: strerror(errno))). A server that runs as this user cannot "
                        + "start.",
                    remedy: "Make the file and its folder writable for the user that the server runs as: chown and "
                        + "chmod 600; on a read-only file system, mount it writable."))
        }
        return findings
    }

    private func hasHeader() -> Bool {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var header = [UInt8](repeating: 0, count: 16)
        // https://sqlite.org/fileformat.html#the_database_header
        return read(descriptor, &header, header.count) == header.count
            && header == Array("SQLite format 3".utf8) + [0]
    }

    // MARK: The database

    private func open() throws -> Connection {
        let hasLog = FileSystem.size(of: path + "-wal") ?? 0 > 0
        let connection = try Connection(path: path, mode: hasLog || isHeld ? .reader : .immutable)
        try connection.configureReader(cacheKibibytes: StorageLimits.doctorCacheKibibytes)
        try Migrator().checkOwnership(connection)
        return connection
    }

    /// The schema's version, if this program knows it.
    private func schemaVersion(_ connection: Connection, _ figures: inout DiagnosticFigures) throws -> Int? {
        let known = Migration.all
        let hasTable = try connection.first("SELECT 1 FROM sqlite_schema WHERE name = 'schema_migrations'") {
            $0.int(0)
        }
        let applied =
            try hasTable.map { _ in
                try connection.all("SELECT version, name, sha256 FROM schema_migrations ORDER BY version") {
                    (version: $0.int(0), name: $0.text(1), checksum: $0.text(2))
                }
            } ?? []
        for (place, row) in applied.enumerated() {
            guard place < known.count, row.version == known[place].version else {
                figures.findings.append(
                    Finding(
                        .critical, .schemaNewer, "The database is of a newer version of reprise",
                        detail: "It has migration \(row.version) (\(row.name)), which \(Version.current) does not "
                            + "know. A server of this version refuses to start.",
                        evidence: [
                            "schema_version": .integer(applied.last!.version), "known_version": .integer(known.count),
                        ],
                        remedy: "Run the version that created it, or restore a backup from before the upgrade."))
                return nil
            }
            guard row.checksum == Migrator.checksum(of: known[place]) else {
                figures.findings.append(
                    Finding(
                        .critical, .schemaDiffers, "Migration \(row.version) was applied with a different text",
                        detail: "Released migrations never change, so the schema is not the one this program expects. "
                            + "A server of this version refuses to start.",
                        evidence: ["migration": .integer(row.version)],
                        remedy: "Run the build that created the database, or restore a backup."))
                return nil
            }
        }
        if applied.count < known.count {
            figures.findings.append(
                Finding(
                    .info, .schemaOld, "The schema will be updated by the next start",
                    detail: "It is at version \(applied.count) of \(known.count). There is no way back except a "
                        + "backup.",
                    evidence: ["schema_version": .integer(applied.count), "known_version": .integer(known.count)],
                    remedy: "Make a backup if you may want to go back, then start the server or run 'reprise "
                        + "migrate'."))
        }
        return applied.count
    }

    private func look(at connection: Connection, _ figures: inout DiagnosticFigures) throws {
        try connection.consistently {
            var stored = try connection.diagnosticRows(now: now).stored
            // Without a server nobody sweeps, so nothing is late.
            if !isHeld {
                figures.findings += try leftovers(connection)
                stored.lagSeconds = [:]
            }
            figures.stored = stored
            // An older schema may have none.
            figures.hasTokens = try? connection.first("SELECT count(*) FROM access_tokens") { $0.int(0) > 0 }
            let latest = (try? backups.ownBackups())?.first
            func age(_ instant: Instant?) -> Double? { instant.map { Double(now.milliseconds(since: $0)) / 1000 } }
            figures.backups = DiagnosticFigures.Backups(
                latestAge: age(latest?.createdAt), databaseAge: age(try connection.createdAt()))
        }
    }

    private func leftovers(_ connection: Connection) throws -> [Finding] {
        let expired = try connection.due(now: now).values.reduce(into: Removal()) {
            $0.removed += $1.removed
            $0.freedBytes += $1.freedBytes
        }
        let sessions = try connection.sessionTotals(now: now).expired.sessions
        guard expired.removed + sessions > 0 else { return [] }
        return [
            Finding(
                .info, .expiredLeftovers, "Expired rows wait to be removed",
                detail: "\(expired.removed) cache entries and \(sessions) sessions expired since the server stopped, "
                    + "or shortly before. They are in no answer.",
                evidence: [
                    "expired_entries": .integer(expired.removed), "expired_entry_bytes": .integer(expired.freedBytes),
                    "expired_sessions": .integer(sessions),
                ],
                remedy: "Nothing: the server removes them when it runs.")
        ]
    }

    private func finding(for error: any Error) -> Finding {
        guard let error = error as? SQLiteError else { return DeepExamination.unexpected(error, path: path) }
        return DeepExamination.finding(for: error, path: path)
    }
}

/// How far a deep examination has come.
public struct ExaminationProgress: Sendable {
    /// "values".
    public let what: String
    public let done: Int
    /// About how many there are; nil if unknown.
    public let total: Int?
}

/// Keeps servers away from a file as long as it exists, without creating anything. Several can exist at a time.
public final class FileClaim: Sendable {
    /// Who has the file; nil if nobody has.
    private let holder: LockHolder?
    /// The database's path without symbolic links, if it exists.
    let database: String
    /// The lock file, and the database itself: a server locks both, because the database can have several names.
    private let descriptors: [Int32]

    /// Whether a server or a command has the file.
    public var isHeld: Bool { holder != nil }

    /// Whether a server has it.
    public var isServed: Bool { holder?.use == .server }

    /// The id of the server's process, if it is known.
    public var server: Int32? { isServed ? holder?.process : nil }

    public init(path: String) {
        let real = realpath(path, nil)
        defer { free(real) }
        database = real.map { String(cString: $0) } ?? path
        descriptors = [database + ".lock", database].map { (file: String) in
            open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        }
        let isHeld = descriptors.contains { descriptor in
            descriptor >= 0 && flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK
        }
        holder = isHeld ? LockHolder(of: descriptors[0]) : nil
    }

    deinit {
        for descriptor in descriptors where descriptor >= 0 { close(descriptor) }
    }
}
