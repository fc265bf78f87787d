// What a storage engine is: the stores it offers, opened and closed as one.

/// Where everything is kept: one object that offers a store for each area.
///
/// The executable chooses an engine by the setting `database`; nothing else knows which one it is. What each store
/// promises is in its protocol. How to add an engine: docs/design/storage-engines.md.
public protocol StorageEngine: Sendable {
    /// What the engine is called in logs: `sqlite`.
    var engineName: String { get }

    var cache: any CacheStore { get }
    var sessions: any SessionStore { get }
    var history: any HistoryStore { get }
    var samples: any SampleStore { get }
    var accessTokens: any TokenStore { get }
    var idempotency: any IdempotencyStore { get }
    var settingsStore: any SettingsStore { get }
    var maintenance: any MaintenanceStore { get }
    var health: any HealthStore { get }
    var operations: any OperationalStore { get }
    var diagnostics: any DiagnosticStore { get }

    /// Ad-hoc queries; nil when the engine cannot run them safely. `/v1/sql` then answers 501
    /// `not_supported`.
    var inspection: (any SQLInspection)? { get }

    /// Backups; nil when the engine cannot make them. `/v1/backups` then answers 501 `not_supported`.
    var backups: (any BackupStore)? { get }

    /// Interrupts reads that may take seconds, and the making of a backup, because the service is stopping. They throw
    /// `shutting_down`; every other call continues.
    func endLongReads()

    /// Writes what is held in memory, finishes what is waiting and closes the database. Later calls of any store throw
    /// `shutting_down`. Failures are logged: there is nobody left to handle them.
    func close() async
}

/// What a process has the storage open for.
public enum StorageUse: String, Sendable {
    case server
    /// It ends by itself.
    case command
}
