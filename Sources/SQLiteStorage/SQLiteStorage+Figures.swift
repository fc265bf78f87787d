// How the engine is doing: its queue, its file, how far its cleanup is behind.

import Domain
import Glibc
import Synchronization

extension SQLiteStorage: OperationalStore {
    public func operationalFigures() async throws -> OperationalFigures {
        let now = clock.now()
        var figures = try await readers.pooled { connection in
            var figures = OperationalFigures()
            let pageBytes = try connection.first("PRAGMA page_size") { $0.int(0) } ?? 0
            figures.freeBytes = pageBytes * (try connection.first("PRAGMA freelist_count") { $0.int(0) } ?? 0)
            let entry = try connection.first(
                "SELECT min(expires_at_ms) FROM cache_entries WHERE expires_at_ms IS NOT NULL"
            ) { $0.optionalInstant(0) }
            figures.cacheLagSeconds = Self.lag(of: entry ?? nil, now)
            figures.sessionLagSeconds = Self.lag(of: try connection.earliestSessionExpiry(), now)
            return figures
        }
        let statistics = writer.statistics
        figures.writes = statistics.operations
        figures.commits = statistics.groups
        figures.commitSeconds = Double(statistics.commitMilliseconds) / 1000
        figures.largestGroup = statistics.largestGroup
        (figures.queuedWrites, figures.queuedWriteBytes) = writer.waiting
        figures.databaseBytes = Self.size(of: path)
        figures.logBytes = Self.size(of: path + "-wal")
        figures.newSamples = backlog().newSamples
        figures.taskRuns = taskRuns.withLock { $0 }
        return figures
    }

    private static func lag(of earliest: Instant?, _ now: Instant) -> Double {
        earliest.map { Double(max(now.milliseconds(since: $0), 0)) / 1000 } ?? 0
    }

    private static func size(of path: String) -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_size) : 0
    }
}
