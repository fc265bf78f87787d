// Values that are one of a few words.

extension RawRepresentable where Self: CaseIterable, RawValue == String {
    /// The case of this name.
    /// - Throws: `validation_failed` naming `field` and all cases.
    public init(choice name: String, field: String) throws(Failure) {
        guard let value = Self(rawValue: name) else {
            throw .invalid(field, "must be one of \(Self.allCases.map(\.rawValue).joined(separator: ", ")).")
        }
        self = value
    }
}
