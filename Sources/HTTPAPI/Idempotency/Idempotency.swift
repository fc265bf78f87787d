// Carries out each request with an idempotency key once, and answers it again. docs/design/idempotency.md.

import Domain
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOHTTP1
import Synchronization

/// Requests with an `Idempotency-Key`.
///
/// Of those with the same key, one is under way at a time. The store knows whether an earlier one was carried out, and
/// what its answer was.
final class Idempotency: Sendable {
    /// What a request that was carried out is answered when it is sent again.
    enum Repetition: Sendable {
        case firstAnswer
        /// That its answer was not kept, because it contains a secret.
        case refusal
        /// The first answer. If it was lost before it was kept, the parts that were carried out answer for themselves,
        /// and the others are carried out.
        case partByPart
    }

    private let store: any IdempotencyStore
    /// The content of each request under way, by its key.
    private let underWay = Mutex<[[UInt8]: [UInt8]]>([:])

    private let maxUnderWay: Int

    init(store: any IdempotencyStore, maxUnderWay: Int = Limits.maxKeyedRequestsUnderWay) {
        self.store = store
        self.maxUnderWay = maxUnderWay
    }

    /// - Throws: `idempotency_key_reused`, `idempotency_key_in_use`, `idempotency_answer_lost`; what the body of the
    ///   request, the store and `handler` throw.
    func answer(
        _ request: Request, _ context: APIContext, key: IdempotencyKey, _ repetition: Repetition,
        by handler: @escaping Route.Handler
    ) async throws -> Response {
        // No route takes such a body, and the route knows its own limit.
        guard request.declaredLength ?? 0 <= Limits.maxBatchBodyBytes else {
            return try await handler(request, context)
        }
        let body = try await request.collectBytes(maxBytes: Limits.maxBatchBodyBytes, context)
        // It stays in memory until the request is answered. The route takes as much again while it parses it.
        var request = request
        request.body = RequestBody(buffer: body)
        let keyed = KeyedRequest(
            key: key.digest(request, context), content: IdempotencyKey.contentDigest(request.headers, body))
        try begin(keyed)
        defer { end(keyed) }
        if let earlier = try await store.earlierRequest(like: keyed) { return try Self.repeated(earlier) }
        return try await carryOut(request, context, as: keyed, repetition, by: handler)
    }

    private func begin(_ request: KeyedRequest) throws(Failure) {
        try underWay.withLock { underWay throws(Failure) in
            if let content = underWay[request.key] {
                throw content == request.content ? .keyInUse : .keyReused
            }
            guard underWay.count < maxUnderWay else {
                throw .overloaded("Too many requests with an Idempotency-Key are under way.")
            }
            underWay[request.key] = request.content
        }
    }

    private func end(_ request: KeyedRequest) { underWay.withLock { $0[request.key] = nil } }

    private static func repeated(_ earlier: EarlierRequest) throws(Failure) -> Response {
        switch earlier {
        case .different: throw .keyReused
        case .unanswered: throw .answerLost
        case .answered(let answer): return Response(answer)
        }
    }

    private func carryOut(
        _ request: Request, _ context: APIContext, as keyed: KeyedRequest, _ repetition: Repetition,
        by handler: @escaping Route.Handler
    ) async throws -> Response {
        do {
            var response: Response
            var mayKeep = repetition != .refusal
            if repetition == .partByPart {
                // Its parts are marked, each for itself.
                let batch = KeyedBatch(digest: keyed.key)
                var context = context
                context.keyedBatch = batch
                response = try await handler(request, context)
                mayKeep = !batch.hasSecret.load(ordering: .acquiring)
            } else {
                response = try await store.marking(keyed) { try await handler(request, context) }
                if !mayKeep { context.keyedBatch?.hasSecret.store(true, ordering: .releasing) }
            }
            try await keep(mayKeep ? response : nil, of: keyed, context)
            return response
        } catch let failure as Failure {
            let answer = Problem.response(failure, requestID: context.requestID)
            // A backup that is in the way is soon over.
            if Self.isFinal(answer), failure.code != .backupRunning { try await keep(answer, of: keyed, context) }
            throw failure
        }
    }

    /// Whether it says what became of the request, and not only that it may be sent again.
    static func isFinal(_ answer: Response) -> Bool {
        switch answer.status {
        case .unauthorized, .forbidden, .requestTimeout, .contentTooLarge, .tooManyRequests: false
        default: answer.status.kind != .serverError && answer.headers[.retryAfter] == nil
        }
    }

    /// - Parameter response: nil to keep only that the request was carried out.
    private func keep(_ response: Response?, of request: KeyedRequest, _ context: APIContext) async throws {
        let answer = if let response { try await KeptAnswer(response) } else { nil as KeptAnswer? }
        do {
            try await store.keep(answer, of: request)
        } catch {
            // What was done is marked, and what was not marked may be done again. So this is no reason to hide what
            // the request is to be answered.
            context.logger.debug(
                "an answer was not kept", metadata: ["request_id": "\(context.requestID)", "error": "\(error)"])
        }
    }
}

extension KeptAnswer {
    /// A response before it is sent; nil if it is too large.
    fileprivate init?(_ response: Response) async throws {
        guard response.body.contentLength ?? 0 <= Limits.maxKeptAnswerBytes else { return nil }
        let body = CollectedBody(limit: Limits.maxKeptAnswerBytes)
        do {
            try await response.body.write(CollectingWriter(body: body))
        } catch is CollectedBody.LimitExceeded {
            return nil
        }
        self.init(
            status: response.status.code,
            fields: response.headers.map { Field(name: $0.name.rawName, value: $0.value) }, body: body.bytes)
    }
}

extension Response {
    /// The same answer again.
    fileprivate init(_ answer: KeptAnswer) {
        var headers = HTTPFields()
        for field in answer.fields {
            guard let name = HTTPField.Name(field.name) else { continue }
            headers.append(HTTPField(name: name, value: field.value))
        }
        headers[.idempotencyReplayed] = "true"
        let phrase = HTTPResponseStatus(statusCode: answer.status).reasonPhrase
        self.init(
            status: HTTPResponse.Status(code: answer.status, reasonPhrase: phrase), headers: headers,
            body: answer.body.isEmpty ? ResponseBody() : ResponseBody(byteBuffer: ByteBuffer(bytes: answer.body)))
    }
}

extension Failure {
    fileprivate static let keyReused = Failure(
        .idempotencyKeyReused,
        "Another request was sent with this Idempotency-Key: its body or Content-Type was a different one. Nothing was "
            + "done. Use a new key for each new request.")

    fileprivate static let keyInUse: Failure = {
        var failure = Failure(
            .idempotencyKeyInUse, "The request with this Idempotency-Key is still under way. Send it again shortly.")
        failure.retryAfterSeconds = 1
        return failure
    }()

    fileprivate static let answerLost = Failure(
        .idempotencyAnswerLost,
        "The request with this Idempotency-Key was carried out before, and nothing was done again. Its answer is not "
            + "there: it was lost when the server ended, was too large to be kept or had to make room for others, or "
            + "contained a secret. Read the resource to see what the request did.")
}
