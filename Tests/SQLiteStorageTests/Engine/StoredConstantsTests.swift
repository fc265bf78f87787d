// Constants that existing databases contain. A test that fails here calls for a migration, not for a new literal.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

struct StoredConstantsTests {
    @Test func theNamesInTablesStayTheSame() {
        #expect(Eviction.allCases.map(\.rawValue) == ["lru", "lfu", "fifo"])
        #expect(RemovalReason.allCases.map(\.rawValue) == ["expired", "evicted", "deleted", "cleared"])
        #expect(MissReason.allCases.map(\.rawValue) == ["absent", "expired", "evicted", "deleted", "cleared"])
        #expect(
            SQLiteStorage.tasks.map(\.task.rawValue) == [
                "cache_expiry", "cache_caps", "blob_orphans", "session_expiry", "history_caps", "state_temporaries",
                "debounce_marks", "sample_rollup", "sample_retention", "space",
            ])
        #expect(
            MaintenanceTrigger.allCases.map(\.rawValue) == ["startup", "interval", "deadline", "backlog", "demand"])
        #expect(SampleKind.allCases.map(\.rawValue) == ["timing", "memory", "gauge"])
        #expect(
            SampleMetric.allCases.map(\.rawValue) == [
                "duration_seconds", "rss_bytes", "vms_bytes", "percent", "value",
            ])
        #expect(SampleSource.allCases.map(\.rawValue) == ["app", "service"])
        #expect(Sample.CacheResult.allCases.map(\.rawValue) == ["hit", "miss"])
        #expect(
            ServiceGauge.allCases.map(\.rawValue) == [
                "reprise.cache_hit_ratio", "reprise.session_count", "reprise.session_state_bytes",
                "reprise.session_state_keys",
            ])
        #expect(ServiceGauge.processName == "reprise")
        #expect(Sample.otherName == "__other__")
    }

    /// A change at run time is stored by the setting's name; under another name it would be ignored.
    @Test func theNamesOfMutableSettingsStayTheSame() {
        #expect(
            Set(Setting.all.filter(\.isMutable).map(\.name)).isSuperset(of: [
                "log_level", "cache_ttl_seconds", "max_entry_bytes", "max_database_bytes", "memory_cleanup_interval",
                "max_history_items",
                "enable_monitoring", "debounce_delay", "session_ttl_seconds", "sample_retention_seconds",
                "sample_rollup_retention_seconds",
            ]))
    }

    @Test func theNumbersInTablesStayTheSame() {
        #expect(Limits.chunkBytes == 65_536)
        #expect(
            MetricResolution.allCases.map(\.periodMilliseconds) == [0, 60_000, 3_600_000, 21_600_000])
        #expect(Migrator.applicationID == 0x5250_5253)
    }

    /// Powers of 1.0075 / 0.9925, counted from a billionth.
    @Test(arguments: [
        (0, 0), (1e-9, 1), (0.001, 922), (0.25, 1290), (1, 1382), (1.5, 1410), (-1.5, -1410), (123_456.789, 2164),
        (1e18, 4146), (1e300, 4146),
    ])
    func theBucketsOfDistributionsStayTheSame(value: Double, bucket: Int) {
        #expect(SketchBucket.index(of: value) == bucket)
    }

    @Test func temporaryKeysAreWhatTheDatabaseTakesForTemporary() async throws {
        #expect(TemporaryKeys.prefixes == ["temp_", "cache_"])
        #expect(TemporaryKeys.keptByDefault == Key(stored: "temp_current_generation"))
        let folder = TemporaryFolder()
        let storage = try makeStorage(in: folder, clock: ManualClock())
        let keys = ["temp_", "temp_x", "cache_x", "temp_current_generation", "tempx", "xtemp_", "cacheX", "Temp_x"]
        let state = keys.map { StateEntry(key: Key(stored: $0), value: JSONText(stored: Array("1".utf8))) }
        _ = try await storage.createSession(Name(stored: "s"), SessionDraft(state: state))
        let temporary = try await storage.readers.pooled { connection in
            try connection.all("SELECT key FROM session_state WHERE is_temporary ORDER BY state_id") { $0.text(0) }
        }
        await storage.close()
        #expect(temporary == ["temp_", "temp_x", "cache_x"])
    }
}
