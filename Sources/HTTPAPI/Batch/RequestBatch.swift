// The requests of a batch, sent to the routes one by one or all at once, and their answers as JSON.

import Domain
import FoundationEssentials
import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

/// A batch that is being answered.
struct RequestBatch: Sendable {
    /// What a request has from its batch, so that the same rules hold for it (RFC 9110, 11.6.2; Fetch; RFC 6454).
    static let inheritedFields: [HTTPField.Name] = [.authorization, .origin, .secFetchSite]

    /// The request with the batch.
    private let outer: HTTPRequest
    private let context: APIContext
    private let answer: RequestBatchRoutes.Answer
    private let room = AnswerRoom(bytes: Limits.maxBatchAnswerBytes)
    /// What the answers take until the batch is answered.
    private let memory: BodyReservation

    init(
        outer: Request, context: APIContext, memory: BodyReservation, answer: @escaping RequestBatchRoutes.Answer
    ) {
        self.outer = outer.head
        self.context = context
        self.memory = memory
        self.answer = answer
    }

    /// - Parameter stopsOnError: whether none is begun after one has failed.
    func runInSequence(_ requests: [BatchedRequest], stopsOnError: Bool) async throws -> [JSON] {
        var responses: [JSON] = []
        var hasFailed = false
        for (position, request) in requests.enumerated() {
            guard !(hasFailed && stopsOnError) else {
                responses.append(Self.json(request, problem(Self.stopped)))
                continue
            }
            let (json, status) = try await run(request, at: position)
            responses.append(json)
            hasFailed = hasFailed || status.code >= 400
        }
        return responses
    }

    func runInParallel(_ requests: [BatchedRequest]) async throws -> [JSON] {
        try await withThrowingTaskGroup(of: (Int, JSON).self) { group in
            for (index, request) in requests.enumerated() {
                group.addTask { (index, try await run(request, at: index).json) }
            }
            var responses = [JSON](repeating: .null, count: requests.count)
            for try await (index, json) in group { responses[index] = json }
            return responses
        }
    }

    private static let stopped = Failure(
        .batchAborted, "It was not tried, because an earlier request failed and stop_on_error is set.")

    private func run(
        _ request: BatchedRequest, at position: Int
    ) async throws -> (json: JSON, status: HTTPResponse.Status) {
        guard request.body.count <= Limits.maxBatchPartBytes else {
            let failure = Failure(
                .payloadTooLarge,
                "In a batch, the body of a request may have \(Limits.maxBatchPartBytes) bytes. Send it alone.")
            let refusal = problem(failure)
            return (Self.json(request, refusal), refusal.status)
        }
        var inner = APIContext(source: .init(channel: context.channel, logger: context.logger))
        (inner.keyedBatch, inner.batchPosition) = (context.keyedBatch, position)
        let response = try await answer(head(of: request), inner)
        do throws(Failure) {
            return (Self.json(request, try await part(response, of: request)), response.status)
        } catch {
            let refusal = problem(error)
            return (Self.json(request, refusal), refusal.status)
        }
    }

    private func head(of request: BatchedRequest) -> Request {
        var head = HTTPRequest(
            method: request.method, scheme: outer.scheme, authority: outer.authority, path: request.path,
            headerFields: request.headers)
        for name in Self.inheritedFields {
            for field in outer.headerFields[fields: name] { head.headerFields.append(field) }
        }
        if head.headerFields[.requestID] == nil { head.headerFields[.requestID] = context.requestID }
        if !request.body.isEmpty { head.headerFields[.contentLength] = String(request.body.count) }
        return Request(head: head, body: RequestBody(buffer: ByteBuffer(bytes: request.body)))
    }

    /// An answer, all of it.
    private struct Part {
        var status: HTTPResponse.Status
        var headers: HTTPFields
        var body: [UInt8] = []
        /// Why the body is left out.
        var omission: String?
    }

    private func problem(_ failure: Failure) -> Part {
        let response = Problem.response(failure, requestID: context.requestID)
        return Part(
            status: response.status, headers: response.headers,
            body: Problem.json(failure, requestID: context.requestID).utf8)
    }

