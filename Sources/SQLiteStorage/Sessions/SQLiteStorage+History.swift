// History: appending within the cap, reading in the order of commits, changing single items.

import Domain

extension SQLiteStorage: HistoryStore {
    public func appendHistory(
        _ draft: HistoryDraft, to id: Name, orCreating session: SessionDraft?
    ) async throws -> HistoryAppend {
        try HistoryItem.check(sizeBytes: draft.data.sizeBytes)
        let (item, isNew, ref, step) = try await sessionTransaction(bytes: draft.data.sizeBytes) { transaction in
            try transaction.append(draft, to: id, orCreating: session)
        }
        // If the cap was lowered a lot, more items may exceed it than one step removes, so continue until none does.
        let removal = try await finishTrimming(ref, after: step)
        return HistoryAppend(item: item, isNew: isNew, removed: removal.removed)
    }

    public func history(
        of id: Name, kind: Name?, order: HistoryOrder, after: CollectionPosition?, limit: Int
    ) async throws -> Page<HistoryItem> {
        try await visitPooled(id) { connection, row in
            try connection.history(of: row, kind: kind, order: order, after: after, limit: limit)
        }
    }

    public func historyItem(_ itemID: Name, of id: Name) async throws -> HistoryItem {
        try await visit(id) { connection, row in
            guard let item = try connection.historyItem(itemID, of: row) else { throw Failure.itemNotFound(itemID) }
            return item
        }
    }

    public func patchHistoryItem(
        _ itemID: Name, of id: Name, patch: JSON, condition: EntityCondition
    ) async throws -> HistoryItem {
        try await sessionTransaction(bytes: Limits.maxHistoryItemBytes) { transaction in
            var row = try transaction.live(id)
            let old = try transaction.connection.historyItem(itemID, of: row)
            try condition.check(.optional(old?.tag))
            guard let old else { throw Failure.itemNotFound(itemID) }
            try transaction.touch(&row)
            let data = JSONText(try old.data.parsed().merged(with: patch))
            if data == old.data { return old }
            try HistoryItem.check(sizeBytes: data.sizeBytes)
            try transaction.connection.run(
                """
                UPDATE history_items SET data = ?3, updated_at_ms = ?4, revision = revision + 1
                WHERE session_ref = ?1 AND id = ?2
                """,
                .integer(row.ref), .text(itemID.rawValue), .textBytes(data.bytes), .instant(transaction.now))
            return try transaction.connection.historyItem(itemID, of: row)!
        }
    }

    public func removeHistoryItem(_ itemID: Name, of id: Name, condition: EntityCondition) async throws {
        try await sessionTransaction(.foreground, .shrinking) { transaction in
            var row = try transaction.live(id)
            if condition != .none {
                try condition.check(.optional(try transaction.connection.historyItem(itemID, of: row)?.tag))
            }
            try transaction.connection.run(
                "DELETE FROM history_items WHERE session_ref = ?1 AND id = ?2", .integer(row.ref),
                .text(itemID.rawValue))
            guard transaction.connection.changes > 0 else { throw Failure.itemNotFound(itemID) }
            try transaction.touch(&row)
        }
    }

    public func clearHistory(of id: Name) async throws -> Int {
        let (ref, newest) = try await sessionTransaction(.foreground, .shrinking) { transaction in
            var row = try transaction.live(id)
            try transaction.touch(&row)
            let newest = try transaction.connection.first(
                "SELECT max(item_ref) FROM history_items WHERE session_ref = ?1", .integer(row.ref)
            ) { $0.integer(0) }
            return (row.ref, newest ?? 0)
        }
        var removed = 0
        while true {
            let step = try await sessionTransaction(.foreground, .shrinking) { transaction in
                try transaction.removeOldestHistory(of: ref, count: .max, upTo: newest)
            }
            removed += step.removal.removed
            if step.isDone { return removed }
        }
    }

    public func history(
        _ filter: HistoryFilter, after: CollectionPosition?, limit: Int
    ) async throws -> Page<HistoryItem> {
        // The clock is read first, so that activity up to then is written.
        let now = clock.now()
        try await flushActivity(.foreground)
        let since = Value.integer(filter.since?.milliseconds ?? .min)
        let end = after ?? CollectionPosition(instant: filter.until ?? Instant(milliseconds: .max), number: .min)
        return try await readers.pooled { connection in
            var page = HistoryPage(limit: limit)
            // CROSS JOIN makes the history the outer loop: https://sqlite.org/optoverview.html#crossjoin
            if let kind = filter.kind {
                try connection.each(
                    """
                    SELECT h.*, s.id AS session_id
                    FROM history_items h CROSS JOIN sessions s ON s.session_ref = h.session_ref
                    WHERE h.kind = ?6 AND h.created_at_ms >= ?1 AND (h.created_at_ms, h.item_ref) < (?2, ?3)
                        AND (s.expires_at_ms IS NULL OR s.expires_at_ms > ?4)
                    ORDER BY h.created_at_ms DESC, h.item_ref DESC LIMIT ?5
                    """, since, .instant(end.instant), .integer(end.number), .instant(now), .integer(limit + 1),
                    .text(kind.rawValue)
                ) { page.add($0) }
            } else {
                try connection.each(
                    """
                    SELECT h.*, s.id AS session_id
                    FROM history_items h CROSS JOIN sessions s ON s.session_ref = h.session_ref
                    WHERE h.created_at_ms >= ?1 AND (h.created_at_ms, h.item_ref) < (?2, ?3)
                        AND (s.expires_at_ms IS NULL OR s.expires_at_ms > ?4)
                    ORDER BY h.created_at_ms DESC, h.item_ref DESC LIMIT ?5
                    """, since, .instant(end.instant), .integer(end.number), .instant(now), .integer(limit + 1)
                ) { page.add($0) }
            }
            return page.page
        }
    }

