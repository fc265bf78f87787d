// What namespaces hold and their activity: since they were created, and in a span of time.

import Domain

extension SQLiteStorage {
    public func namespaces(after name: String?, limit: Int) async throws -> [CacheNamespace] {
        let range = KeyRange(prefix: nil, after: name ?? "")
        return try await namespaces(from: range.start, before: range.end, limit: limit)
    }

    public func namespace(_ name: Name) async throws -> CacheNamespace {
        let start = KeyRange(prefix: nil, after: name.rawValue).start
        guard let namespace = try await namespaces(from: .text(name.rawValue), before: start, limit: 1).first else {
            throw Failure.namespaceNotFound(name)
        }
        return namespace
    }

    /// The statistics of namespaces by name, without expired entries that have not been swept yet, and including
    /// counters that are still in memory.
    private func namespaces(from start: Value, before end: Value, limit: Int) async throws -> [CacheNamespace] {
        let now = clock.now()
        return try await readers.consistently { connection in
            let rows = try connection.all(
                """
                SELECT n.*, g.entry_count, g.size_bytes
                FROM cache_namespaces n JOIN cache_generations g USING (generation_id)
                WHERE n.name >= ?1 AND n.name < ?2 ORDER BY n.name LIMIT ?3
                """, start, end, .integer(limit)
            ) { row in
                (
                    id: row.integer("namespace_id"), generationID: row.integer("generation_id"),
                    namespace: CacheNamespace(
                        name: Name(stored: row.text("name")), policy: CachePolicy(row),
                        entryCount: row.int("entry_count"), sizeBytes: row.int("size_bytes"), hits: row.int("hits"),
                        misses: [:], expirations: row.int("expirations"), evictions: row.int("evictions"))
                )
            }
            guard let last = rows.last else { return [] }
            var misses: [Int64: [MissReason: Int]] = [:]
            try connection.each(
                """
                SELECT m.namespace_id, m.reason, m.misses
                FROM cache_namespaces n JOIN cache_misses m USING (namespace_id)
                WHERE n.name >= ?1 AND n.name <= ?2
                """, start, .text(last.namespace.name.rawValue)
            ) { row in
                if let reason = MissReason(rawValue: row.text(1)) {
                    misses[row.integer(0), default: [:]][reason] = row.int(2)
                }
                return true
            }
            let due = try connection.due(now: now)
            return rows.map { id, generationID, stored in
                var namespace = stored
                namespace.misses = misses[id] ?? [:]
                // Read after the rows: what is written in between is missing for a moment, but never counted twice.
                let pending = self.ledger.pending(namespaceID: id)
                namespace.hits += pending.hits
                namespace.misses.merge(pending.misses, uniquingKeysWith: +)
                let expired = due[generationID] ?? Removal()
                namespace.entryCount -= expired.removed
                namespace.sizeBytes -= expired.freedBytes
                namespace.expirations += expired.removed
                return namespace
            }
        }
    }

    public func figures(
        in range: MetricRange, stepMilliseconds: Int64?, limit: Int
    ) async throws -> CacheFigures {
        let now = clock.now()
        return try await readers.consistently(.aggregates) { connection in
            var summing = ActivitySum(range: range, stepMilliseconds: stepMilliseconds)
            try connection.addActivity(to: &summing)
            for (id, minutes) in self.ledger.pending() {
                for minute in minutes { summing.add(minute.lookups.activity, namespaceID: id, minute: minute.start) }
            }
            let rows = try connection.namespaceRows(now: now)
            // Expirations that have not been swept yet have no row; they get one within seconds.
            for row in rows where row.expired > 0 {
                summing.add(CacheActivity(expirations: row.expired), namespaceID: row.id, minute: now)
            }
            let namespaces = rows.map { row in
                CacheFigures.Namespace(
                    name: row.figures.name, activity: summing.namespaces[row.id] ?? CacheActivity(),
                    entryCount: row.figures.entryCount, sizeBytes: row.figures.sizeBytes)
            }
            return CacheFigures(
                resolution: summing.resolution, totals: summing.totals,
                entryCount: namespaces.reduce(0) { $0 + $1.entryCount },
                sizeBytes: namespaces.reduce(0) { $0 + $1.sizeBytes }, namespaceCount: namespaces.count,
                busiest: Self.busiest(namespaces, limit: limit), steps: summing.steps)
        }
    }

    private static func busiest(_ namespaces: [CacheFigures.Namespace], limit: Int) -> [CacheFigures.Namespace] {
        let keyed = namespaces.map { (lookups: $0.activity.lookups, namespace: $0) }
        let sorted = keyed.sorted { a, b in
            a.lookups == b.lookups ? a.namespace.name.rawValue < b.namespace.name.rawValue : a.lookups > b.lookups
        }
        return sorted.prefix(limit).map(\.namespace)
    }
}

