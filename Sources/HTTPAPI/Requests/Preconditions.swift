// Conditional requests (RFC 9110, section 13).

import Domain
import HTTPTypes
import Hummingbird

/// The value of `If-Match` or `If-None-Match`.
struct EntityTagList {
    /// `*`.
    private(set) var isAny = false
    /// With quotes, and `W/` where it was weak.
    private(set) var tags: [Substring] = []

    /// nil when the header is absent.
    init?(_ headers: HTTPFields, _ name: HTTPField.Name) {
        guard let value = headers[name] else { return nil }
        if value.trimmed == "*" {
            isAny = true
            return
        }
        var rest = value[...]
        while let quote = rest.firstIndex(of: "\"") {
            let isWeak = rest[..<quote].hasSuffix("W/")
            guard let end = rest[rest.index(after: quote)...].firstIndex(of: "\"") else { break }
            tags.append(rest[(isWeak ? rest.index(quote, offsetBy: -2) : quote)...end])
            rest = rest[rest.index(after: end)...]
        }
    }

    /// Whether a strong tag, in quotes, is among them; with the weak comparison `W/` is looked through.
    func contains(opaque tag: String, weakly: Bool) -> Bool {
        isAny || tags.contains { $0 == tag || (weakly && $0.hasPrefix("W/") && $0.dropFirst(2) == tag) }
    }

    /// The tags without their quotes; weak ones only with the weak comparison.
    func texts(weakly: Bool) -> EntityCondition.Tags {
        if isAny { return .any }
        return .oneOf(
            tags.compactMap { tag in
                if tag.hasPrefix("W/") { return weakly ? String(tag.dropFirst(3).dropLast()) : nil }
                return String(tag.dropFirst().dropLast())
            })
    }

    /// As a condition of the store. A tag that cannot be one of its own matches nothing, nor does a weak one unless the
    /// comparison is the weak one.
    func condition(weakly: Bool) -> WriteCondition.Tags {
        if isAny { return .any }
        return .oneOf(tags.compactMap { EntityTag(header: $0, weakly: weakly) })
    }
}

extension EntityTag {
    /// In quotes, as header fields carry it.
    var header: String {
        var text = "\""
        text.reserveCapacity(digest.count * 2 + 2)
        text += hex
        text += "\""
        return text
    }

    /// - Parameter weakly: whether a weak tag is looked at without its `W/`.
    /// - Returns: nil for a weak tag otherwise, and for what is no tag of a value.
    init?(header: Substring, weakly: Bool = false) {
        let header = weakly && header.hasPrefix("W/") ? header.dropFirst(2) : header
        guard header.utf8.count == 66, header.first == "\"", header.last == "\"" else { return nil }
        var digest: [UInt8] = []
        var digits = header.dropFirst().dropLast().utf8.makeIterator()
        while let high = digits.next(), let low = digits.next() {
            guard let byte = UInt8(String(decoding: [high, low], as: UTF8.self), radix: 16) else { return nil }
            digest.append(byte)
        }
        self.init(digest: digest)
        // Tags are compared as texts, so other spellings of the same digits are other tags.
        guard self.header == header else { return nil }
    }
}

extension Request {
    /// The condition under which a write may happen.
    var writeCondition: WriteCondition {
        WriteCondition(
            match: EntityTagList(headers, .ifMatch)?.condition(weakly: false),
            noneMatch: EntityTagList(headers, .ifNoneMatch)?.condition(weakly: true),
            unmodifiedSince: date(.ifUnmodifiedSince))
    }

    /// The condition on an entity whose tag is a short text of the server's own.
    var entityCondition: EntityCondition {
        EntityCondition(
            match: EntityTagList(headers, .ifMatch)?.texts(weakly: false),
            noneMatch: EntityTagList(headers, .ifNoneMatch)?.texts(weakly: true))
    }

    /// A date header; nil when it is absent or no HTTP date, which is to be ignored.
    func date(_ name: HTTPField.Name) -> Instant? {
        headers[name].flatMap { Instant(httpDate: $0.trimmed) }
    }

    enum ReadOutcome {
        case proceed, notModified, failed
    }

    /// Evaluates the conditions of a read in the order of RFC 9110, section 13.2.2.
    func evaluateRead(entityTag: String, updatedAt: Instant) -> ReadOutcome {
        let seconds = updatedAt.milliseconds / 1000
        if let match = EntityTagList(headers, .ifMatch) {
            if !match.contains(opaque: entityTag, weakly: false) { return .failed }
        } else if let date = date(.ifUnmodifiedSince), seconds > date.milliseconds / 1000 {
            return .failed
        }
        if let noneMatch = EntityTagList(headers, .ifNoneMatch) {
            return noneMatch.contains(opaque: entityTag, weakly: true) ? .notModified : .proceed
        }
        if let date = date(.ifModifiedSince), seconds <= date.milliseconds / 1000 { return .notModified }
        return .proceed
    }

    /// Whether a `Range` is to be honoured: `If-Range` is absent or names this very value.
    func rangeApplies(entityTag: String, updatedAt: Instant) -> Bool {
        guard let condition = headers[.ifRange] else { return true }
        if condition.contains("\"") { return condition.trimmed == entityTag }
        return date(.ifRange).map { $0.milliseconds / 1000 == updatedAt.milliseconds / 1000 } ?? false
    }
}
