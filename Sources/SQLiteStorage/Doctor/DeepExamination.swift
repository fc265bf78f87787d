// Checks everything in a database: its structure, every value against its hash, every counter against its rows.

import Crypto
import Domain

extension Finding.Code {
    static let valuesDamaged = Self(rawValue: "values_damaged")
    static let countersWrong = Self(rawValue: "counters_wrong")
    static let rowsOrphaned = Self(rawValue: "rows_orphaned")
}

// How a deep examination reads
//
// Everything is read in pages by key, each on a snapshot of its own, so that it can run beside a server without keeping
// its log from being truncated, and in bounded memory: a chunk of a value at a time. Only SQLite's own check of the
// structure is a single read. What is compared is on one snapshot: an entry with its value, a counter with its rows.
//
// A part that meets a damaged page ends there and the next one begins, so that one bad page does not hide the rest.

struct DeepExamination {
    private let connection: Connection
    private let path: String
    /// Whether the schema is this program's; otherwise only the structure is checked.
    private let isCurrent: Bool
    private var findings: [Finding] = []

    init(_ connection: Connection, path: String, isCurrent: Bool) {
        self.connection = connection
        self.path = path
        self.isCurrent = isCurrent
    }

    mutating func run(_ progress: (ExaminationProgress) -> Void) -> [Finding] {
        var parts: [(inout Self, (ExaminationProgress) -> Void) throws -> Void] = [
            { try $0.checkStructure($1) }, { try $0.checkReferences($1) },
        ]
        if isCurrent {
            parts += [
                { try $0.checkValues($1) }, { try $0.checkBlobs($1) }, { try $0.checkNamespaces($1) },
                { try $0.checkSessions($1) }, { try $0.checkAnswers($1) },
            ]
        }
        for part in parts {
            do {
                try part(&self, progress)
            } catch let error as SQLiteError {
                note(error)
            } catch {
                findings.append(Self.unexpected(error, path: path))
            }
        }
        return findings
    }

    /// The same error in several parts is one finding.
    private mutating func note(_ error: SQLiteError) {
        let finding = Self.finding(for: error, path: path)
        if !findings.contains(where: { $0.code == finding.code }) { findings.append(finding) }
    }

    static func finding(for error: SQLiteError, path: String) -> Finding {
        switch error.failure.code {
        case .databaseDamaged:
            damage("\(path): \(error.message).", path: path, evidence: ["sqlite_code": .integer(error.code)])
        case .databaseBusy:
            Finding(
                .warning, .databaseUnreadable, "The database is locked by another program",
                detail: "\(path): \(error.message).", evidence: ["sqlite_code": .integer(error.code)],
                remedy: "'fuser -v \(path)' lists the programs that have it open. Try again when they are done.")
        default:
            Finding(
                .critical, .databaseUnreadable, "The database cannot be read", detail: "\(path): \(error.message).",
                evidence: ["sqlite_code": .integer(error.code)],
                remedy: "Run this as the user that the server runs as. If that does not help, check the kernel's log "
                    + "for errors of the disk.")
        }
    }

    private static func damage(_ detail: String, path: String, evidence: JSON) -> Finding {
        Finding(
            .critical, .databaseDamaged, "The database is damaged", detail: detail, evidence: evidence,
            remedy: "Stop the server and keep the files as they are. Restore a backup; without one, sqlite3 \(path) "
                + "\".recover\" prints what can still be read. Check the disk before you rely on it again.")
    }

    /// What no rule foresees.
    static func unexpected(_ error: any Error, path: String) -> Finding {
        Finding(
            .critical, .databaseUnreadable, "The examination was cut off", detail: "\(path): \(error)",
            remedy: "Try again. If this persists, report it with the version \(Version.current).")
    }

    // MARK: Structure

    /// Problems that SQLite lists at most.
    private static let maxListed = 20

    private mutating func checkStructure(_ progress: (ExaminationProgress) -> Void) throws {
        progress(ExaminationProgress(what: "structure", done: 0, total: nil))
        let problems = try connection.all("PRAGMA integrity_check(20)") { $0.text(0) }.filter { $0 != "ok" }
        guard let first = problems.first else { return }
        let isEnd = problems.count < Self.maxListed
        findings.append(
            Self.damage(
                "SQLite's integrity check found \(isEnd ? "" : "at least ")\(problems.count) problems, the first: "
                    + first.split { $0.isNewline }.joined(separator: " "),
                path: path, evidence: ["problem_count": .integer(problems.count)]))
    }

