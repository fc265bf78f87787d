// JSON texts that are passed on, not looked into.

/// A JSON text known to be valid and without insignificant white space, as its bytes. Values are stored and answered in
/// this form, so that reading a session costs no parsing however large its values are.
public struct JSONText: Hashable, Sendable {
    /// UTF-8.
    public let bytes: [UInt8]

    public init(_ json: JSON) {
        bytes = json.utf8
    }

    /// A text read back from storage, where only valid ones are.
    public init(stored bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// What limits and figures count.
    public var sizeBytes: Int { bytes.count }

    /// - Throws: `malformed_json`, for a text that came from elsewhere than this type's first initializer.
    public func parsed() throws(Failure) -> JSON { try JSON(parsing: bytes) }
}
