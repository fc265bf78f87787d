// Requests with an idempotency key, below the routes: what is under way, what is carried out again, what is kept.

import Domain
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOEmbedded
import SQLiteStorage
import Synchronization
import TestSupport
import Testing

@testable import HTTPAPI

struct IdempotencyTests {
    private static func context() -> APIContext {
        APIContext(source: .init(channel: EmbeddedChannel(), logger: quietLogger))
    }

    private static func request(
        _ key: String, _ body: String = "", path: String = "/v1/x", length: Int? = nil
    ) -> Request {
        Request(
            head: HTTPRequest(
                method: .post, scheme: nil, authority: nil, path: path,
                headerFields: [.idempotencyKey: key, .contentLength: "\(length ?? body.utf8.count)"]),
            body: RequestBody(buffer: ByteBuffer(string: body)))
    }

    /// Sends a request whose route does what `handler` does.
    private static func send(
        _ request: Request, to idempotency: Idempotency, repeated repetition: Idempotency.Repetition = .firstAnswer,
        _ handler: @escaping @Sendable () async throws -> Response
    ) async throws -> Response {
        let route = Route(.post, "/v1/x", scope: .open, repetition: repetition) { _, _ in try await handler() }
        return try await route.answer(request, context(), bodies: BodyBudget(), idempotency: idempotency)
    }

    private static let done = Response.json(["done": true], status: .created)

    @Test func whileOneIsUnderWayAnotherWithItsKeyIsRefused() async throws {
        try await withAPI { api in
            let idempotency = Idempotency(store: api.storage)
            let first = try await Self.send(Self.request("k", "a"), to: idempotency) {
                let repeated = await failure {
                    try await Self.send(Self.request("k", "a"), to: idempotency) { Self.done }
                }
                #expect(repeated?.code == .idempotencyKeyInUse)
                #expect(repeated?.retryAfterSeconds == 1)
                let another = await code { try await Self.send(Self.request("k", "b"), to: idempotency) { Self.done } }
                #expect(another == .idempotencyKeyReused)
                for free in [Self.request("l", "a"), Self.request("k", "a", path: "/v1/y")] {
                    let answer = try await Self.send(free, to: idempotency) { Self.done }
                    #expect(answer.status == .created)
                }
                return Self.done
            }
            #expect(first.headers[.idempotencyReplayed] == nil)
            let second = try await Self.send(Self.request("k", "a"), to: idempotency) {
                Issue.record("it is carried out again")
                return Self.done
            }
            #expect(second.status == .created && second.status.reasonPhrase == "Created")
            #expect(second.headers[.idempotencyReplayed] == "true")
            #expect(second.headers[.contentType] == "application/json")
        }
    }