    private mutating func checkReferences(_ progress: (ExaminationProgress) -> Void) throws {
        progress(ExaminationProgress(what: "references", done: 0, total: nil))
        var count = 0
        var tables: Set<String> = []
        try connection.each("PRAGMA foreign_key_check") { row in
            count += 1
            tables.insert(row.text(0))
            return true
        }
        guard count > 0 else { return }
        findings.append(
            Finding(
                .warning, .rowsOrphaned, "\(count) rows belong to something that is not there",
                detail: "They are in \(tables.sorted().joined(separator: ", ")). Another program has deleted what they "
                    + "belong to.",
                evidence: ["orphaned_rows": .integer(count)],
                remedy: "Restore a backup, or stop the server and delete them: sqlite3 \(path) \"PRAGMA "
                    + "foreign_key_check\" lists tables and row ids."))
    }

    // MARK: Values

    private struct CheckedEntry {
        var id: Int64
        var generationID: Int64
        var key: String
        var sizeBytes: Int
        var digest: [UInt8]
        var blobID: Int64?
        /// Of a value that is kept in its row; nil if there is none.
        var inlineDigest: [UInt8]?
        var inlineBytes: Int
    }

    private mutating func checkValues(_ progress: (ExaminationProgress) -> Void) throws {
        let total = try connection.first(
            "SELECT coalesce(sum(entry_count), 0) FROM cache_generations WHERE generation_id > 0"
        ) { $0.int(0) }
        var checked = 0
        var bytes = 0
        var damaged = 0
        var named: [String] = []
        var last: Int64 = .min
        while true {
            let page = try connection.consistently { () throws -> (last: Int64, count: Int)? in
                var end: (last: Int64, count: Int)?
                for entry in try entries(after: last) {
                    end = (entry.id, (end?.count ?? 0) + 1)
                    bytes += entry.sizeBytes
                    do {
                        if try isIntact(entry) { continue }
                    } catch let error as SQLiteError where error.failure.code == .databaseDamaged {
                        note(error)
                    }
                    damaged += 1
                    if named.count < 5 { named.append(try address(of: entry)) }
                }
                return end
            }
            guard let page else { break }
            last = page.last
            checked += page.count
            progress(ExaminationProgress(what: "values", done: checked, total: total))
        }
        guard damaged > 0 else { return }
        findings.append(
            Finding(
                .critical, .valuesDamaged, "\(damaged) of \(checked) values are not what was stored",
                detail: "Their bytes are missing, or differ from their size and SHA-256, which is their ETag: "
                    + named.joined(separator: ", ") + (damaged > named.count ? " and others." : "."),
                evidence: [
                    "damaged_values": .integer(damaged), "checked_values": .integer(checked),
                    "checked_bytes": .integer(bytes),
                ],
                remedy: findings.contains { $0.code == .databaseDamaged }
                    ? "Leave them as they are: the structure is damaged too, so keep the files and restore a backup."
                    : "Remove each with DELETE /v1/cache/{namespace}/entries/{key}; it is then computed again. Check "
                        + "the disk, because a healthy one does not change what was written."))
    }

    /// A few at a time, because each is read in full.
    private func entries(after id: Int64) throws(SQLiteError) -> [CheckedEntry] {
        try connection.all(
            """
            SELECT e.entry_id, e.generation_id, e.key, e.size_bytes, e.sha256, e.blob_id, v.value
            FROM cache_entries e LEFT JOIN cache_values v ON v.entry_id = e.entry_id
            WHERE e.entry_id > ?1 ORDER BY e.entry_id LIMIT 16
            """, .integer(id)
        ) { row in
            let value = row.isNull(6) ? nil : row.blob(6)
            return CheckedEntry(
                id: row.integer(0), generationID: row.integer(1), key: row.text(2), sizeBytes: row.int(3),
                digest: row.blob(4), blobID: row.optionalInteger(5),
                inlineDigest: value.map { Array(SHA256.hash(data: $0)) }, inlineBytes: value?.count ?? 0)
        }
    }