    /// Goes on removing items beyond a session's cap until none is left.
    /// - Parameter first: what became of the first step.
    /// - Returns: all that went.
    func finishTrimming(_ ref: Int64, after first: SessionTransaction.Step) async throws -> Removal {
        var (total, isDone) = first
        while !isDone {
            let step = try await sessionTransaction(.foreground, .shrinking) { try $0.trimHistory(of: ref) }
            total += step.removal
            isDone = step.isDone
        }
        return total
    }
}

extension SessionTransaction {
    /// Appends an item and removes what is then beyond the cap, as much as one step may.
    func append(
        _ draft: HistoryDraft, to id: Name, orCreating session: SessionDraft?
    ) throws -> (item: HistoryItem, isNew: Bool, ref: Int64, trimming: Step) {
        var row = try live(id, orCreating: session).row
        try touch(&row)
        if let item = try connection.historyItem(draft.id, of: row) {
            return (item, false, row.ref, (Removal(), isDone: true))
        }
        try connection.run(
            """
            INSERT INTO history_items (session_ref, id, kind, created_at_ms, updated_at_ms, data)
            VALUES (?1, ?2, ?3, ?4, ?4, ?5)
            """,
            .integer(row.ref), .text(draft.id.rawValue), .optional(draft.kind) { .text($0.rawValue) }, .instant(now),
            .textBytes(draft.data.bytes))
        let item = try connection.historyItem(draft.id, of: row)!
        return (item, true, row.ref, try trimHistory(of: row.ref))
    }
}

/// Collects rows until the page is full. Asked for one row more than its limit, it knows whether another page follows.
private struct HistoryPage {
    private(set) var page = Page<HistoryItem>(items: [], next: nil)
    private let limit: Int
    private var bytes = 0
    private var last: CollectionPosition?

    init(limit: Int) { self.limit = limit }

    /// - Returns: whether another row may fit.
    mutating func add(_ row: borrowing Row) -> Bool {
        bytes += row.int("size_bytes")
        guard page.items.count < limit, page.items.isEmpty || bytes <= Limits.maxPageBytes else {
            page.next = last
            return false
        }
        page.items.append(HistoryItem(row))
        last = CollectionPosition(instant: row.instant("created_at_ms"), number: row.integer("item_ref"))
        return true
    }
}

extension HistoryItem {
    /// From all columns of `history_items`, and the session's id as `session_id`.
    fileprivate init(_ row: borrowing Row) {
        self.init(
            id: Name(stored: row.text("id")), sessionID: Name(stored: row.text("session_id")),
            kind: row.optionalText("kind").map { Name(stored: $0) }, data: JSONText(stored: row.blob("data")),
            createdAt: row.instant("created_at_ms"), updatedAt: row.instant("updated_at_ms"),
            tag: "\(row.integer("item_ref"))-\(row.integer("revision"))")
    }
}

extension Connection {
    /// A page of a session's items.
    func history(
        of row: SessionRow, kind: Name?, order: HistoryOrder, after: CollectionPosition?, limit: Int
    ) throws -> Page<HistoryItem> {
        var page = HistoryPage(limit: limit)
        let kind = Value.optional(kind) { .text($0.rawValue) }
        switch order {
        case .newest:
            try each(
                """
                SELECT *, ?5 AS session_id FROM history_items
                WHERE session_ref = ?1 AND item_ref < ?2 AND (?3 IS NULL OR kind = ?3)
                ORDER BY item_ref DESC LIMIT ?4
                """, .integer(row.ref), .integer(after?.number ?? .max), kind, .integer(limit + 1),
                .text(row.id.rawValue)
            ) { page.add($0) }
        case .oldest:
            try each(
                """
                SELECT *, ?5 AS session_id FROM history_items
                WHERE session_ref = ?1 AND item_ref > ?2 AND (?3 IS NULL OR kind = ?3)
                ORDER BY item_ref LIMIT ?4
                """, .integer(row.ref), .integer(after?.number ?? .min), kind, .integer(limit + 1),
                .text(row.id.rawValue)
            ) { page.add($0) }
        }
        return page.page
    }

    fileprivate func historyItem(_ itemID: Name, of row: SessionRow) throws(SQLiteError) -> HistoryItem? {
        try first(
            """
            SELECT *, ?3 AS session_id FROM history_items WHERE session_ref = ?1 AND id = ?2
            """, .integer(row.ref), .text(itemID.rawValue), .text(row.id.rawValue)
        ) { HistoryItem($0) }
    }
}

extension Failure {
    fileprivate static func itemNotFound(_ id: Name) -> Failure {
        Failure(.historyItemNotFound, "The session's history has no item '\(id)'.")
    }
}
