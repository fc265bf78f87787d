// Shared by the tests of the executable.

@testable import reprise

/// The message with which the program would end; nil if `body` succeeds.
func exitMessage(_ body: () async throws -> some Any) async -> ExitMessage? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error as? ExitMessage
    }
}
