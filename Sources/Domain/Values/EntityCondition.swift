// What must be true of an entity for a request to go ahead (RFC 9110, section 13).

/// The conditions of one request. Nothing else decides about them: neither for cache entries nor for sessions, states,
/// templates, history items and other JSON entities.
public struct EntityCondition: Sendable, Equatable {
    /// The value of `If-Match` or `If-None-Match`.
    public enum Tags: Sendable, Equatable {
        /// `*`: whatever is there.
        case any
        case oneOf([SentTag])

        /// Strong tags, by their texts without quotes.
        public static func strong(_ texts: String...) -> Tags { .oneOf(texts.map { SentTag($0) }) }
    }

    /// An entity tag as a caller sent it. The service's own tags are all strong.
    public struct SentTag: Sendable, Equatable {
        /// Without its quotes.
        public var text: String
        public var isWeak: Bool

        public init(_ text: String, isWeak: Bool = false) {
            self.text = text
            self.isWeak = isWeak
        }
    }

    /// What the conditions are compared with.
    public struct Entity: Sendable, Equatable {
        /// What `*` asks about.
        public var isPresent: Bool
        /// Without its quotes; nil where no tag can match.
        public var tag: String?
        /// nil where the entity has no `Last-Modified`: conditions on dates are then ignored.
        public var updatedAt: Instant?

        private init(isPresent: Bool, tag: String?, updatedAt: Instant? = nil) {
            self.isPresent = isPresent
            self.tag = tag
            self.updatedAt = updatedAt
        }

        public static let absent = Entity(isPresent: false, tag: nil)

        /// - Parameter tag: without its quotes.
        public static func present(_ tag: String, updatedAt: Instant? = nil) -> Entity {
            Entity(isPresent: true, tag: tag, updatedAt: updatedAt)
        }

        /// What is there if `tag` is not nil.
        public static func optional(_ tag: String?) -> Entity { tag.map { .present($0) } ?? .absent }

        /// An entity that changes with each read, so that none of its tags outlasts a request.
        public static func untagged(isPresent: Bool) -> Entity { Entity(isPresent: isPresent, tag: nil) }

        /// A member of an entity whose tags are those of the whole. `*` asks about the member, and tags ask about the
        /// whole, so that a new member can be set on a version that was seen without it.
        public static func member(isPresent: Bool, of whole: String) -> Entity {
            Entity(isPresent: isPresent, tag: whole)
        }
    }

    public enum Verdict: Sendable, Equatable {
        case proceed
        /// A reader has what is there already: 304.
        case notModified
        /// 412.
        case failed
    }

    /// `If-Match`: the entity must be there and have one of these tags, by the strong comparison.
    public var match: Tags?
    /// `If-None-Match`: no entity may be there that has one of these tags, by the weak comparison.
    public var noneMatch: Tags?
    /// `If-Unmodified-Since`: ignored beside ``match``.
    public var unmodifiedSince: Instant?
    /// `If-Modified-Since`: ignored beside ``noneMatch``, and by writes.
    public var modifiedSince: Instant?

    public init(
        match: Tags? = nil, noneMatch: Tags? = nil, unmodifiedSince: Instant? = nil, modifiedSince: Instant? = nil
    ) {
        self.match = match
        self.noneMatch = noneMatch
        self.unmodifiedSince = unmodifiedSince
        self.modifiedSince = modifiedSince
    }

    /// No condition at all.
    public static let none = EntityCondition()
    /// Only when nothing is there: "add".
    public static let add = EntityCondition(noneMatch: .any)

    /// Decides about a read, in the order of RFC 9110, section 13.2.2.
    public func verdict(onReading entity: Entity) -> Verdict {
        guard holdsBeforeNoneMatch(entity) else { return .failed }
        if let noneMatch { return Self.isKnown(noneMatch, entity) ? .notModified : .proceed }
        if let modifiedSince, let updatedAt = entity.updatedAt, !Self.isLater(updatedAt, than: modifiedSince) {
            return .notModified
        }
        return .proceed
    }

    /// Decides about a write, in the order of RFC 9110, section 13.2.2.
    public func verdict(onWriting entity: Entity) -> Verdict {
        guard holdsBeforeNoneMatch(entity) else { return .failed }
        if let noneMatch, Self.isKnown(noneMatch, entity) { return .failed }
        return .proceed
    }

    /// Whether a reader already has what is there.
    /// - Throws: `precondition_failed`.
    public func isKnown(_ entity: Entity) throws(Failure) -> Bool {
        switch verdict(onReading: entity) {
        case .proceed: return false
        case .notModified: return true
        case .failed: throw failure(on: entity)
        }
    }

    /// - Throws: `precondition_failed` unless a write may go ahead.
    public func check(_ entity: Entity) throws(Failure) {
        guard verdict(onWriting: entity) == .proceed else { throw failure(on: entity) }
    }

    /// The failure for a condition that does not hold.
    private func failure(on entity: Entity) -> Failure {
        let reason =
            if holdsBeforeNoneMatch(entity) {
                "The resource exists and matches If-None-Match."
            } else if !entity.isPresent {
                "The resource does not exist, but If-Match requires it."
            } else if match != nil {
                "If-Match does not list the resource's current entity tag."
            } else {
                "The resource was modified after the date in If-Unmodified-Since."
            }
        return Failure(.preconditionFailed, reason + " Nothing was changed. Read the resource again and retry.")
    }

    private func holdsBeforeNoneMatch(_ entity: Entity) -> Bool {
        switch match {
        case .any: return entity.isPresent
        case .oneOf(let tags): return tags.contains { !$0.isWeak && $0.text == entity.tag }
        case nil: break
        }
        guard let unmodifiedSince, let updatedAt = entity.updatedAt else { return true }
        return !Self.isLater(updatedAt, than: unmodifiedSince)
    }

    private static func isKnown(_ tags: Tags, _ entity: Entity) -> Bool {
        guard entity.isPresent else { return false }
        return switch tags {
        case .any: true
        case .oneOf(let tags): tags.contains { $0.text == entity.tag }
        }
    }

    /// Compared in whole seconds, because header fields carry no more.
    private static func isLater(_ instant: Instant, than sent: Instant) -> Bool {
        instant.milliseconds / 1000 > sent.milliseconds / 1000
    }
}

extension EntityCondition.Tags {
    /// From a header field's value. The list ends at the first thing that is not an entity tag.
    public init(header: String) {
        let isBlank = { (byte: UInt8) in byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
        let quote = UInt8(ascii: "\"")
        var rest = header.utf8.drop(while: isBlank)
        if rest.first == UInt8(ascii: "*"), rest.dropFirst().allSatisfy(isBlank) {
            self = .any
            return
        }
        var tags: [EntityCondition.SentTag] = []
        while true {
            rest = rest.drop { isBlank($0) || $0 == UInt8(ascii: ",") }
            let isWeak = rest.starts(with: "W/".utf8)
            let opaque = isWeak ? rest.dropFirst(2) : rest
            guard opaque.first == quote, let end = opaque.dropFirst().firstIndex(of: quote) else { break }
            tags.append(.init(String(opaque.dropFirst()[..<end])!, isWeak: isWeak))
            rest = opaque[end...].dropFirst()
        }
        self = .oneOf(tags)
    }
}
