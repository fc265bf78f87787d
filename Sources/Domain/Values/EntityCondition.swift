// What must be true of an entity that counts its versions, for a request to go ahead.

/// The `If-Match` and `If-None-Match` of a request (RFC 9110, section 13.1) against tags that are short texts: the
/// version of a session's state, the revision of a history item or a template. Cache entries have ``WriteCondition``.
public struct EntityCondition: Sendable, Equatable {
    public enum Tags: Sendable, Equatable {
        /// `*`: whatever is there.
        case any
        /// Without their quotes.
        case oneOf([String])

        func match(_ current: String?) -> Bool {
            guard let current else { return false }
            return switch self {
            case .any: true
            case .oneOf(let tags): tags.contains(current)
            }
        }
    }

    /// The entity must be there and match.
    public var match: Tags?
    /// No entity may be there that matches.
    public var noneMatch: Tags?

    public init(match: Tags? = nil, noneMatch: Tags? = nil) {
        self.match = match
        self.noneMatch = noneMatch
    }

    /// No condition at all.
    public static let none = EntityCondition()

    /// - Parameter current: the entity's tag; nil when there is none.
    /// - Throws: `precondition_failed` unless a change may go ahead.
    public func check(_ current: String?) throws(Failure) {
        guard match?.match(current) ?? true, !(noneMatch?.match(current) ?? false) else {
            let what = current.map { "It is at \"\($0)\"" } ?? "It is not there"
            throw Failure(.preconditionFailed, "\(what), so the request's condition is not met. Nothing was changed.")
        }
    }

    /// For a member of an entity whose tags are those of the whole: `*` is about the member, other tags are about the
    /// whole, so that a new member can be set on a version that was seen without it.
    /// - Throws: `precondition_failed` unless a change may go ahead.
    public func check(isPresent: Bool, in whole: String) throws(Failure) {
        try EntityCondition(match: match).check(match == .any && !isPresent ? nil : whole)
        try EntityCondition(noneMatch: noneMatch).check(isPresent ? whole : nil)
    }

    /// For an entity no tag of which outlasts a request: `*` is about its presence, any other tag is of another.
    /// - Throws: `precondition_failed` unless a change may go ahead.
    public func check(isPresent: Bool) throws(Failure) {
        let holds = match == nil || (match == .any && isPresent)
        guard holds, !(noneMatch == .any && isPresent) else {
            let what = isPresent ? "It is there" : "It is not there"
            throw Failure(.preconditionFailed, "\(what), so the request's condition is not met. Nothing was changed.")
        }
    }

    /// Whether a reader already has what is there.
    /// - Throws: `precondition_failed` when `If-Match` asks for another.
    public func isKnown(_ current: String) throws(Failure) -> Bool {
        try EntityCondition(match: match).check(current)
        return noneMatch?.match(current) ?? false
    }
}
