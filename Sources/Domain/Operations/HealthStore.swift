// What readiness asks of an engine.

/// What every storage engine reports about its health.
public protocol HealthStore: Sendable {
    /// Proves that the database can be written and that its schema is this program's.
    /// - Returns: the schema's version.
    /// - Throws: the storage failures.
    func checkReadiness() async throws -> Int
}
