// The API over a real temporary SQLite file, with a clock that moves by hand.

import Domain
import Glibc
import HTTPAPI
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import SQLiteStorage
import Synchronization
import Testing

/// A clock that stands until it is moved.
final class ManualClock: Sendable {
    private let now: Mutex<Instant>

    init(_ now: Instant = Instant(milliseconds: 1_795_418_040_123)) { self.now = Mutex(now) }

    func advance(seconds: Double) {
        now.withLock { $0 = $0.advanced(milliseconds: Int64(seconds * 1000)) }
    }

    var instant: Instant { now.withLock { $0 } }
    var wallClock: WallClock { WallClock { self.instant } }
}

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

    /// Asserts that this is a whole problem of a kind.
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
    let clock = ManualClock()
    let live = LiveSettings(settings)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let storage = try SQLiteStorage(
        path: folder.path + "/test.db", settings: live, clock: clock.wallClock, logger: logger)
    let services = Services(
        storage: storage, settings: live, clock: clock.wallClock, process: { .example })
    let application = buildApplication(services: services, host: "127.0.0.1", port: 0, logger: logger)
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
    /// Figures of which no two are alike.
    static let example = ProcessFigures(
        residentBytes: 9_000_000, virtualBytes: 80_000_000, memoryPercent: 0.5, cpuSeconds: 1.25, openDescriptors: 17,
        maxDescriptors: 1024, startedAt: 1_795_418_000.5)
}

/// A folder that goes with the test.
final class TemporaryFolder {
    let path: String

    init() {
        var template = Array("/tmp/reprise-test-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
    }

    deinit {
        for name in ["test.db", "test.db-wal", "test.db-shm", "test.db.lock"] { unlink(path + "/" + name) }
        rmdir(path)
    }
}

/// Bytes that look random and are the same every time (SplitMix64).
struct Generator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) } }
}