    /// - Throws: `payload_too_large`, `not_acceptable` for what does not fit into a batch, unless the request may have
    ///   changed something: then its answer is without a body; `overloaded`; what the body throws.
    private func part(_ response: Response, of request: BatchedRequest) async throws(Failure) -> Part {
        var part = Part(status: response.status, headers: response.headers)
        guard request.method != .head else { return part }
        do throws(Failure) {
            part.body = try await body(of: response)
        } catch {
            // What was done must not look as if it could be sent again.
            guard request.method != .get, response.status.code < 400 else {
                throw Failure(error.code, error.detail + " Send this request alone.")
            }
            part.omission = error.detail
        }
        return part
    }

    private func body(of response: Response) async throws(Failure) -> [UInt8] {
        let isJSON = response.headers[.contentType].map(MediaRange.isJSON) ?? false
        // Some JSON is sent as it is made.
        guard response.body.contentLength != nil || isJSON else {
            throw Failure(.notAcceptable, "The answer is a stream, which no batch can have.")
        }
        let most = response.body.contentLength ?? Limits.maxBatchPartBytes
        guard most <= Limits.maxBatchPartBytes, most <= Limits.maxSmallBatchPartBytes || room.take(most) else {
            throw Self.tooLarge
        }
        do {
            // The answer itself, as base64, and in the text of the batch's answer.
            try memory.take(4 * most)
        } catch {
            throw .overloaded("Too many batches are being answered, in total or for this address.")
        }
        let collected = CollectedBody(limit: most)
        do {
            try await response.body.write(CollectingWriter(body: collected))
        } catch is CollectedBody.LimitExceeded {
            throw Self.tooLarge
        } catch {
            throw RequestMiddleware.failure(answering: error)
        }
        let bytes = collected.bytes
        memory.release(4 * (most - bytes.count))
        if most > Limits.maxSmallBatchPartBytes { room.giveBack(most - bytes.count) }
        return bytes
    }

    private static let tooLarge = Failure(
        .payloadTooLarge,
        "In a batch, an answer may have \(Limits.maxBatchPartBytes) bytes, and all together "
            + "\(Limits.maxBatchAnswerBytes).")

    private static func json(_ request: BatchedRequest, _ part: Part) -> JSON {
        let headers = part.headers.map { JSON.Member(name: $0.name.rawName, value: .string($0.value)) }
        // A field that comes twice is a list (RFC 9110, section 5.3).
        var joined: [JSON.Member] = []
        for header in headers {
            if let index = joined.firstIndex(where: { $0.name == header.name }),
                case .string(let first) = joined[index].value, case .string(let next) = header.value
            {
                joined[index].value = .string("\(first), \(next)")
            } else {
                joined.append(header)
            }
        }
        var members: [JSON.Member] = [
            .init(name: "id", value: .optional(request.id, JSON.string)),
            .init(name: "status", value: .integer(part.status.code)),
            .init(name: "headers", value: .object(joined)),
        ]
        if let omission = part.omission { members.append(.init(name: "omitted", value: .string(omission))) }
        if !part.body.isEmpty {
            let isJSON = part.headers[.contentType].map(MediaRange.isJSON) ?? false
            members.append(
                isJSON && part.headers[.contentEncoding] == nil && JSON.isValid(part.body)
                    ? .init(name: "json", value: .verbatim(JSONText(stored: part.body)))
                    : .init(name: "base64", value: .string(Data(part.body).base64EncodedString())))
        }
        return .object(members)
    }
}

/// What the answers of a batch may still take.
private final class AnswerRoom: Sendable {
    private let left: Mutex<Int>

    init(bytes: Int) { left = Mutex(bytes) }

    func giveBack(_ bytes: Int) { left.withLock { $0 += bytes } }

    func take(_ bytes: Int) -> Bool {
        left.withLock { left in
            guard bytes <= left else { return false }
            left -= bytes
            return true
        }
    }
}
