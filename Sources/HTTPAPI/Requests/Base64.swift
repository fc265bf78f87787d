// Bytes in JSON, as base64.

import FoundationEssentials

enum Base64 {
    static let complaint = "is not base64 (RFC 4648, with padding)."

    /// - Returns: nil for anything but what encoding the result gives again. Foundation's decoder takes padding where
    ///   none belongs for zero bytes.
    static func decode(_ text: String) -> [UInt8]? {
        guard let data = Data(base64Encoded: text), data.base64EncodedString() == text else { return nil }
        return Array(data)
    }
}
