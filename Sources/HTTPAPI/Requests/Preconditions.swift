// Conditional requests (RFC 9110, section 13): the header fields. EntityCondition decides.

import Domain
import HTTPTypes
import Hummingbird

extension Request {
    /// The request's conditions.
    var condition: EntityCondition {
        EntityCondition(
            match: tags(.ifMatch), noneMatch: tags(.ifNoneMatch), unmodifiedSince: date(.ifUnmodifiedSince),
            modifiedSince: date(.ifModifiedSince))
    }

    /// A list of entity tags; nil if the header field is absent.
    private func tags(_ name: HTTPField.Name) -> EntityCondition.Tags? {
        headers[name].map { EntityCondition.Tags(header: $0) }
    }

    /// A date header; nil if it is absent or not an HTTP date, which must be ignored.
    private func date(_ name: HTTPField.Name) -> Instant? {
        headers[name].flatMap { Instant(httpDate: $0.trimmed) }
    }

    /// Whether to honour a `Range`: `If-Range` is absent or names exactly this value.
    /// - Parameter entityTag: with its quotes.
    func rangeApplies(entityTag: String, updatedAt: Instant) -> Bool {
        guard let condition = headers[.ifRange] else { return true }
        if condition.contains("\"") { return condition.trimmed == entityTag }
        return date(.ifRange).map { $0.milliseconds / 1000 == updatedAt.milliseconds / 1000 } ?? false
    }
}

extension EntityTag {
    /// In quotes, as in header fields.
    var header: String {
        var text = "\""
        text.reserveCapacity(digest.count * 2 + 2)
        text += hex
        text += "\""
        return text
    }
}
