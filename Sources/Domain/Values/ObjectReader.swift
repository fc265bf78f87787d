// Reading a request's JSON object: all problems are reported at once, and no field is ignored.

/// Takes the fields out of one JSON object and collects what is wrong with them.
///
/// Each accessor returns nil for a field that is absent or wrong; ``finish()`` throws if any was wrong or if unknown
/// fields remain, so that a typo is never ignored silently. Use the values only after it.
public struct ObjectReader {
    private var members: [JSON.Member]
    private let path: String
    private var errors: [Failure.FieldError] = []
    /// Fields that were read but are absent: candidates for what a mistyped one was meant to be.
    private var absent: [String] = []

    /// - Parameter path: the object's position in the request, such as `operations[3]`; empty for the body itself.
    /// - Throws: `validation_failed` when `json` is not an object.
    public init(_ json: JSON, path: String = "") throws(Failure) {
        guard case .object(let members) = json else {
            throw .invalid(path.isEmpty ? "body" : path, "must be a JSON object.")
        }
        self.members = members
        self.path = path
    }

    /// The name under which `field` is reported.
    public func fieldPath(_ field: String) -> String {
        path.isEmpty ? field : "\(path).\(field)"
    }

    /// Records that `field` is wrong.
    public mutating func report(_ field: String, _ message: String) {
        errors.append(Failure.FieldError(field: fieldPath(field), message: message))
    }

    /// Records what `failure` says.
    public mutating func report(_ failure: Failure) {
        errors.append(contentsOf: failure.errors)
    }

    /// Whether the field was already found to be wrong.
    public func hasError(_ field: String) -> Bool { errors.contains { $0.field == fieldPath(field) } }

    /// Takes the field whatever its type. A JSON null is a value here.
    public mutating func take(_ field: String) -> JSON? {
        guard let index = members.firstIndex(where: { $0.name == field }) else {
            absent.append(field)
            return nil
        }
        return members.remove(at: index).value
    }

    public mutating func string(_ field: String) -> String? {
        value(field, "must be a string.", \.stringValue)
    }

    public mutating func bool(_ field: String) -> Bool? {
        value(field, "must be true or false.") {
            if case .bool(let value) = $0 { value } else { nil }
        }
    }

    public mutating func integer(_ field: String, in range: ClosedRange<Int64> = .min ... .max) -> Int64? {
        let message =
            range == .min ... .max
            ? "must be a 64-bit whole number."
            : "must be a whole number from \(range.lowerBound) to \(range.upperBound)."
        return value(field, message) { $0.integerValue.flatMap { range.contains($0) ? $0 : nil } }
    }

    public mutating func decimal(_ field: String, in range: ClosedRange<Double>) -> Double? {
        value(
            field,
            "must be a number from \(JSON.decimal(range.lowerBound).text) to \(JSON.decimal(range.upperBound).text)."
        ) {
            $0.doubleValue.flatMap { range.contains($0) ? $0 : nil }
        }
    }

    /// A lifetime: positive decimal seconds, or null for never.
    public mutating func lifetime(_ field: String) -> TimeToLive? {
        guard let json = take(field) else { return nil }
        if json == .null { return .never }
        guard let seconds = json.doubleValue else {
            report(field, "must be a positive number of seconds, or null for never.")
            return nil
        }
        do throws(Failure) {
            return try TimeToLive(seconds: seconds, field: fieldPath(field))
        } catch {
            report(error)
            return nil
        }
    }

    public mutating func strings(_ field: String) -> [String]? {
        value(field, "must be an array of strings.") {
            guard case .array(let items) = $0 else { return nil }
            let strings = items.compactMap(\.stringValue)
            return strings.count == items.count ? strings : nil
        }
    }

    public mutating func name(_ field: String) -> Name? {
        converted(field) { text, path throws(Failure) in try Name(text, field: path) }
    }

    /// One of the cases of `T`, by its name.
    public mutating func choice<T: RawRepresentable & CaseIterable>(_ field: String) -> T? where T.RawValue == String {
        converted(field) { text, path throws(Failure) in try T(choice: text, field: path) }
    }

    /// A list of keys, each once.
    public mutating func keys(_ field: String, atMost limit: Int = Limits.maxKeysPerSession) -> [Key]? {
        guard let texts = strings(field) else { return nil }
        do throws(Failure) {
            return try Key.distinct(texts, field: fieldPath(field), atMost: limit)
        } catch {
            report(error)
            return nil
        }
    }

    /// A text converted by an initializer that throws `validation_failed`.
    private mutating func converted<T>(
        _ field: String, _ convert: (String, _ path: String) throws(Failure) -> T
    ) -> T? {
        guard let text = string(field) else { return nil }
        do throws(Failure) {
            return try convert(text, fieldPath(field))
        } catch {
            report(error)
            return nil
        }
    }

    /// The converted field; nil when it is absent or null, or wrong, which is then reported.
    private mutating func value<T>(_ field: String, _ message: String, _ convert: (JSON) -> T?) -> T? {
        guard let json = take(field), json != .null else { return nil }
        if let value = convert(json) { return value }
        report(field, message)
        return nil
    }

    /// Whether the field has a value other than null, and nobody took it yet.
    public func isPresent(_ field: String) -> Bool {
        members.contains { $0.name == field && $0.value != .null }
    }

    /// Ends the reading without judging the fields that are left.
    /// - Throws: `validation_failed` with everything that was wrong so far.
    public mutating func finishIgnoringRest() throws(Failure) {
        members = []
        try finish()
    }

    /// Ends the reading.
    /// - Throws: `validation_failed` with everything that was wrong, including fields nobody took.
    public mutating func finish() throws(Failure) {
        for member in members {
            report(member.name, "is not a known field." + Suggestion.text(for: member.name, among: absent))
        }
        guard errors.isEmpty else { throw .invalid(errors) }
    }
}
