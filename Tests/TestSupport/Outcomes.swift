// The failure of a call, if any.

import Domain

/// What `body` fails with; nil if it succeeds.
package func failure<T>(of body: () async throws -> T) async -> Failure? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error as? Failure
    }
}

/// The code `body` fails with; nil if it succeeds.
package func code<T>(of body: () async throws -> T) async -> Failure.Code? { await failure(of: body)?.code }
