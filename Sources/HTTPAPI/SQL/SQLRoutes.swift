// /v1/sql: ad-hoc SQL queries.

import Domain
import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

/// One query, answered as JSON or as CSV.
struct SQLRoutes: Sendable {
    /// nil if the storage engine does not support queries.
    let inspection: (any SQLInspection)?

    var routes: [Route] { [Route(.post, "/v1/sql", scope: .admin, answersJSON: false, computesLong: true, answer)] }

    private enum Form {
        case json, csv
    }

    @Sendable func answer(_ request: Request, _ context: APIContext) async throws -> Response {
        guard let inspection else {
            throw Failure(.notSupported, "The storage engine in use does not support ad-hoc queries.")
        }
        let form = try Self.form(for: request)
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        let text = body.take("query")?.stringValue
        if text == nil { body.report("query", "must be a string: one SQL statement.") }
        let parameters = body.sqlParameters("params")
        let limit = body.integer("limit", in: 1...Int64(Limits.maxSQLRows)).map(Int.init)
        try body.finish()
        let query = try SQLQuery(
            text ?? "", parameters: parameters ?? .positional([]), limit: limit ?? Limits.defaultSQLRows)
        let answer = try await inspection.answer(query)
        return Self.response(answer, as: form, holding: try .hold(bytes: answer.weight))
    }

    /// - Throws: `not_acceptable`.
    private static func form(for request: Request) throws(Failure) -> Form {
        guard let accept = request.headers[.accept] else { return .json }
        if MediaRange.prefers(accept, type: "text", subtype: "csv") { return .csv }
        if MediaRange.accepts(accept, type: "application", subtype: "json") { return .json }
        if MediaRange.accepts(accept, type: "text", subtype: "csv") { return .csv }
        throw Failure(
            .notAcceptable, "The answer is application/json or text/csv, and the Accept header allows neither.")
    }

    private static func response(_ answer: SQLAnswer, as form: Form, holding held: HeldAnswer) -> Response {
        // Answers differ from run to run: the database changes, and so does elapsed_seconds.
        var headers: HTTPFields = [.cacheControl: "no-store", .vary: "Accept"]
        switch form {
        case .json: headers[.contentType] = "application/json"
        case .csv:
            // What JSON has in addition to the rows.
            headers[.contentType] = "text/csv; charset=utf-8; header=present"
            headers[.repriseRowCount] = String(answer.rows.count)
            headers[.repriseTruncated] = String(answer.isTruncated)
        }
        return Response(
            status: .ok, headers: headers,
            // In pieces, so that the event loop does not build megabytes of text in one go.
            body: ResponseBody { writer in
                switch form {
                case .json: try await answer.writeJSON { try await writer.write(ByteBuffer(bytes: $0)) }
                case .csv: try await answer.writeCSV { try await writer.write(ByteBuffer(bytes: $0)) }
                }
                try await writer.finish(nil)
                withExtendedLifetime(held) {}
            })
    }
}

/// An answer waiting to be read by its client, which may be slow.
private final class HeldAnswer: Sendable {
    private static let held = Atomic(0)
    private let bytes: Int

    /// - Throws: `overloaded` if all answers together would exceed ``Limits/maxHeldSQLAnswerBytes``.
    static func hold(bytes: Int) throws(Failure) -> HeldAnswer {
        let answer = HeldAnswer(bytes: bytes)
        guard held.load(ordering: .relaxed) <= Limits.maxHeldSQLAnswerBytes else {
            throw .overloaded("Too many large answers are waiting to be read by their clients.")
        }
        return answer
    }

    private init(bytes: Int) {
        self.bytes = bytes
        Self.held.wrappingAdd(bytes, ordering: .relaxed)
    }

    deinit { Self.held.wrappingSubtract(bytes, ordering: .relaxed) }
}

extension ObjectReader {
    /// An array or an object of JSON scalars. True and false become 1 and 0, as in SQLite.
    fileprivate mutating func sqlParameters(_ field: String) -> SQLParameters? {
        switch take(field) {
        case nil, .null: return nil
        case .array(let items):
            return .positional(
                items.enumerated().map { index, item in sqlValue(item, "\(field)[\(index)]") })
        case .object(let members):
            return .named(members.map { ($0.name, sqlValue($0.value, "\(field).\($0.name)")) })
        default:
            report(field, "must be an array for ?1, ?2 …, or an object for :name.")
            return nil
        }
    }

    private mutating func sqlValue(_ json: JSON, _ field: String) -> SQLValue {
        switch json {
        case .null: return .null
        case .bool(let value): return .integer(value ? 1 : 0)
        case .string(let text): return .text(text)
        case .number(let digits):
            if let value = Int64(digits) { return .integer(value) }
            // An integer that does not fit would be rounded, and match the wrong rows.
            let isWhole = digits.utf8.allSatisfy { $0 == UInt8(ascii: "-") || (0x30...0x39).contains($0) }
            if !isWhole, let value = Double(digits), value.isFinite { return .real(value) }
            report(field, "must fit in 64 bits.")
            return .null
        default:
            report(field, "must be a string, a number, true, false or null.")
            return .null
        }
    }
}

extension HTTPField.Name {
    fileprivate static let repriseRowCount = HTTPField.Name("Reprise-Row-Count")!
    fileprivate static let repriseTruncated = HTTPField.Name("Reprise-Truncated")!
}
