// Reading a request's query: known parameters only, each once.

import Domain
import Hummingbird

/// Takes the parameters out of a query. As with ``ObjectReader``, an unknown parameter is an error: a mistyped `prefix`
/// must not turn a small clear into a large one.
struct QueryReader {
    private var parameters: [(name: String, value: String, raw: Substring)] = []
    private var errors: [Failure.FieldError] = []
    /// Parameters that the route reads but the request does not have: candidates for what a mistyped one was meant to
    /// be.
    private var absent: [String] = []

    /// - Throws: `bad_percent_encoding`.
    init(_ request: Request) throws(Failure) {
        guard let query = request.uri.query else { return }
        for part in query.split(separator: "&", omittingEmptySubsequences: true) {
            let equals = part.firstIndex(of: "=") ?? part.endIndex
            let name = try PercentEncoding.decode(part[..<equals], plusIsSpace: true)
            let raw = part[equals...].dropFirst()
            parameters.append((name, try PercentEncoding.decode(raw, plusIsSpace: true), raw))
        }
    }

    mutating func string(_ name: String) -> String? {
        let values = parameters.filter { $0.name == name }
        guard values.count <= 1 else {
            report(name, "must be sent only once.")
            parameters.removeAll { $0.name == name }
            return nil
        }
        parameters.removeAll { $0.name == name }
        if values.isEmpty { absent.append(name) }
        return values.first?.value
    }

    /// A value converted by an initializer that throws `validation_failed`.
    mutating func value<T>(_ name: String, _ convert: (String) throws(Failure) -> T) -> T? {
        guard let text = string(name) else { return nil }
        do throws(Failure) {
            return try convert(text)
        } catch {
            errors.append(contentsOf: error.errors)
            return nil
        }
    }

    /// Values separated by commas, in a parameter that may be repeated. They are split before they are decoded, so
    /// `%2C` is part of a value.
    /// - Returns: nil if the parameter is absent.
    /// - Throws: `bad_percent_encoding`.
    mutating func list(_ name: String) throws(Failure) -> [String]? {
        let sent = parameters.filter { $0.name == name }
        guard !sent.isEmpty else {
            absent.append(name)
            return nil
        }
        parameters.removeAll { $0.name == name }
        var values: [String] = []
        for parameter in sent {
            for part in parameter.raw.split(separator: ",", omittingEmptySubsequences: false) {
                values.append(try PercentEncoding.decode(part, plusIsSpace: true))
            }
        }
        return values
    }

    /// A list of keys without duplicates; nil if the parameter is absent.
    /// - Throws: `bad_percent_encoding`.
    mutating func keys(_ name: String) throws(Failure) -> [Key]? {
        guard let texts = try list(name) else { return nil }
        do throws(Failure) {
            return try Key.distinct(texts, field: name, atMost: Limits.maxKeysPerSession)
        } catch {
            errors.append(contentsOf: error.errors)
            return nil
        }
    }

    /// One of the cases of `T`, by its name.
    mutating func choice<T: RawRepresentable & CaseIterable>(_ name: String) -> T? where T.RawValue == String {
        value(name) { text throws(Failure) in try T(choice: text, field: name) }
    }

    /// Some of the cases of `T`, separated by commas, encoded or not; nil if the parameter is absent.
    /// - Throws: `bad_percent_encoding`.
    mutating func choices<T: RawRepresentable & CaseIterable>(
        _ name: String
    ) throws(Failure) -> [T]? where T.RawValue == String {
        guard let texts = try list(name) else { return nil }
        do throws(Failure) {
            let names = texts.flatMap { $0.split(separator: ",", omittingEmptySubsequences: false) }
            return try names.map { (text) throws(Failure) in try T(choice: String(text), field: name) }
        } catch {
            errors.append(contentsOf: error.errors)
            return nil
        }
    }

    mutating func name(_ name: String) -> Name? {
        value(name) { text throws(Failure) in try Name(text, field: name) }
    }

    /// A date and time. A `+` in it is the sign of its offset, encoded or not.
    mutating func instant(_ name: String) -> Instant? {
        let raw = parameters.first { $0.name == name }?.raw
        return value(name) { text throws(Failure) in
            let text = try raw.map { (raw) throws(Failure) in try PercentEncoding.decode(raw) } ?? text
            guard let instant = Instant(rfc3339: text) else {
                throw .invalid(name, "must be a date and time such as 2026-11-23T07:14:00Z (RFC 3339).")
            }
            return instant
        }
    }

    mutating func flag(_ name: String) -> Bool {
        switch string(name) {
        case nil, "false": return false
        case "true": return true
        default:
            report(name, "must be true or false.")
            return false
        }
    }

    /// Positive decimal seconds as milliseconds.
    mutating func milliseconds(_ name: String) -> Int64? {
        value(name) { text throws(Failure) in
            guard let seconds = DecimalSeconds.parse(text), seconds * 1000 <= Double(Limits.maxLifetimeMilliseconds)
            else {
                throw .invalid(name, "must be a number of seconds, 0 or more.")
            }
            return Int64((seconds * 1000).rounded())
        }
    }

    /// The size of a page.
    mutating func limit() -> Int {
        value("limit") { text throws(Failure) in
            guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let limit = Int(text),
                (1...Limits.maxPageItems).contains(limit)
            else {
                throw .invalid("limit", "must be a whole number from 1 to \(Limits.maxPageItems).")
            }
            return limit
        } ?? Limits.defaultPageItems
    }

    /// Where a page begins: the `next_cursor` of the previous page.
    mutating func cursor() -> String? { cursor { $0 } }

    /// Where a page begins, in a collection that is ordered by an instant and a number.
    mutating func position() -> CollectionPosition? { cursor { CollectionPosition(text: $0) } }

    /// Where a page begins, converted by its collection.
    mutating func cursor<T>(_ read: (String) -> T?) -> T? {
        value("cursor") { text throws(Failure) in
            guard let position = Cursor.decode(text).flatMap(read) else {
                throw .invalid("cursor", "is not a cursor of this collection: use next_cursor of the previous page.")
            }
            return position
        }
    }

    /// Whether the parameter was already found to be wrong.
    func hasError(_ name: String) -> Bool { errors.contains { $0.field == name } }

    mutating func report(_ name: String, _ message: String) {
        errors.append(Failure.FieldError(field: name, message: message))
    }

    /// - Throws: `validation_failed` with everything that was wrong.
    mutating func finish() throws(Failure) {
        for parameter in parameters {
            let meant = Suggestion.text(for: parameter.name, among: absent)
            report(parameter.name, "is not a known query parameter." + meant)
        }
        guard errors.isEmpty else { throw .invalid(errors) }
    }
}

extension Request {
    /// - Throws: `validation_failed` if there is a query, for routes that take none.
    func refuseQuery() throws(Failure) {
        guard uri.query != nil else { return }
        var reader = try QueryReader(self)
        try reader.finish()
    }
}
