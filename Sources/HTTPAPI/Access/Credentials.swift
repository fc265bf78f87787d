// What a request sends to prove who it is from (RFC 9110, section 11).

import Domain
import FoundationEssentials
import HTTPTypes

/// A request's `Authorization` field.
enum Credentials: Equatable {
    case none
    /// What was sent as a bearer token (RFC 6750), or as the password of any user (RFC 7617).
    case token(String)
    /// Another scheme, a text that is none of these, or more than one field.
    case unreadable

    init(_ request: HTTPRequest) {
        // Not by subscript, which joins fields of one name with commas and costs a percent of a read.
        var fields = request.headerFields.lazy.filter { $0.name == .authorization }.makeIterator()
        guard let field = fields.next() else {
            self = .none
            return
        }
        guard fields.next() == nil else {
            self = .unreadable
            return
        }
        self.init(field: field.value)
    }

    init(field: String) {
        // What nearly every client sends.
        if field.utf8.starts(with: "Bearer rpr_".utf8), field.utf8.count <= Limits.maxTokenBytes {
            self = .token(String(field.utf8.dropFirst("Bearer ".utf8.count))!)
            return
        }
        guard field.utf8.count <= Limits.maxTokenBytes * 2, let blank = field.utf8.firstIndex(of: UInt8(ascii: " "))
        else {
            self = .unreadable
            return
        }
        let rest = field[blank...].trimmed
        switch field[..<blank].lowercased() {
        case "bearer": self = rest.isEmpty ? .unreadable : .token(String(rest))
        case "basic": self = Self.password(in: String(rest)).map { .token($0) } ?? .unreadable
        default: self = .unreadable
        }
    }

    private static func password(in base64: String) -> String? {
        guard let data = Data(base64Encoded: base64), let text = String(validating: data, as: UTF8.self),
            let colon = text.firstIndex(of: ":")
        else { return nil }
        let password = text[colon...].dropFirst()
        return password.isEmpty ? nil : String(password)
    }
}