    @Test func soManyAreUnderWayAtATime() async throws {
        try await withAPI { api in
            let idempotency = Idempotency(store: api.storage, maxUnderWay: 2)
            let first = try await Self.send(Self.request("a"), to: idempotency) {
                try await Self.send(Self.request("b"), to: idempotency) {
                    #expect(
                        await code { try await Self.send(Self.request("c"), to: idempotency) { Self.done } }
                            == .overloaded)
                    return Self.done
                }
            }
            #expect(first.status == .created)
            let later = try await Self.send(Self.request("c"), to: idempotency) { Self.done }
            #expect(later.headers[.idempotencyReplayed] == nil)
        }
    }

    /// Whatever says that nothing was done may be tried again.
    @Test(arguments: [
        Failure.Code.unauthenticated, .forbidden, .requestTimeout, .payloadTooLarge, .tooManyAttempts, .overloaded,
        .storageFull, .internalError, .shuttingDown, .backupRunning,
    ])
    func aTemporaryFailureIsNotKept(code: Failure.Code) async throws {
        try await withAPI { api in
            let idempotency = Idempotency(store: api.storage)
            #expect(
                await TestSupport.code {
                    try await Self.send(Self.request("k"), to: idempotency) { throw Failure(code, "") }
                } == code)
            let again = try await Self.send(Self.request("k"), to: idempotency) { Self.done }
            #expect(again.status == .created && again.headers[.idempotencyReplayed] == nil)
        }
    }

    @Test func aFailureToWaitForIsNotKept() async throws {
        try await withAPI { api in
            let idempotency = Idempotency(store: api.storage)
            var failure = Failure(.sessionExists, "")
            failure.retryAfterSeconds = 1
            let later = failure
            _ = await code { try await Self.send(Self.request("k"), to: idempotency) { throw later } }
            let again = try await Self.send(Self.request("k"), to: idempotency) { Self.done }
            #expect(again.status == .created)
        }
    }

    @Test(arguments: [
        Failure.Code.validationFailed, .sessionNotFound, .sessionExists, .preconditionFailed, .malformedJSON,
    ])
    func aFinalFailureIsAnsweredAgain(code: Failure.Code) async throws {
        try await withAPI { api in
            let idempotency = Idempotency(store: api.storage)
            #expect(
                await TestSupport.code {
                    try await Self.send(Self.request("k"), to: idempotency) { throw Failure(code, "because") }
                } == code)
            let again = try await Self.send(Self.request("k"), to: idempotency) { Self.done }
            #expect(again.status == Problem.kind(of: code).status)
            #expect(again.headers[.idempotencyReplayed] == "true")
            #expect(again.headers[.contentType] == Problem.contentType)
        }
    }

    /// As if the process ended between the change and its answer.
    @Test func aRequestWhoseAnswerIsLostIsNotCarriedOutAgain() async throws {
        try await withAPI { api in
            let forgetful = Idempotency(store: ForgetfulStore(base: api.storage))
            let count: @Sendable () async throws -> Response = {
                let increment = CacheIncrement(key: "k", timeToLive: .never)
                return .json(.integer(try await api.storage.increment(increment, namespace: .n)))
            }
            #expect(try await Self.send(Self.request("k"), to: forgetful, count).status == .ok)
            let restarted = Idempotency(store: api.storage)
            #expect(
                await code { try await Self.send(Self.request("k"), to: restarted, count) } == .idempotencyAnswerLost)
            #expect(try await api.send(.get, "/v1/cache/n/entries/k").text == "1")
            // What changed nothing may be done again.
            let first = try await Self.send(Self.request("l"), to: forgetful) { Self.done }
            #expect(first.status == .created)
            let again = try await Self.send(Self.request("l"), to: restarted) { Self.done }
            #expect(again.headers[.idempotencyReplayed] == nil)
        }
    }

    @Test func anAnswerIsKeptUpToItsLimit() async throws {
        try await withAPI { api in
            let idempotency = Idempotency(store: api.storage)
            let most = Limits.maxKeptAnswerBytes
            // With a known length, and as it is made.
            for isStreamed in [false, true] {
                for (bytes, isKept) in [(most, true), (most + 1, false)] {
                    let content = ByteBuffer(bytes: noise(bytes))
                    let body = ResponseBody(contentLength: isStreamed ? nil : bytes) { writer in
                        try await writer.write(content)
                        try await writer.finish(nil)
                    }
                    let request = Self.request("\(isStreamed) \(bytes)".replacing(" ", with: "-"))
                    let answer = Response(status: .ok, body: body)
                    let first = try await Self.send(request, to: idempotency) { answer }
                    #expect(try await first.bytes == Array(content.readableBytesView))
                    if isKept {
                        let again = try await Self.send(request, to: idempotency) { Self.done }
                        #expect(try await again.bytes == Array(content.readableBytesView))
                    } else {
                        let refused = await code { try await Self.send(request, to: idempotency) { Self.done } }
                        #expect(refused == .idempotencyAnswerLost)
                    }
                }
            }
        }
    }

    @Test func aSecretIsNotKept() async throws {
        try await withAPI { api in
            let idempotency = Idempotency(store: api.storage)
            @Sendable func send(
                _ key: String, _ handler: @escaping @Sendable () async throws -> Response
            ) async throws -> Response {
                try await Self.send(Self.request(key), to: idempotency, repeated: .refusal, handler)
            }
            let first = try await send("k") { Self.done }
            #expect(first.status == .created)
            #expect(await code { try await send("k") { Self.done } } == .idempotencyAnswerLost)
            // A failure has none.
            #expect(await code { try await send("l") { throw Failure.invalid("a", "b") } } == .validationFailed)
            let failed = try await send("l") { Self.done }
            #expect(failed.status == .unprocessableContent)
        }
    }

    @Test(arguments: ["k", "!", "~", "\"k\"", String(repeating: "k", count: Limits.maxIdempotencyKeyBytes)])
    func aKeyIsVisibleASCII(key: String) throws {
        #expect(try IdempotencyKey(Self.request(key), Self.context()) != nil)
    }

    @Test(arguments: ["", " ", "a b", "k\tk", "\u{7F}", "é", String(repeating: "k", count: 129)])
    func anythingElseIsNoKey(key: String) async throws {
        #expect(await code { _ = try IdempotencyKey(Self.request(key), Self.context()) } == .malformedRequest)
    }

    /// A longer body than any route takes is not even read.
    @Test func anEndlessBodyIsLeftToTheRoute() async throws {
        try await withAPI { api in
            let request = Self.request("k", "x", length: Limits.maxBatchBodyBytes + 1)
            let response = try await Self.send(request, to: Idempotency(store: api.storage)) { Self.done }
            #expect(response.status == .created)
        }
    }

    /// A key comes with a digest of the whole body, which a route that passes its body on does not have.
    @Test func everyBodyOfARequestThatCanHaveAKeyIsHeld() async throws {
        try await withAPI { api in
            let keyed = api.services.routes.routes.filter { $0.method == .post || $0.method == .patch }
            #expect(keyed.count > 15)
            #expect(keyed.allSatisfy { !$0.streamsBody })
            #expect(keyed.filter { $0.repetition == .refusal }.map(\.path) == ["/v1/tokens"])
        }
    }
}

extension Response {
    /// Its body.
    fileprivate var bytes: [UInt8] {
        get async throws {
            let collected = CollectedBody(limit: .max)
            try await body.write(CollectingWriter(body: collected))
            return collected.bytes
        }
    }
}

/// A store that gets to keep some answers, and then none any more.
final class ForgetfulStore: IdempotencyStore {
    private let base: any IdempotencyStore
    private let left: Atomic<Int>

    init(base: any IdempotencyStore, left: Int = 0) {
        self.base = base
        self.left = Atomic(left)
    }

    func earlierRequest(like request: KeyedRequest) async throws -> EarlierRequest? {
        try await base.earlierRequest(like: request)
    }

    func marking<Answer: Sendable>(
        _ request: KeyedRequest, _ body: @escaping @Sendable () async throws -> Answer
    ) async throws -> Answer {
        try await base.marking(request, body)
    }

    func keep(_ answer: KeptAnswer?, of request: KeyedRequest) async throws {
        guard left.wrappingSubtract(1, ordering: .relaxed).oldValue > 0 else { throw Failure(.storageFull, "") }
        try await base.keep(answer, of: request)
    }
}
