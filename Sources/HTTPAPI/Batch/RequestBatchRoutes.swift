// /v1/batch: many requests in one.

import Domain
import HTTPTypes
import Hummingbird
import NIOCore

/// Batches of requests. Each is answered by the router of all other routes, so it is authorized, limited and counted
/// like one that arrives alone, and a batch cannot contain another.
struct RequestBatchRoutes: Sendable {
    typealias Answer = @Sendable (Request, APIContext) async throws -> Response

    /// Memory for answers, shared with long bodies.
    let memory: BodyBudget.Share
    /// Answers one of the requests.
    let answer: Answer

    /// A token must include at least the least scope; what it may do is decided for each request.
    var routes: [Route] {
        [Route(.post, "/v1/batch", scope: .read, computesLong: true, repetition: .partByPart, batch)]
    }

    /// How the requests of a batch follow each other.
    private enum Mode: String, CaseIterable {
        /// Each begins when the one before it is answered.
        case sequence
        /// All begin at once.
        case parallel
    }

    @Sendable func batch(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        var body = try await request.objectBody(
            context, maxBytes: Limits.maxBatchBodyBytes,
            bound: JSONListBound("requests", maxItems: Limits.maxBatchRequests, otherwise: Self.tooMany))
        let mode: Mode = body.choice("mode") ?? .sequence
        let stopsOnError = body.bool("stop_on_error") ?? false
        if stopsOnError, mode == .parallel {
            body.report("stop_on_error", "needs the mode sequence: in parallel, all requests begin at once.")
        }
        let requests = requests(in: &body)
        try body.finish()
        let memory = BodyReservation(memory, for: context.caller)
        let batch = RequestBatch(outer: request, context: context, memory: memory, answer: answer)
        let responses =
            switch mode {
            case .sequence: try await batch.runInSequence(requests, stopsOnError: stopsOnError)
            case .parallel: try await batch.runInParallel(requests)
            }
        let bytes = ByteBuffer(bytes: (["responses": .array(responses)] as JSON).utf8)
        return Response(
            status: .ok, headers: [.contentType: "application/json"],
            body: ResponseBody(contentLength: bytes.readableBytes) { writer in
                // It is held for as long as the caller takes to read it.
                defer { withExtendedLifetime(memory) {} }
                try await writer.write(bytes)
                try await writer.finish(nil)
            })
    }

    private static let tooMany = Failure.invalid(
        "requests", "must be at most \(Limits.maxBatchRequests) requests.")

    /// The requests. Whatever is wrong with one as a request is reported with its position.
    private func requests(in body: inout ObjectReader) -> [BatchedRequest] {
        guard case .array(let items)? = body.take("requests") else {
            body.report("requests", "must be an array of requests.")
            return []
        }
        var requests: [BatchedRequest] = []
        for (index, item) in items.enumerated() {
            do throws(Failure) {
                requests.append(try BatchedRequest(item, path: "requests[\(index)]"))
            } catch {
                body.report(error)
            }
        }
        return requests
    }
}

/// One request of a batch.
struct BatchedRequest: Sendable {
    /// The caller's own name for it.
    let id: String?
    let method: HTTPRequest.Method
    /// With its query.
    let path: String
    let headers: HTTPFields
    let body: [UInt8]

    private enum Method: String, CaseIterable {
        case get = "GET"
        case head = "HEAD"
        case post = "POST"
        case put = "PUT"
        case patch = "PATCH"
        case delete = "DELETE"
    }

    /// - Parameter path: its position in the batch.
    /// - Throws: `validation_failed`.
    init(_ json: JSON, path position: String) throws(Failure) {
        var fields = try ObjectReader(json, path: position)
        id = fields.string("id")
        if let id, id.unicodeScalars.count > Limits.maxRequestIDBytes {
            fields.report("id", "must be at most \(Limits.maxRequestIDBytes) characters.")
        }
        let method: Method? = fields.choice("method")
        if method == nil, !fields.hasError("method") { fields.report("method", "is missing.") }
        path = fields.batchedPath()
        var headers = fields.batchedHeaders()
        (body, self.headers) = (fields.batchedBody(&headers), headers)
        self.method = method.flatMap { HTTPRequest.Method($0.rawValue) } ?? .get
        try fields.finish()
    }
}

extension ObjectReader {
    fileprivate mutating func batchedPath() -> String {
        guard let path = string("path") else {
            if !hasError("path") { report("path", "is missing.") }
            return ""
        }
        let isVisible = path.utf8.allSatisfy { (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "#") }
        guard path.hasPrefix("/v1/"), isVisible, path.utf8.count <= Limits.maxHeaderBytes else {
            report(
                "path",
                "must be a path that begins with /v1/, and its query; everything else than visible ASCII characters "
                    + "is percent-encoded.")
            return ""
        }
        let segments = path.prefix { $0 != "?" }.split(separator: "/")
        if segments == ["v1", "batch"] { report("path", "must not be /v1/batch: a batch cannot contain another.") }
        return path
    }

    fileprivate mutating func batchedHeaders() -> HTTPFields {
        guard let json = take("headers"), json != .null else { return [:] }
        guard case .object(let members) = json else {
            report("headers", "must be a JSON object of header fields.")
            return [:]
        }
        var headers = HTTPFields()
        var bytes = 0
        for member in members {
            guard let name = HTTPField.Name(member.name), let value = member.value.stringValue,
                HTTPField.isValidValue(value)
            else {
                report("headers", "must have names of header fields, and strings that may stand in one.")
                continue
            }
            guard !Self.fixedFields.contains(name) else {
                report("headers", "must not have \(member.name): it is that of the batch, or made by the server.")
                continue
            }
            bytes += member.name.utf8.count + value.utf8.count
            headers.append(HTTPField(name: name, value: value))
        }
        if members.count > Limits.maxHeaderFields || bytes > Limits.maxHeaderBytes {
            report(
                "headers",
                "must be at most \(Limits.maxHeaderFields) fields of \(Limits.maxHeaderBytes) bytes together.")
        }
        return headers
    }

    /// Fields about the caller and the connection, which all requests of a batch have in common, and about the body.
    private static let fixedFields: Set<HTTPField.Name> = Set(
        RequestBatch.inheritedFields + [
            .connection, .contentLength, .cookie, .expect, .te, .trailer, .transferEncoding, .upgrade,
        ] + ["Host", "Keep-Alive", "Proxy-Connection"].compactMap { HTTPField.Name($0) })

    /// - Parameter headers: get the type of JSON if they have none.
    fileprivate mutating func batchedBody(_ headers: inout HTTPFields) -> [UInt8] {
        let json = take("json")
        let isBase64Sent = isPresent("base64")
        let base64 = string("base64")
        if let json {
            if isBase64Sent { report("json", "excludes base64: send one.") }
            if !headers.contains(.contentType) { headers[.contentType] = "application/json" }
            return json.utf8
        }
        guard let base64 else { return [] }
        guard let bytes = Base64.decode(base64) else {
            report("base64", Base64.complaint)
            return []
        }
        return bytes
    }
}
