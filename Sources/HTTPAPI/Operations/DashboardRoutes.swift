// /dashboard/: the page that shows /v1/metrics/summary.

import Dashboard
import Domain
import HTTPTypes
import Hummingbird
import NIOCore

struct DashboardRoutes: Sendable {
    var routes: [Route] {
        DashboardFile.all.map { file in
            let body = ByteBuffer(bytes: file.bytes)
            return Route(.get, "/dashboard/" + file.path, scope: .open, answersJSON: false) { request, _ in
                // A page ignores queries, which trackers and shared links add. The router treats the path without a
                // slash the same, but the page's links need the slash.
                if request.uri.path == "/dashboard" { return Self.redirect }
                return try serve(file, body, request)
            }
        }
    }

    private func serve(_ file: DashboardFile, _ body: ByteBuffer, _ request: Request) throws(Failure) -> Response {
        var headers = Self.headers
        headers[.eTag] = "\"\(file.entityTag)\""
        if try request.condition.isKnown(.present(file.entityTag)) {
            return Response(status: .notModified, headers: headers)
        }
        headers[.contentType] = file.contentType
        return Response(status: .ok, headers: headers, body: ResponseBody(byteBuffer: body))
    }

    /// Relative, as all the page's own links are, so that it works behind a proxy's prefix too.
    private static let redirect = Response(status: .permanentRedirect, headers: [.location: "dashboard/"])

    /// Only the page's own files and its own server: no other host, no inline script, no framing.
    private static let headers: HTTPFields = [
        .cacheControl: "no-cache",
        .contentTypeOptions: "nosniff",
        .contentSecurityPolicy: "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            + "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        HTTPField.Name("Referrer-Policy")!: "no-referrer",
    ]
}
