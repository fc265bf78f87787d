// The API over a real temporary SQLite file, with a clock that the test advances.

import Domain
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import NIOCore
import SQLiteStorage
import TestSupport
import Testing

@testable import HTTPAPI

/// What a test talks to.
struct API {
    let client: any TestClientProtocol
    let clock: ManualClock
    let storage: SQLiteStorage
    let services: Services

    @discardableResult
    func send(
        _ method: HTTPRequest.Method, _ uri: String, _ body: String? = nil, headers: HTTPFields = [:]
    ) async throws -> TestResponse {
        try await send(method, uri, bytes: body.map { Array($0.utf8) }, headers: headers)
    }

    func send(
        _ method: HTTPRequest.Method, _ uri: String, bytes: [UInt8]?, headers: HTTPFields = [:]
    ) async throws -> TestResponse {
        try await client.execute(uri: uri, method: method, headers: headers, body: bytes.map { ByteBuffer(bytes: $0) })
    }

    /// A request with a JSON body.
    @discardableResult
    func json(_ method: HTTPRequest.Method, _ uri: String, _ body: JSON) async throws -> TestResponse {
        try await send(method, uri, body.text, headers: [.contentType: "application/json"])
    }
}

extension TestResponse {
    var bytes: [UInt8] { Array(body.readableBytesView) }
    var text: String { String(buffer: body) }
    var json: JSON { get throws { try JSON(parsing: bytes) } }

    /// Asserts that this is a complete problem with a code and status.
    @discardableResult
    func expectProblem(
        _ code: Failure.Code, status expected: Int, sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> JSON {
        #expect(status.code == expected, sourceLocation: sourceLocation)
        #expect(headers[.contentType] == "application/problem+json", sourceLocation: sourceLocation)
        let problem = try json
        #expect(problem["code"] == .string(code.rawValue), sourceLocation: sourceLocation)
        #expect(problem["status"]?.integerValue == Int64(expected), sourceLocation: sourceLocation)
        for member in ["type", "title", "detail"] {
            #expect(problem[member]?.stringValue?.isEmpty == false, sourceLocation: sourceLocation)
        }
        let id = try #require(headers[HTTPField.Name("X-Request-Id")!], sourceLocation: sourceLocation)
        #expect(problem["request_id"] == .string(id), sourceLocation: sourceLocation)
        return problem
    }

    subscript(header name: String) -> String? { headers[HTTPField.Name(name)!] }
}

/// Runs a test against a fresh API.
func withAPI(
    _ setup: TestingSetup = .router, settings: Settings = Settings(),
    _ body: @escaping @Sendable (API) async throws -> Void
) async throws {
    let folder = TemporaryFolder()
    let clock = ManualClock(Instant(milliseconds: 1_795_418_040_123))
    let live = LiveSettings(settings)
    let storage = try SQLiteStorage(
        path: folder.file("test.db"), settings: live, clock: clock.wallClock, logger: quietLogger)
    let services = Services(
        storage: storage, settings: live, clock: clock.wallClock, process: { .example }, pause: { _ in })
    let application = buildApplication(services: services, logger: quietLogger)
    do {
        try await application.test(setup) { client in
            try await body(API(client: client, clock: clock, storage: storage, services: services))
        }
    } catch {
        await storage.close()
        throw error
    }
    await storage.close()
}

extension ProcessFigures {
    /// Metrics that all have different values.
    static let example = ProcessFigures(
        residentBytes: 9_000_000, virtualBytes: 80_000_000, memoryPercent: 0.5, cpuSeconds: 1.25, openDescriptors: 17,
        maxDescriptors: 1024, startedAt: 1_795_418_000.5)
}
