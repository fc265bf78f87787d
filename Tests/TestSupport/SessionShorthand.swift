// Shorthands for tests of sessions and history.

import Domain

extension Name {
    package static let s = Name(stored: "s")
    package static let template = Name(stored: "template")
}

extension Key: ExpressibleByStringLiteral {
    public init(stringLiteral value: String) { self.init(stored: value) }
}

/// Keys and values, in the byte order of the keys.
package func stateEntries(_ values: [String: JSON]) -> [StateEntry] {
    values.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
        .map { StateEntry(key: Key(stored: $0.key), value: JSONText($0.value)) }
}

extension JSON {
    /// A string with a JSON text of the given number of bytes.
    package static func text(bytes: Int) -> JSON { .string(String(repeating: "x", count: bytes - 2)) }

    /// The items of an array; none for anything else.
    package var elements: [JSON] {
        guard case .array(let elements) = self else { return [] }
        return elements
    }

    /// The items of a page.
    package var items: [JSON] { self["items"]?.elements ?? [] }
}

extension SessionStore {
    @discardableResult
    package func create(
        _ id: Name = .s, ttl seconds: Double? = nil, template: Name? = nil, cap: Int? = nil, state: [String: JSON] = [:]
    ) async throws -> Session {
        try await createSession(
            id,
            SessionDraft(
                timeToLive: seconds.map { .finite(milliseconds: Int64($0 * 1000)) }, template: template,
                maxHistoryItems: cap, state: stateEntries(state)))
    }

    package func session(_ id: Name) async throws -> Session { try await readSession(id).session }

    @discardableResult
    package func open(_ id: Name = .s, template: Name? = nil, defaults: [String: JSON]) async throws -> SessionOpening {
        try await openSession(
            id, SessionDraft(template: template), defaults: stateEntries(defaults), condition: .none)
    }

    /// The resolved state as a JSON object.
    package func stateText(_ id: Name = .s, keys: [Key]? = nil) async throws -> String {
        let entries = try await state(of: id, keys: keys, condition: .none).entries ?? []
        return JSON.object(entries.map { JSON.Member(name: $0.key.rawValue, value: .verbatim($0.value)) }).text
    }

    @discardableResult
    package func patch(
        _ id: Name = .s, set: [String: JSON] = [:], setDefault: [String: JSON] = [:], delete: [Key] = [],
        deletePrefixes: [String] = [], keep: [Key] = [], condition: EntityCondition = .none
    ) async throws -> StateChange {
        try await patchState(
            of: id,
            StatePatch(
                set: stateEntries(set), setDefault: stateEntries(setDefault), delete: delete,
                deletePrefixes: deletePrefixes,
                keep: keep), condition: condition)
    }

    @discardableResult
    package func define(
        _ name: Name = .template, defaults: [String: JSON] = [:], ttl seconds: Double? = nil, cap: Int? = nil
    ) async throws -> SessionTemplate {
        let draft = SessionTemplateDraft(
            defaults: stateEntries(defaults), timeToLive: seconds.map { .finite(milliseconds: Int64($0 * 1000)) },
            maxHistoryItems: cap)
        return try await setTemplate(draft, of: name, condition: .none).template
    }
}

extension HistoryStore {
    @discardableResult
    package func append(
        _ itemID: String? = nil, kind: String? = nil, data: JSON = 1, to id: Name = .s
    ) async throws -> HistoryAppend {
        try await appendHistory(
            HistoryDraft(
                id: itemID.map { Name(stored: $0) } ?? .random(), kind: kind.map { Name(stored: $0) },
                data: JSONText(data)), to: id)
    }

    /// The ids of all items, page by page.
    package func itemIDs(
        of id: Name = .s, kind: String? = nil, order: HistoryOrder = .newest, limit: Int = 500
    ) async throws -> [String] {
        var ids: [String] = []
        var position: CollectionPosition?
        repeat {
            let page = try await history(
                of: id, kind: kind.map { Name(stored: $0) }, order: order, after: position, limit: limit)
            ids += page.items.map(\.id.rawValue)
            position = page.next
        } while position != nil
        return ids
    }
}