    private func isIntact(_ entry: CheckedEntry) throws(SQLiteError) -> Bool {
        guard let blobID = entry.blobID else {
            return entry.inlineDigest == entry.digest && entry.inlineBytes == entry.sizeBytes
        }
        var hash = SHA256()
        var size = 0
        var number = 0
        var isInOrder = true
        try connection.each(
            "SELECT number, data FROM cache_chunks WHERE blob_id = ?1 ORDER BY number", .integer(blobID)
        ) { row in
            isInOrder = isInOrder && row.int(0) == number
            number += 1
            let chunk = row.blob(1)
            size += chunk.count
            hash.update(data: chunk)
            return true
        }
        return isInOrder && size == entry.sizeBytes && Array(hash.finalize()) == entry.digest
    }

    private func address(of entry: CheckedEntry) throws(SQLiteError) -> String {
        let namespace = try connection.first(
            "SELECT name FROM cache_namespaces WHERE generation_id = ?1", .integer(entry.generationID)
        ) { $0.text(0) }
        // Of a cleared namespace's entry only the row is left.
        return "\(namespace ?? "(cleared)")/\(entry.key)"
    }

    // MARK: Large values without an entry

    /// A set of numbers, as far as comparing it needs: equal sets have equal ones, and different sets practically
    /// never.
    private struct Fingerprint: Equatable {
        var count = 0
        private var sum: UInt64 = 0
        private var squares: UInt64 = 0

        mutating func add(_ value: Int64) {
            let value = UInt64(bitPattern: value)
            count += 1
            sum &+= value
            squares &+= value &* value
        }
    }

    private mutating func checkBlobs(_ progress: (ExaminationProgress) -> Void) throws {
        progress(ExaminationProgress(what: "large values", done: 0, total: nil))
        var attached = Fingerprint()
        var referenced = Fingerprint()
        try connection.consistently {
            try connection.each(
                "SELECT blob_id FROM cache_blobs WHERE blob_id > ?1 AND is_attached = 1", .integer(Int64.min)
            ) {
                attached.add($0.integer(0))
                return true
            }
            try connection.each(
                "SELECT blob_id FROM cache_entries WHERE entry_id > ?1 AND blob_id IS NOT NULL", .integer(Int64.min)
            ) {
                referenced.add($0.integer(0))
                return true
            }
        }
        var lost = 0
        var last: Int64 = .min
        while let next = try connection.first(
            "SELECT min(blob_id) FROM cache_chunks WHERE blob_id > ?1", .integer(last), row: { $0.optionalInteger(0) })
            ?? nil
        {
            last = next
            let isKnown = try connection.first("SELECT 1 FROM cache_blobs WHERE blob_id = ?1", .integer(next)) { _ in
                true
            }
            if isKnown == nil { lost += 1 }
        }
        guard attached != referenced || lost > 0 else { return }
        findings.append(
            Finding(
                .warning, .rowsOrphaned, "Large values and their entries do not match",
                detail: "\(attached.count) large values are attached and \(referenced.count) entries refer to one; "
                    + "\(lost) values have chunks but no record. The service does not remove them by itself.",
                evidence: [
                    "attached_values": .integer(attached.count), "referring_entries": .integer(referenced.count),
                    "lost_values": .integer(lost),
                ],
                remedy: "Only another program can cause this. Restore a backup, or clear the namespaces with large "
                    + "values to begin anew."))
    }

    // MARK: Counters

    private mutating func checkNamespaces(_ progress: (ExaminationProgress) -> Void) throws {
        let (checked, wrong) = try compare("counters of namespaces", progress) { last throws(SQLiteError) in
            let rows = try connection.all(
                """
                SELECT generation_id, entry_count, size_bytes FROM cache_generations
                WHERE generation_id > ?1 ORDER BY generation_id LIMIT 20
                """, .integer(last)
            ) { (id: $0.integer(0), counts: [$0.integer(1), $0.integer(2)]) }
            var wrong = 0
            for row in rows {
                let counts = try connection.first(
                    "SELECT count(*), coalesce(sum(size_bytes), 0) FROM cache_entries WHERE generation_id = ?1",
                    .integer(row.id)
                ) { [$0.integer(0), $0.integer(1)] }
                if counts != row.counts { wrong += 1 }
            }
            return rows.last.map { ($0.id, rows.count, wrong) }
        }
        guard wrong > 0 else { return }
        findings.append(
            countersWrong(
                "\(wrong) of \(checked) namespaces count entries or bytes that they do not hold", checked, wrong,
                "\"UPDATE cache_generations AS g SET (entry_count, size_bytes) = (SELECT count(*), "
                    + "coalesce(sum(size_bytes), 0) FROM cache_entries e WHERE e.generation_id = g.generation_id)\""
            ))
    }

