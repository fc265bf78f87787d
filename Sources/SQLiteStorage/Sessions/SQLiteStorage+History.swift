// History: appending within the cap, reading in the order of commits, changing single items.

import Domain

extension SQLiteStorage: HistoryStore {
    public func appendHistory(_ draft: HistoryDraft, to id: Name) async throws -> HistoryAppend {
        try HistoryItem.check(sizeBytes: draft.data.sizeBytes)
        let (item, isNew, ref, step) = try await sessionTransaction(bytes: draft.data.sizeBytes) { transaction in
            try transaction.append(draft, to: id)
        }
        // Where the cap was lowered by much, more may be beyond it than one step removes: go on until nothing is.
        let removal = try await finishTrimming(ref, after: step)
        return HistoryAppend(item: item, isNew: isNew, removed: removal.removed)
    }

    public func history(
        of id: Name, kind: Name?, order: HistoryOrder, after: CollectionPosition?, limit: Int
    ) async throws -> Page<HistoryItem> {
        try await visitPooled(id) { connection, row in
            var page = HistoryPage(limit: limit)
            let kind = Value.optional(kind) { .text($0.rawValue) }
            switch order {
            case .newest:
                try connection.each(
                    """
                    SELECT item_ref, created_at_ms, id, ?5, kind, updated_at_ms, revision, size_bytes, data
                    FROM history_items
                    WHERE session_ref = ?1 AND item_ref < ?2 AND (?3 IS NULL OR kind = ?3)
                    ORDER BY item_ref DESC LIMIT ?4
                    """, .integer(row.ref), .integer(after?.number ?? .max), kind, .integer(limit + 1),
                    .text(id.rawValue)
                ) { page.add($0) }
            case .oldest:
                try connection.each(
                    """
                    SELECT item_ref, created_at_ms, id, ?5, kind, updated_at_ms, revision, size_bytes, data
                    FROM history_items
                    WHERE session_ref = ?1 AND item_ref > ?2 AND (?3 IS NULL OR kind = ?3)
                    ORDER BY item_ref LIMIT ?4
                    """, .integer(row.ref), .integer(after?.number ?? .min), kind, .integer(limit + 1),
                    .text(id.rawValue)
                ) { page.add($0) }
            }
            return page.page
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
        try await sessionTransaction { transaction in
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
        let (ref, newest) = try await sessionTransaction { transaction in
            var row = try transaction.live(id)
            try transaction.touch(&row)
            let newest = try transaction.connection.first(
                "SELECT max(item_ref) FROM history_items WHERE session_ref = ?1", .integer(row.ref)
            ) { $0.integer(0) }
            return (row.ref, newest ?? 0)
        }
        var removed = 0
        while true {
            let step = try await sessionTransaction { transaction in
                try transaction.removeOldestHistory(of: ref, count: .max, upTo: newest)
            }
            removed += step.removed
            guard step.isFullStep else { return removed }
        }
    }

    public func history(
        _ filter: HistoryFilter, after: CollectionPosition?, limit: Int
    ) async throws -> Page<HistoryItem> {
        // The clock first: what was active by then is then written.
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
                    SELECT h.item_ref, h.created_at_ms, h.id, s.id, h.kind, h.updated_at_ms, h.revision, h.size_bytes,
                        h.data
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
                    SELECT h.item_ref, h.created_at_ms, h.id, s.id, h.kind, h.updated_at_ms, h.revision, h.size_bytes,
                        h.data
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
    /// - Parameter first: what the first step removed.
    /// - Returns: all that went.
    func finishTrimming(
        _ ref: Int64, after first: Removal, _ priority: Writer.Priority = .foreground
    ) async throws -> Removal {
        var total = first
        var step = first
        while step.isFullStep {
            step = try await sessionTransaction(priority) { transaction in try transaction.trimHistory(of: ref) }
            total += step
        }
        return total
    }
}

extension SessionTransaction {
    /// Appends an item and removes what is then beyond the cap, as much as one step may.
    func append(
        _ draft: HistoryDraft, to id: Name
    ) throws -> (item: HistoryItem, isNew: Bool, ref: Int64, removal: Removal) {
        var row = try live(id)
        try touch(&row)
        if let item = try connection.historyItem(draft.id, of: row) { return (item, false, row.ref, Removal()) }
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

extension Removal {
    /// Whether a step stopped because it had removed as much as one step may, so that more may be left.
    var isFullStep: Bool { removed >= Limits.sweepBatchSessionRows || freedBytes >= Limits.sweepBatchBytes }
}

/// Gathers rows until the page is full. Asked for one row more than its limit, it knows whether another page follows.
private struct HistoryPage {
    private(set) var page = Page<HistoryItem>(items: [], next: nil)
    private let limit: Int
    private var bytes = 0
    private var last: CollectionPosition?

    init(limit: Int) { self.limit = limit }

    /// From the columns `item_ref, created_at_ms, id, session id, kind, updated_at_ms, revision, size_bytes, data`.
    /// - Returns: whether another row may fit.
    mutating func add(_ row: borrowing Row) -> Bool {
        bytes += row.int(7)
        guard page.items.count < limit, page.items.isEmpty || bytes <= Limits.maxPageBytes else {
            page.next = last
            return false
        }
        page.items.append(HistoryItem(row))
        last = CollectionPosition(instant: row.instant(1), number: row.integer(0))
        return true
    }
}

extension HistoryItem {
    /// From the columns `item_ref, created_at_ms, id, session id, kind, updated_at_ms, revision, size_bytes, data`.
    fileprivate init(_ row: borrowing Row) {
        self.init(
            id: Name(stored: row.text(2)), sessionID: Name(stored: row.text(3)),
            kind: row.optionalText(4).map { Name(stored: $0) }, data: JSONText(stored: row.blob(8)),
            createdAt: row.instant(1), updatedAt: row.instant(5), tag: "\(row.integer(0))-\(row.integer(6))")
    }
}

extension Connection {
    fileprivate func historyItem(_ itemID: Name, of row: SessionRow) throws(SQLiteError) -> HistoryItem? {
        try first(
            """
            SELECT item_ref, created_at_ms, id, ?3, kind, updated_at_ms, revision, size_bytes, data FROM history_items
            WHERE session_ref = ?1 AND id = ?2
            """, .integer(row.ref), .text(itemID.rawValue), .text(row.id.rawValue)
        ) { HistoryItem($0) }
    }
}

extension Failure {
    fileprivate static func itemNotFound(_ id: Name) -> Failure {
        Failure(.historyItemNotFound, "The session's history has no item '\(id)'.")
    }
}
