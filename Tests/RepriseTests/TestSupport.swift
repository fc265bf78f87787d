// What the tests of the executable share.

@testable import reprise

/// What the program would say before it ends; nil if `body` succeeds.
func exitMessage(_ body: () async throws -> some Any) async -> ExitMessage? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error as? ExitMessage
    }
}