    private mutating func checkSessions(_ progress: (ExaminationProgress) -> Void) throws {
        let (checked, wrong) = try compare("counters of sessions", progress) { last throws(SQLiteError) in
            let rows = try connection.all(
                """
                SELECT session_ref, state_key_count, state_size_bytes, temporary_key_count, history_count,
                    history_size_bytes
                FROM sessions WHERE session_ref > ?1 ORDER BY session_ref LIMIT 100
                """, .integer(last)
            ) { row in (id: row.integer(0), counts: (1...5).map { row.integer(Int32($0)) }) }
            var wrong = 0
            for row in rows {
                let state = try connection.first(
                    """
                    SELECT count(*), coalesce(sum(size_bytes), 0), coalesce(sum(is_temporary), 0)
                    FROM session_state WHERE session_ref = ?1
                    """, .integer(row.id)
                ) { [$0.integer(0), $0.integer(1), $0.integer(2)] }
                let history = try connection.first(
                    "SELECT count(*), coalesce(sum(size_bytes), 0) FROM history_items WHERE session_ref = ?1",
                    .integer(row.id)
                ) { [$0.integer(0), $0.integer(1)] }
                if (state ?? []) + (history ?? []) != row.counts { wrong += 1 }
            }
            return rows.last.map { ($0.id, rows.count, wrong) }
        }
        guard wrong > 0 else { return }
        findings.append(
            countersWrong(
                "\(wrong) of \(checked) sessions count keys, items or bytes that they do not hold", checked, wrong,
                "\"UPDATE sessions AS s SET (state_key_count, state_size_bytes, temporary_key_count) = (SELECT "
                    + "count(*), coalesce(sum(size_bytes), 0), coalesce(sum(is_temporary), 0) FROM session_state v "
                    + "WHERE v.session_ref = s.session_ref), (history_count, history_size_bytes) = (SELECT count(*), "
                    + "coalesce(sum(size_bytes), 0) FROM history_items h WHERE h.session_ref = s.session_ref)\"")
        )
    }

    private mutating func checkAnswers(_ progress: (ExaminationProgress) -> Void) throws {
        progress(ExaminationProgress(what: "answers kept", done: 0, total: nil))
        // There are few, and their bodies are not read.
        let isRight = try connection.consistently { () throws(SQLiteError) in
            let total = try connection.first("SELECT answer_bytes FROM idempotency_totals") { $0.integer(0) }
            let sum = try connection.first(
                "SELECT coalesce(sum(size_bytes), 0) FROM idempotency_answers WHERE mark_id > 0"
            ) { $0.integer(0) }
            return total == sum
        }
        guard !isRight else { return }
        findings.append(
            countersWrong(
                "The total of the answers kept for idempotency keys is not their size", 1, 1,
                "\"UPDATE idempotency_totals SET answer_bytes = (SELECT coalesce(sum(size_bytes), 0) "
                    + "FROM idempotency_answers)\""))
    }

    /// Compares counters with their rows, page by page.
    /// - Parameter page: what follows the row with this id, on one snapshot; nil at the end.
    private func compare(
        _ what: String, _ progress: (ExaminationProgress) -> Void,
        page: (Int64) throws(SQLiteError) -> (last: Int64, checked: Int, wrong: Int)?
    ) throws -> (checked: Int, wrong: Int) {
        var (checked, wrong) = (0, 0)
        var last: Int64 = .min
        while let next = try connection.consistently({ () throws(SQLiteError) in try page(last) }) {
            last = next.last
            checked += next.checked
            wrong += next.wrong
            progress(ExaminationProgress(what: what, done: checked, total: nil))
        }
        return (checked, wrong)
    }

    private func countersWrong(_ title: String, _ checked: Int, _ wrong: Int, _ repair: String) -> Finding {
        Finding(
            .warning, .countersWrong, title,
            detail: "Caps, sizes and metrics are computed from these counters. Another program has changed rows, or "
                + "removed the triggers that keep the counters.",
            evidence: ["wrong_counters": .integer(wrong), "checked_counters": .integer(checked)],
            remedy: "Stop the server and run: sqlite3 \(path) \(repair)")
    }
}
