// The engine's part of diagnostics.

import Domain
import Migrations

extension SQLiteStorage: DiagnosticStore {
    public func diagnosticFigures() async -> DiagnosticFigures {
        let now = clock.now()
        var figures = DiagnosticFigures()
        figures.opening = opening.parts
        var condition = DatabaseCondition(path: path)
        var databaseAge: Double?
        do {
            let (stored, ids, found, createdAt) = try await readers.consistently(.upkeep) { [path] connection in
                let (stored, ids) = try connection.diagnosticRows(now: now)
                // The schema was brought up to date when the database was opened.
                let condition = try DatabaseCondition(connection, path: path, version: Migration.all.count)
                return (stored, ids, condition, try connection.createdAt())
            }
            figures.stored = stored
            databaseAge = createdAt.map { Double(now.milliseconds(since: $0)) / 1000 }
            condition = found
            addWhatIsInMemory(to: &figures.stored!.namespaces, ids: ids, since: Connection.windowStart(now))
        } catch {
            figures.problem = (error as? Failure)?.detail ?? "\(error)"
            condition.diskBytes = FreeSpace.figures(at: path).all
        }
        condition.space = space.figures
        condition.isReplaced = !writer.areFilesInPlace
        condition.damagedReads = valueCheck.damagedCount
        let jumps = clockWatch.jumps
        if let latest = jumps.latest,
            abs(now.milliseconds(since: latest.to)) < DiagnosticThresholds.clockJumpMilliseconds
        {
            (condition.clockJumps, condition.latestClockJump) = (jumps.count, latest)
        }
        let backups = backupMaker.figures
        figures.backups = DiagnosticFigures.Backups(
            latestAge: backups.latest.map { Double(now.milliseconds(since: $0.createdAt)) / 1000 },
            databaseAge: databaseAge, failures: backups.failures)
        condition.queuedWrites = writer.waiting.operations
        figures.findings = condition.findings
        return figures
    }

    private func addWhatIsInMemory(
        to namespaces: inout [DiagnosticFigures.Namespace], ids: [Int64], since: Instant
    ) {
        let pending = ledger.pending()
        let delays = ledger.delays()
        for (place, id) in ids.enumerated() {
            for minute in pending[id] ?? [] where minute.start >= since {
                namespaces[place].activity += minute.lookups.activity
            }
            namespaces[place].delays = delays[id] ?? [:]
        }
    }
}

extension Connection {
    /// When the first migration was applied; nil if none was.
    func createdAt() throws(SQLiteError) -> Instant? {
        try first("SELECT min(applied_at_ms) FROM schema_migrations") { $0.optionalInstant(0) } ?? nil
    }

    /// The minute in which the time that is judged begins.
    static func windowStart(_ now: Instant) -> Instant {
        now.advanced(milliseconds: -DiagnosticThresholds.windowMilliseconds)
            .rounded(downTo: MetricResolution.minute.periodMilliseconds)
    }

    /// What the rules for all engines need from the database, in look-ups whose cost is bounded by the number of
    /// namespaces.
    /// - Returns: also the ids of the namespaces, in their order.
    func diagnosticRows(
        now: Instant
    ) throws(SQLiteError) -> (stored: DiagnosticFigures.Stored, namespaceIDs: [Int64]) {
        var stored = DiagnosticFigures.Stored()
        let rows = try namespaceRows(now: now)
        let since = Self.windowStart(now)
        let activity = Dictionary(uniqueKeysWithValues: try activity(since: since))
        let policies = Dictionary(
            uniqueKeysWithValues: try all(
                "SELECT * FROM cache_namespaces WHERE name > '' ORDER BY name LIMIT ?1", .integer(Limits.maxNamespaces)
            ) { ($0.integer("namespace_id"), CachePolicy($0)) })
        stored.namespaces = rows.map { row in
            DiagnosticFigures.Namespace(
                name: row.figures.name, policy: policies[row.id] ?? CachePolicy(), entryCount: row.figures.entryCount,
                sizeBytes: row.figures.sizeBytes, activity: activity[row.id] ?? CacheActivity())
        }
        stored.lagSeconds = try lagSeconds(now: now)
        for kind in SampleKind.allCases {
            let last =
                try first(
                    "SELECT max(last_recorded_at_ms) FROM sample_series WHERE kind = ?1 AND name = ?2",
                    .text(kind.rawValue), .text(Sample.otherName)
                ) { $0.optionalInstant(0) } ?? nil
            if let last, last >= since { stored.overflowingKinds.append(kind) }
        }
        stored.largestSession = try first(
            """
            SELECT id, state_size_bytes, history_count FROM sessions
            WHERE id IS NOT NULL ORDER BY state_size_bytes DESC LIMIT 1
            """
        ) { .init(id: Name(stored: $0.text(0)), stateSizeBytes: $0.int(1), historyCount: $0.int(2)) }
        return (stored, rows.map(\.id))
    }

    /// What namespaces did since an instant, by their ids.
    private func activity(since: Instant) throws(SQLiteError) -> [(Int64, CacheActivity)] {
        try all(
            """
            SELECT namespace_id, sum(hits) AS hits, sum(misses_absent) AS misses_absent,
                sum(misses_expired) AS misses_expired, sum(misses_evicted) AS misses_evicted,
                sum(misses_deleted) AS misses_deleted, sum(misses_cleared) AS misses_cleared,
                sum(expirations) AS expirations, sum(evictions) AS evictions
            FROM cache_activity WHERE period_seconds = 60 AND start_ms >= ?1 GROUP BY namespace_id
            """, .instant(since)
        ) { ($0.integer("namespace_id"), CacheActivity($0)) }
    }
}