/// Adds up what happened in a span, by namespace and by step.
private struct ActivitySum {
    let range: MetricRange
    private let stepMilliseconds: Int64?
    private let stepStarts: [Instant]
    var resolution = MetricResolution.minute
    var totals = CacheActivity()
    var namespaces: [Int64: CacheActivity] = [:]
    var steps: [Int: CacheActivity] = [:]

    init(range: MetricRange, stepMilliseconds: Int64?) {
        self.range = range
        self.stepMilliseconds = stepMilliseconds
        stepStarts = stepMilliseconds.map(range.steps) ?? []
    }

    mutating func add(_ activity: CacheActivity, namespaceID: Int64, start: Instant) {
        totals += activity
        namespaces[namespaceID, default: CacheActivity()] += activity
        guard let stepMilliseconds, let first = stepStarts.first else { return }
        // A row may begin before the span does; it belongs to the first step.
        let place = Int(start.milliseconds(since: first) / stepMilliseconds)
        steps[min(max(place, 0), stepStarts.count - 1), default: CacheActivity()] += activity
    }

    /// Adds activity that is not in a row yet, if its minute belongs to the span.
    mutating func add(_ activity: CacheActivity, namespaceID: Int64, minute: Instant) {
        let start = minute.rounded(downTo: MetricResolution.minute.periodMilliseconds)
        guard start >= since(.minute), start < range.until, range.milliseconds > 0 else { return }
        add(activity, namespaceID: namespaceID, start: start)
    }

    /// The start of the span for rows of a resolution.
    func since(_ resolution: MetricResolution) -> Instant {
        range.since.rounded(downTo: resolution.periodMilliseconds)
    }
}

extension Connection {
    fileprivate func addActivity(to sum: inout ActivitySum) throws(SQLiteError) {
        guard sum.range.milliseconds > 0 else { return }
        for resolution in [MetricResolution.minute, .hour] {
            try each(
                """
                SELECT * FROM cache_activity WHERE period_seconds = ?1 AND start_ms >= ?2 AND start_ms < ?3
                """, .integer(resolution.periodMilliseconds / 1000), .instant(sum.since(resolution)),
                .instant(sum.range.until)
            ) { row in
                sum.resolution = resolution
                sum.add(
                    CacheActivity(row), namespaceID: row.integer("namespace_id"), start: row.instant("start_ms"))
                return true
            }
        }
    }

    /// A namespace's row. Expired entries that have not been swept yet are not part of its contents but of its
    /// expirations.
    struct NamespaceRow {
        var id: Int64
        /// Without look-ups.
        var figures: OperationalFigures.NamespaceFigures
        /// Expired entries that have not been swept yet.
        var expired: Int
    }

    /// All namespaces by name, a bounded number.
    func namespaceRows(now: Instant) throws(SQLiteError) -> [NamespaceRow] {
        let due = try due(now: now)
        return try all(
            """
            SELECT n.namespace_id, n.name, n.expirations, n.evictions, g.entry_count, g.size_bytes, g.generation_id
            FROM cache_namespaces n JOIN cache_generations g USING (generation_id)
            WHERE n.name > '' ORDER BY n.name LIMIT ?1
            """, .integer(Limits.maxNamespaces)
        ) { row in
            let expired = due[row.integer(6)] ?? Removal()
            var figures = OperationalFigures.NamespaceFigures(name: Name(stored: row.text(1)))
            figures.expirations = row.int(2) + expired.removed
            figures.evictions = row.int(3)
            figures.entryCount = row.int(4) - expired.removed
            figures.sizeBytes = row.int(5) - expired.freedBytes
            return NamespaceRow(id: row.integer(0), figures: figures, expired: expired.removed)
        }
    }

    /// Expired rows that have not been swept yet, by generation: the backlog of the sweep.
    func due(now: Instant) throws(SQLiteError) -> [Int64: Removal] {
        let rows = try all(
            """
            SELECT n.generation_id, count(*), sum(e.size_bytes)
            FROM cache_namespaces n CROSS JOIN cache_entries e INDEXED BY cache_entries_due USING (generation_id)
            WHERE n.generation_id > 0 AND e.expires_at_ms <= ?1 GROUP BY n.generation_id
            """, .instant(now)
        ) { ($0.integer(0), Removal(removed: $0.int(1), freedBytes: $0.int(2))) }
        return Dictionary(uniqueKeysWithValues: rows)
    }
}
