// What a run of each background task would remove now. Counts what SQLiteStorage+Maintenance.swift removes.

import Domain

extension SQLiteStorage {
    func preview(_ task: MaintenanceTask) async throws -> Removal {
        switch task {
        case .cacheExpiry: return try await previewExpiry()
        case .cacheCaps: return try await previewCaps()
        case .blobOrphans: return try await previewOrphans()
        case .sessionExpiry: return try await removeExpiredSessions(isDryRun: true)
        case .historyCaps: return try await removeExcessHistory(isDryRun: true)
        case .stateTemporaries: return try await removeTemporaryKeys(isDryRun: true)
        case .debounceMarks: return try await removeDebounceMarks(isDryRun: true)
        case .sampleRetention: return try await removeOldSamples(isDryRun: true)
        case .sampleRollup: return Removal()
        case .space: return try await previewSpace()
        }
    }

    private func previewSpace() async throws -> Removal {
        try await readers.pooled(.upkeep) { connection in
            func pragma(_ sql: StaticString) throws -> Int { try connection.first(sql) { $0.int(0) } ?? 0 }
            var free = try pragma("PRAGMA freelist_count")
            var all = try pragma("PRAGMA page_count")
            var freed = 0
            while case let step = Self.sparePages(free: free, of: all), step > 0 {
                free -= step
                all -= step
                freed += step
            }
            return Removal(removed: 0, freedBytes: freed * Self.pageBytes)
        }
    }
}
