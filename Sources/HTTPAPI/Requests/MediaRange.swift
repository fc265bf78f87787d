// Media types as `Content-Type` and `Accept` name them (RFC 9110, sections 8.3.1 and 12.5.1).

import Domain
import HTTPTypes
import Hummingbird

extension Request {
    /// - Throws: `not_acceptable` if the caller does not accept JSON.
    func requireJSONAccepted() throws(Failure) {
        guard let accept = headers[.accept] else { return }
        guard MediaRange.accepts(accept, type: "application", subtype: "json") else {
            throw Failure(.notAcceptable, "The answer is application/json, which the Accept header does not allow.")
        }
    }
}

/// Questions about a media type, or a list of them.
enum MediaRange {
    static func isJSON(_ value: String) -> Bool {
        let type = essence(of: value[...])
        // A JSON Patch (RFC 6902) is a list of changes: taken as data, it would replace the value that it should
        // change.
        guard type != "application/json-patch+json" else { return false }
        return type == "application/json" || (type.hasPrefix("application/") && type.hasSuffix("+json"))
    }

    /// One JSON text per line.
    static func isLines(_ value: String) -> Bool {
        ["application/x-ndjson", "application/ndjson", "application/jsonl"].contains(essence(of: value[...]))
    }

    /// Whether the most specific range in `accept` that covers a type has a weight greater than 0.
    static func accepts(_ accept: String, type: String, subtype: String) -> Bool {
        weight(of: type, subtype, in: accept) > 0
    }

    /// Whether `accept` names the type itself and does not prefer JSON.
    static func prefers(_ accept: String, type: String, subtype: String) -> Bool {
        let isNamed = accept.split(separator: ",").contains { essence(of: $0) == "\(type)/\(subtype)" }
        guard isNamed else { return false }
        let weight = weight(of: type, subtype, in: accept)
        return weight > 0 && weight >= Self.weight(of: "application", "json", in: accept)
    }

    /// The weight of the most specific range that covers a type; 0 if none does.
    private static func weight(of type: String, _ subtype: String, in accept: String) -> Double {
        var best = (specificity: -1, weight: 0.0)
        for part in accept.split(separator: ",") {
            let essence = essence(of: part)
            let specificity =
                switch essence {
                case "\(type)/\(subtype)": 2
                case "\(type)/*": 1
                case "*/*", "*": 0
                default: -1
                }
            guard specificity > best.specificity else { continue }
            best = (specificity, weight(of: part))
        }
        return best.weight
    }

    private static func essence(of value: Substring) -> String {
        let end = value.firstIndex(of: ";") ?? value.endIndex
        return value[..<end].trimmed.lowercased()
    }

    private static func weight(of part: Substring) -> Double {
        for parameter in part.split(separator: ";").dropFirst() {
            let pair = parameter.trimmed.lowercased()
            if pair.hasPrefix("q=") { return Double(pair.dropFirst(2)) ?? 0 }
        }
        return 1
    }
}
