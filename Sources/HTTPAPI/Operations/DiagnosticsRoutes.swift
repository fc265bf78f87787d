// GET /v1/diagnostics: what is wrong, how it shows, and what to do about it.

import Domain
import Hummingbird

struct DiagnosticsRoutes: Sendable {
    let diagnostician: Diagnostician

    var routes: [Route] { [Route(.get, "/v1/diagnostics", scope: .admin, computesLong: true, diagnostics)] }

    @Sendable func diagnostics(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        return .json(await diagnostician.diagnosis().json, headers: [.cacheControl: "no-store"])
    }
}
