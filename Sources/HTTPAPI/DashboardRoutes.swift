// /dashboard/: the page that shows what /v1/metrics/summary tells.

import Dashboard
import Domain
import HTTPTypes
import Hummingbird
import NIOCore

struct DashboardRoutes: Sendable {
    var routes: [Route] {
        DashboardFile.all.map { file in
            Route(.get, "/dashboard/" + file.path, answersJSON: false) { request, _ in
                // To the router it is the same as with the slash, which the page's links need.
                if request.uri.path == "/dashboard" {
                    return Response(status: .permanentRedirect, headers: [.location: "/dashboard/"])
                }
                return try serve(file, request)
            }
        }
    }

    private func serve(_ file: DashboardFile, _ request: Request) throws -> Response {
        try request.refuseQuery()
        var headers = Self.headers
        headers[.eTag] = file.entityTag
        if let sent = EntityTagList(request.headers, .ifNoneMatch), sent.contains(opaque: file.entityTag, weakly: true)
        {
            return Response(status: .notModified, headers: headers)
        }
        headers[.contentType] = file.contentType
        return Response(status: .ok, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: file.bytes)))
    }

    /// Nothing but the page's own files and its own service: no other host, no inline script, no frame around it.
    private static let headers: HTTPFields = [
        .cacheControl: "no-cache",
        .contentTypeOptions: "nosniff",
        .contentSecurityPolicy: "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            + "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        HTTPField.Name("Referrer-Policy")!: "no-referrer",
    ]
}
