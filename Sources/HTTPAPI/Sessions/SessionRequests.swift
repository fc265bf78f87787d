// What requests for sessions have in common: names in paths, fields in bodies.

import Domain
import Hummingbird

extension APIContext {
    /// - Throws: `bad_percent_encoding`, `validation_failed`.
    func sessionID() throws(Failure) -> Name { try name("session_id") }

    /// - Throws: `bad_percent_encoding`, `validation_failed`.
    func name(_ parameter: Substring) throws(Failure) -> Name {
        try Name(try pathParameter(parameter), field: String(parameter))
    }

    /// - Throws: `bad_percent_encoding`, `validation_failed`.
    func stateKey() throws(Failure) -> Key { try Key(try pathParameter("key"), field: "key") }
}

extension Request {
    /// What `create=true` in the query asks for: a session with nothing of its own, if there is none; nil without it.
    /// - Throws: `bad_percent_encoding`, `validation_failed`.
    func sessionToCreate() throws(Failure) -> SessionDraft? {
        guard uri.query != nil else { return nil }
        var query = try QueryReader(self)
        let isCreating = query.flag("create")
        try query.finish()
        return isCreating ? SessionDraft() : nil
    }
}

extension ObjectReader {
    /// An object of state keys and values.
    /// - Throws: `too_many_keys`, `payload_too_large`.
    mutating func entries(_ field: String) throws(Failure) -> [StateEntry]? {
        guard let json = take(field), json != .null else { return nil }
        guard case .object(let members) = json else {
            report(field, "must be a JSON object of keys and values.")
            return nil
        }
        try StateBounds.check(keys: members.count, bytes: 0)
        var entries: [StateEntry] = []
        entries.reserveCapacity(members.count)
        for member in members {
            let key: Key
            do throws(Failure) {
                key = try Key(member.name, field: fieldPath(field))
            } catch {
                report(error)
                continue
            }
            let entry = StateEntry(key: key, value: JSONText(member.value))
            try StateBounds.check(entry)
            entries.append(entry)
        }
        return entries
    }

    mutating func maxHistoryItems() -> Int? {
        integer("max_history_items", in: 1...Int64(Limits.maxHistoryItems)).map(Int.init)
    }
}

extension JSON {
    static func keys(_ keys: [Domain.Key]) -> JSON { .array(keys.map { .string($0.rawValue) }) }

    /// Keys and values as an object.
    static func entries(_ entries: [StateEntry]) -> JSON {
        .object(entries.map { Member(name: $0.key.rawValue, value: .verbatim($0.value)) })
    }
}
