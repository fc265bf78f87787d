// Sessions over the API, on a real temporary SQLite file, with a clock that the test advances.

import Domain
import HTTPAPI
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import NIOCore
import SQLiteStorage
import TestSupport
import Testing

/// The client of a session test.
struct SessionAPI {
    struct Answer {
        var status: Int
        var headers: HTTPFields
        var text: String

        var json: JSON { (try? JSON(parsing: text.utf8)) ?? .null }
        var entityTag: String? { headers[.eTag] }

        /// The string in a member.
        func string(_ name: String) -> String? { json[name]?.stringValue }

        /// The values of a member in each of `items`, as JSON text.
        func items(_ name: String) -> [String] {
            guard case .array(let items) = json["items"] else { return [] }
            return items.map { $0[name]?.text ?? "absent" }
        }
    }

    private let client: any TestClientProtocol
    private let clock: ManualClock

    var now: Instant { clock.now }

    func advance(seconds: Double) { clock.advance(seconds: seconds) }

    @discardableResult
    func send(
        _ method: HTTPRequest.Method, _ uri: String, _ body: String? = nil, headers: [String: String] = [:]
    ) async throws -> Answer {
        var fields = HTTPFields()
        if body != nil { fields[.contentType] = "application/json" }
        for (name, value) in headers { fields[HTTPField.Name(name)!] = value }
        return try await client.execute(
            uri: uri, method: method, headers: fields, body: body.map { ByteBuffer(string: $0) }
        ) { Answer(status: $0.status.code, headers: $0.headers, text: String(buffer: $0.body)) }
    }

    /// Runs a test against a fresh API.
    static func run(_ body: @escaping @Sendable (SessionAPI) async throws -> Void) async throws {
        let folder = TemporaryFolder()
        let settings = LiveSettings(.quick)
        let clock = ManualClock(Instant(milliseconds: 1_795_418_040_123))
        let storage = try SQLiteStorage(
            path: folder.file("test.db"), settings: settings, clock: clock.wallClock, logger: quietLogger)
        let services = Services(
            storage: storage, settings: settings, clock: clock.wallClock, process: { nil })
        let application = buildApplication(services: services, logger: quietLogger)
        do {
            try await application.test(.router) { client in
                try await body(SessionAPI(client: client, clock: clock))
            }
        } catch {
            await storage.close()
            throw error
        }
        await storage.close()
    }
}

extension SessionAPI.Answer {
    /// Asserts that this is a problem with a code and status.
    func expect(_ code: Failure.Code, _ status: Int, sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(self.status == status, "\(text)", sourceLocation: sourceLocation)
        #expect(string("code") == code.rawValue, sourceLocation: sourceLocation)
        #expect(headers[.contentType] == "application/problem+json", sourceLocation: sourceLocation)
    }

    /// The fields a validation problem names.
    var fields: [String] {
        guard case .array(let errors) = json["errors"] else { return [] }
        return errors.compactMap { $0["field"]?.stringValue }
    }
}
