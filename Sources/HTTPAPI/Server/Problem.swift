// Problem details (RFC 9457): the one table from failure code to status.

import Domain
import HTTPTypes
import Hummingbird
import NIOCore

enum Problem {
    static let contentType = "application/problem+json"

    /// Status and title of each failure.
    static func kind(of code: Failure.Code) -> (status: HTTPResponse.Status, title: String) {
        switch code {
        case .malformedRequest: (.badRequest, "Malformed request")
        case .malformedJSON: (.badRequest, "Malformed JSON")
        case .badPercentEncoding: (.badRequest, "Bad percent-encoding")
        case .requestTimeout: (.requestTimeout, "Request timeout")
        case .expectationFailed: (.expectationFailed, "Expectation failed")
        case .httpVersionNotSupported: (.httpVersionNotSupported, "HTTP version not supported")
        case .notFound: (.notFound, "No such resource")
        case .methodNotAllowed: (.methodNotAllowed, "Method not allowed")
        case .notAcceptable: (.notAcceptable, "Not acceptable")
        case .unsupportedMediaType: (.unsupportedMediaType, "Unsupported media type")
        case .payloadTooLarge: (.contentTooLarge, "Payload too large")
        case .headersTooLarge: (.requestHeaderFieldsTooLarge, "Header fields too large")
        case .validationFailed: (.unprocessableContent, "Validation failed")
        case .preconditionFailed: (.preconditionFailed, "Precondition failed")
        case .rangeNotSatisfiable: (.rangeNotSatisfiable, "Range not satisfiable")
        case .cacheMiss: (.notFound, "Cache miss")
        case .namespaceNotFound: (.notFound, "No such namespace")
        case .tooManyNamespaces: (.unprocessableContent, "Too many namespaces")
        case .notAnInteger: (.conflict, "Not an integer")
        case .integerOverflow: (.conflict, "Integer overflow")
        case .batchAborted: (HTTPResponse.Status(code: 424, reasonPhrase: "Failed Dependency"), "Batch aborted")
        case .unauthenticated: (.unauthorized, "Unauthenticated")
        case .forbidden: (.forbidden, "Forbidden")
        case .hostNotAllowed: (.misdirectedRequest, "Host not allowed")
        case .originNotAllowed: (.forbidden, "Origin not allowed")
        case .tooManyAttempts: (.tooManyRequests, "Too many attempts")
        case .tokenNotFound: (.notFound, "No such token")
        case .tooManyTokens: (.unprocessableContent, "Too many tokens")
        case .idempotencyKeyReused: (.unprocessableContent, "Idempotency key reused")
        case .idempotencyKeyInUse: (.conflict, "Idempotency key in use")
        case .idempotencyAnswerLost: (.conflict, "Answer lost")
        case .settingNotFound: (.notFound, "No such setting")
        case .sessionNotFound: (.notFound, "No such session")
        case .sessionExists: (.conflict, "Session exists")
        case .stateKeyNotFound: (.notFound, "No such state key")
        case .tooManyKeys: (.unprocessableContent, "Too many keys")
        case .templateNotFound: (.notFound, "No such session template")
        case .tooManyTemplates: (.unprocessableContent, "Too many session templates")
        case .historyItemNotFound: (.notFound, "No such history item")
        case .invalidSQL: (.unprocessableContent, "Invalid SQL")
        case .sqlNotAllowed: (.unprocessableContent, "SQL not allowed")
        case .sqlLimitExceeded: (.unprocessableContent, "SQL limit exceeded")
        case .backupNotFound: (.notFound, "No such backup")
        case .backupRunning: (.conflict, "Backup running")
        case .overloaded: (.serviceUnavailable, "Overloaded")
        case .deadlineExceeded: (.serviceUnavailable, "Deadline exceeded")
        case .shuttingDown: (.serviceUnavailable, "Shutting down")
        case .databaseBusy: (.serviceUnavailable, "Database busy")
        case .databaseReadOnly: (.serviceUnavailable, "Database read-only")
        case .databaseDamaged: (.serviceUnavailable, "Database damaged")
        case .databaseReplaced: (.serviceUnavailable, "Database replaced")
        case .storageFull: (HTTPResponse.Status(code: 507, reasonPhrase: "Insufficient Storage"), "Storage full")
        case .storageUnavailable: (.serviceUnavailable, "Storage unavailable")
        case .notSupported: (.notImplemented, "Not supported")
        case .internalError: (.internalServerError, "Internal error")
        }
    }

    /// The problem's members.
    /// - Parameter status: in place of the code's own.
    private static func json(_ failure: Failure, _ status: HTTPResponse.Status, requestID: String) -> JSON {
        let title = kind(of: failure.code).title
        var members: [JSON.Member] = [
            .init(name: "type", value: .string("urn:reprise:problem:\(failure.code.rawValue)")),
            .init(name: "title", value: .string(title)),
            .init(name: "status", value: .integer(status.code)),
            .init(name: "detail", value: .string(failure.detail)),
            .init(name: "code", value: .string(failure.code.rawValue)),
            .init(name: "request_id", value: .string(requestID)),
        ]
        if let miss = failure.miss {
            members.append(.init(name: "reason", value: .string(miss.reason.rawValue)))
            if let removedAt = miss.removedAt { members.append(.init(name: "removed_at", value: .instant(removedAt))) }
        }
        if let scope = failure.requiredScope {
            members.append(.init(name: "required_scope", value: .string(scope.rawValue)))
        }
        if let offset = failure.queryOffset { members.append(.init(name: "offset", value: .integer(offset))) }
        if !failure.errors.isEmpty {
            let errors = failure.errors.map { ["field": .string($0.field), "message": .string($0.message)] as JSON }
            members.append(.init(name: "errors", value: .array(errors)))
        }
        return .object(members)
    }

    static func json(_ failure: Failure, requestID: String) -> JSON {
        json(failure, kind(of: failure.code).status, requestID: requestID)
    }

    /// - Parameter status: in place of the code's own.
    static func response(
        _ failure: Failure, status: HTTPResponse.Status? = nil, requestID: String
    ) -> Response {
        var headers: HTTPFields = [.contentType: contentType, .cacheControl: "no-store"]
        if let miss = failure.miss {
            headers[.cacheStatus] = "reprise; fwd=uri-miss; detail=\(miss.reason.rawValue)"
        }
        let status = status ?? kind(of: failure.code).status
        if failure.code == .unauthenticated {
            let error = failure.tokenWasSent ? ", error=\"invalid_token\"" : ""
            headers.append(HTTPField(name: .wwwAuthenticate, value: "Bearer realm=\"reprise\"\(error)"))
            headers.append(
                HTTPField(name: .wwwAuthenticate, value: "Basic realm=\"reprise\", charset=\"UTF-8\""))
        }
        // What the client still sends of its request would be mistaken for the next one.
        if status == .requestTimeout { headers[.connection] = "close" }
        if let seconds = failure.retryAfterSeconds ?? (status == .serviceUnavailable ? 1 : nil) {
            headers[.retryAfter] = String(seconds)
        }
        if let length = failure.completeLength {
            headers[.contentRange] = "bytes */\(length)"
            headers[.acceptRanges] = "bytes"
        }
        return Response(
            status: status, headers: headers,
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: json(failure, status, requestID: requestID).utf8)))
    }
}
