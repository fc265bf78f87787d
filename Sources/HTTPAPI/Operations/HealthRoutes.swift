// /health and /openapi.yaml: for supervisors and tools.

import CEmbeddedFiles
import Crypto
import Domain
import HTTPTypes
import Hummingbird
import NIOCore

/// Liveness, readiness and the contract.
struct HealthRoutes: Sendable {
    let health: any HealthStore

    var routes: [Route] {
        // Probes send any Accept header.
        [
            Route(.get, "/health/live", scope: .open, answersJSON: false, live),
            Route(.get, "/health/ready", scope: .open, answersJSON: false, ready),
            Route(.get, "/openapi.yaml", scope: .read, answersJSON: false, contract),
        ]
    }

    @Sendable func live(_ request: Request, _ context: APIContext) async throws -> Response {
        Response(status: .ok, headers: Self.liveHeaders, body: ResponseBody(byteBuffer: Self.liveBody))
    }

    private static let liveHeaders: HTTPFields = [.contentType: "application/json", .cacheControl: "no-store"]
    private static let liveBody = ByteBuffer(string: #"{"status":"live"}"#)

    @Sendable func ready(_ request: Request, _ context: APIContext) async throws -> Response {
        let version: Int
        do { version = try await health.checkReadiness() } catch let failure as Failure {
            // One status for every reason, because probes and load balancers look at nothing else.
            return Problem.response(failure, status: .serviceUnavailable, requestID: context.requestID)
        }
        return .json(
            ["status": "ready", "version": .string(Version.current), "schema_version": .integer(version)],
            headers: [.cacheControl: "no-store"])
    }

    @Sendable func contract(_ request: Request, _ context: APIContext) async throws -> Response {
        var headers: HTTPFields = [
            .contentType: "application/yaml", .eTag: Self.contractTag.header, .cacheControl: "no-cache",
        ]
        if try request.condition.isKnown(.present(Self.contractTag.hex)) {
            headers[.contentType] = nil
            return Response(status: .notModified, headers: headers)
        }
        return Response(status: .ok, headers: headers, body: ResponseBody(byteBuffer: Self.contractBody))
    }

    private static let contractBody = ByteBuffer(bytes: embeddedContract())
    private static let contractTag = EntityTag(digest: Array(SHA256.hash(data: embeddedContract()).prefix(16)))
}

/// `openapi.yaml` as it was when the program was built.
public func embeddedContract() -> [UInt8] {
    Array(UnsafeBufferPointer(start: reprise_openapi_yaml_start(), count: reprise_openapi_yaml_length))
}
