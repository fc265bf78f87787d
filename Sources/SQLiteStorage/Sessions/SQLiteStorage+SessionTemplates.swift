// Session templates.

import Domain

// How a template counts in the versions of its sessions
//
// A session's state is what it stores and what its template adds. When the template changes, so does the state of each
// of its sessions, and a tag that a client has seen must no longer match. Changing the rows of all sessions would cost
// time in proportion to their number; instead a session's version is the sum of its own count and its template's
// revision, and both only go up. For the same reason a deleted template leaves an empty row behind while sessions name
// it: if it comes back, its revision continues from there.

extension SQLiteStorage {
    public func templates(after name: String?, limit: Int) async throws -> (items: [SessionTemplate], next: Name?) {
        let settings = settings.current
        return try await readers.pooled { connection in
            try connection.consistently {
                let rows = try connection.all(
                    """
                    SELECT * FROM session_templates WHERE name > ?1 AND deleted_at_ms IS NULL ORDER BY name LIMIT ?2
                    """, .text(name ?? ""), .integer(limit + 1)
                ) { TemplateRow($0) }
                var items: [SessionTemplate] = []
                var bytes = 0
                for row in rows.prefix(limit) {
                    bytes += row.defaultsSizeBytes
                    guard bytes <= Limits.maxPageBytes || items.isEmpty else { break }
                    items.append(try connection.template(row, settings))
                }
                return (items, items.count < rows.count ? items.last?.name : nil)
            }
        }
    }

    public func template(_ name: Name) async throws -> SessionTemplate {
        let settings = settings.current
        return try await readers.pooled { connection in
            try connection.consistently { try connection.template(try connection.existingTemplate(name), settings) }
        }
    }

    public func setTemplate(
        _ draft: SessionTemplateDraft, of name: Name, condition: EntityCondition
    ) async throws -> (template: SessionTemplate, isNew: Bool) {
        try await sessionTransaction(bytes: draft.sizeBytes) { transaction in
            try transaction.setTemplate(draft, of: name, condition)
        }
    }

    public func removeTemplate(_ name: Name, condition: EntityCondition) async throws {
        try await sessionTransaction(.foreground, .shrinking) { try $0.removeTemplate(name, condition) }
    }
}

extension SessionTransaction {
    func setTemplate(
        _ draft: SessionTemplateDraft, of name: Name, _ condition: EntityCondition
    ) throws -> (template: SessionTemplate, isNew: Bool) {
        for entry in draft.defaults { try StateBounds.check(entry) }
        try StateBounds.check(keys: draft.defaults.count, bytes: draft.sizeBytes)
        let old = try connection.templateRow(name)
        let live = old.flatMap { $0.isDeleted ? nil : $0 }
        let settings = storage.settings.current
        try condition.check(.optional(live?.tag(settings)))
        if let live {
            let template = try connection.template(live, settings)
            if template.content == draft.sorted { return (template, false) }
        } else {
            try makeRoom()
        }
        try connection.run(
            """
            INSERT INTO session_templates (name, has_ttl, ttl_ms, max_history_items, created_at_ms, updated_at_ms)
            VALUES (?1, ?2, ?3, ?4, ?5, ?5)
            ON CONFLICT (name) DO UPDATE SET has_ttl = ?2, ttl_ms = ?3, max_history_items = ?4, revision = revision + 1,
                created_at_ms = CASE WHEN deleted_at_ms IS NULL THEN created_at_ms ELSE ?5 END, updated_at_ms = ?5,
                deleted_at_ms = NULL
            """,
            .text(name.rawValue), .integer(draft.timeToLive == nil ? 0 : 1),
            .optional(draft.timeToLive?.milliseconds, Value.integer), .optional(draft.maxHistoryItems, Value.integer),
            .instant(now))
        let row = try connection.templateRow(name)!
        try connection.run("DELETE FROM session_template_defaults WHERE template_id = ?1", .integer(row.id))
        for entry in draft.defaults {
            try connection.run(
                "INSERT INTO session_template_defaults (template_id, key, value) VALUES (?1, ?2, ?3)",
                .integer(row.id), .text(entry.key.rawValue), .textBytes(entry.value.bytes))
        }
        return (try connection.template(row, settings), live == nil)
    }

    /// - Throws: `too_many_templates`.
    private func makeRoom() throws {
        let count =
            try connection.first(
                """
                SELECT (SELECT count(*) FROM session_templates)
                    - (SELECT count(*) FROM session_templates WHERE deleted_at_ms IS NOT NULL)
                """
            ) { $0.int(0) } ?? 0
        guard count < Limits.maxTemplates else {
            throw Failure(.tooManyTemplates, "There are \(count) session templates already, which is the maximum.")
        }
    }

