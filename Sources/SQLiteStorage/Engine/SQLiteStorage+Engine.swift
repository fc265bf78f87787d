// SQLite as a storage engine: one object is every store.

import Domain

extension SQLiteStorage: StorageEngine {
    public var engineName: String { "sqlite" }

    public var cache: any CacheStore { self }
    public var sessions: any SessionStore { self }
    public var history: any HistoryStore { self }
    public var samples: any SampleStore { self }
    public var accessTokens: any TokenStore { self }
    public var idempotency: any IdempotencyStore { self }
    public var settingsStore: any SettingsStore { self }
    public var maintenance: any MaintenanceStore { self }
    public var health: any HealthStore { self }
    public var operations: any OperationalStore { self }
    public var backups: (any BackupStore)? { self }
    public var diagnostics: any DiagnosticStore { self }
    public var inspection: (any SQLInspection)? { self }
}
