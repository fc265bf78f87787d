// Reading the body of a request: how long it may be, and that it is complete.

import Domain
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOEmbedded
import TestSupport
import Testing

@testable import HTTPAPI

struct JSONBodyTests {
    private static let maxBytes = 10

    /// What `collectBytes` returns or throws for a body that arrives in these parts.
    private func collect(_ parts: [String], declared: Int?) async -> Result<String, any Error> {
        var fields: HTTPFields = [:]
        if let declared { fields[.contentLength] = String(declared) }
        let head = HTTPRequest(method: .post, scheme: nil, authority: nil, path: "/", headerFields: fields)
        let body = AsyncStream<ByteBuffer> { continuation in
            for part in parts { continuation.yield(ByteBuffer(string: part)) }
            continuation.finish()
        }
        let request = Request(head: head, body: RequestBody(asyncSequence: body))
        let context = APIContext(source: .init(channel: EmbeddedChannel(), logger: quietLogger))
        do {
            return .success(String(buffer: try await request.collectBytes(maxBytes: Self.maxBytes, context)))
        } catch {
            return .failure(error)
        }
    }

    @Test(arguments: [["1234567890"], ["12345", "67890"], ["1"], [], ["", "1", "", "2"]])
    func whatFitsComesWhole(parts: [String]) async throws {
        let text = parts.joined()
        #expect(try await collect(parts, declared: nil).get() == text)
        #expect(try await collect(parts, declared: text.utf8.count).get() == text)
    }

    @Test(arguments: [["12345678901"], ["1234567890", "1"], ["12345", "678901"]])
    func aByteTooManyIsRefused(parts: [String]) async {
        let failure = await #expect(throws: Failure.self) { _ = try await collect(parts, declared: nil).get() }
        #expect(failure?.code == .payloadTooLarge)
    }

    /// Before any of it has arrived: here, none does.
    @Test func aLengthTooLargeIsRefusedAtOnce() async {
        let failure = await #expect(throws: Failure.self) { _ = try await collect([], declared: 11).get() }
        #expect(failure?.code == .payloadTooLarge)
    }

    @Test func aBodyThatEndsEarlyIsRefused() async {
        await #expect(throws: TruncatedBody.self) { _ = try await collect(["1234"], declared: 5).get() }
        await #expect(throws: TruncatedBody.self) { _ = try await collect([], declared: 1).get() }
    }

    /// The text of both has the same length.
    @Test func parsedFormsCount() async throws {
        let zeros = "[" + Array(repeating: "0", count: 100_000).joined(separator: ",") + "]"
        let text = "\"" + String(repeating: "x", count: zeros.utf8.count - 2) + "\""
        let budget = BodyBudget(short: 0, long: 2_000_000)
        func parse(_ body: String) async throws -> JSON {
            let head = HTTPRequest(method: .post, scheme: nil, authority: nil, path: "/")
            let request = Request(head: head, body: RequestBody(buffer: ByteBuffer(string: body)))
            var context = APIContext(source: .init(channel: EmbeddedChannel(), logger: quietLogger))
            context.body = BodyReservation(budget.long, for: .local)
            return try await request.jsonBody(context)
        }
        #expect(try await parse(text).text == text)
        let failure = await #expect(throws: Failure.self) { _ = try await parse(zeros) }
        #expect(failure?.code == .payloadTooLarge)
        #expect(budget.long.heldBytes == 0)
    }
}