    func removeTemplate(_ name: Name, _ condition: EntityCondition) throws {
        let row = try connection.templateRow(name)
        let live = row.flatMap { $0.isDeleted ? nil : $0 }
        try condition.check(.optional(live?.tag(storage.settings.current)))
        guard let live else { throw Failure.templateNotFound(name) }
        let isUsed = try connection.first(
            "SELECT 1 FROM sessions WHERE template_name = ?1 LIMIT 1", .text(name.rawValue)
        ) { _ in true }
        guard isUsed != nil else {
            try connection.run("DELETE FROM session_templates WHERE template_id = ?1", .integer(live.id))
            return
        }
        try connection.run("DELETE FROM session_template_defaults WHERE template_id = ?1", .integer(live.id))
        try connection.run(
            """
            UPDATE session_templates SET deleted_at_ms = ?2, revision = revision + 1, has_ttl = 0, ttl_ms = NULL,
                max_history_items = NULL
            WHERE template_id = ?1
            """, .integer(live.id), .instant(now))
    }

    /// Removes the rows deleted templates left behind for sessions that no longer exist.
    func removeUnusedTemplates(after id: Int64, limit: Int) throws -> Int64? {
        let rows = try connection.all(
            """
            SELECT t.template_id, EXISTS (SELECT 1 FROM sessions s WHERE s.template_name = t.name)
            FROM session_templates t
            WHERE t.deleted_at_ms IS NOT NULL AND t.template_id > ?1 ORDER BY t.template_id LIMIT ?2
            """, .integer(id), .integer(limit)
        ) { (id: $0.integer(0), isUsed: $0.bool(1)) }
        for row in rows where !row.isUsed {
            try connection.run("DELETE FROM session_templates WHERE template_id = ?1", .integer(row.id))
            if storage.writer.isStepOver { return row.id }
        }
        return rows.last?.id
    }
}

/// A template's row, without its defaults; it may be the row that a deleted template left behind.
struct TemplateRow: Sendable {
    var id: Int64
    var name: Name
    var timeToLive: TimeToLive?
    var maxHistoryItems: Int?
    var revision: Int64
    var createdAt: Instant
    var updatedAt: Instant
    var isDeleted: Bool
    var defaultsSizeBytes: Int

    /// Changes whenever the answer does: what the template leaves open is answered from the settings.
    func tag(_ settings: Settings) -> String {
        let lifetime = timeToLive == nil ? "-\(settings.milliseconds(.sessionTTL))" : ""
        let cap = maxHistoryItems == nil ? "-\(settings.integer(.maxHistoryItems))" : ""
        return "\(id)-\(revision)\(lifetime)\(cap)"
    }

    /// From all columns of `session_templates`.
    init(_ row: borrowing Row) {
        id = row.integer("template_id")
        name = Name(stored: row.text("name"))
        timeToLive = row.bool("has_ttl") ? TimeToLive(storedMilliseconds: row.optionalInteger("ttl_ms")) : nil
        maxHistoryItems = row.optionalInt("max_history_items")
        revision = row.integer("revision")
        createdAt = row.instant("created_at_ms")
        updatedAt = row.instant("updated_at_ms")
        isDeleted = !row.isNull("deleted_at_ms")
        defaultsSizeBytes = row.int("defaults_size_bytes")
    }
}

extension Connection {
    func templateRow(_ name: Name) throws(SQLiteError) -> TemplateRow? {
        try first("SELECT * FROM session_templates WHERE name = ?1", .text(name.rawValue)) { TemplateRow($0) }
    }

    /// - Throws: `template_not_found`.
    fileprivate func existingTemplate(_ name: Name) throws -> TemplateRow {
        guard let row = try templateRow(name), !row.isDeleted else { throw Failure.templateNotFound(name) }
        return row
    }

    /// The template with its defaults.
    fileprivate func template(_ row: TemplateRow, _ settings: Settings) throws(SQLiteError) -> SessionTemplate {
        let defaults = try all(
            "SELECT key, value FROM session_template_defaults WHERE template_id = ?1 ORDER BY key", .integer(row.id)
        ) { StateEntry(key: Key(stored: $0.text(0)), value: JSONText(stored: $0.blob(1))) }
        return SessionTemplate(
            name: row.name,
            content: SessionTemplateDraft(
                defaults: defaults, timeToLive: row.timeToLive, maxHistoryItems: row.maxHistoryItems),
            createdAt: row.createdAt, updatedAt: row.updatedAt, tag: row.tag(settings))
    }
}

extension SessionTemplateDraft {
    /// With its defaults in the byte order of their keys, as they are stored.
    fileprivate var sorted: SessionTemplateDraft {
        var copy = self
        copy.defaults.sort { $0.key.rawValue.utf8.lexicographicallyPrecedes($1.key.rawValue.utf8) }
        return copy
    }
}

extension Failure {
    static func templateNotFound(_ name: Name) -> Failure {
        Failure(.templateNotFound, "There is no session template '\(name)'.")
    }
}
