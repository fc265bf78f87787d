// What a storage must contain, and what it does contain.

import Domain
import TestSupport

@testable import SQLiteStorage

/// What callers see of a storage: all that must be there after a power cut. Without what only tells how it came about,
/// such as counters and reasons of misses.
struct World: Equatable {
    struct Entry: Equatable {
        var tag: EntityTag
        var sizeBytes: Int
        var tags: [String]
        var expiresAt: Instant?
    }

    struct Item: Equatable {
        var id: String
        var data: String
    }

    struct Conversation: Equatable {
        var state: [String: String] = [:]
        /// The newest last.
        var history: [Item] = []
    }

    var cache: [String: [String: Entry]] = [:]
    var sessions: [String: Conversation] = [:]
    var templates: [String: String] = [:]
    var settings: [String: String] = [:]
    /// Timings by name, rolled up or not.
    var timings: [String: Int] = [:]
    /// Idempotency keys of requests that were carried out.
    var marks: Set<UInt8> = []
    /// Keys of the namespace with a cap, the oldest first. Not seen by callers.
    var cappedKeys: [String] = []

    /// What callers see at an instant.
    func seen(at now: Instant) -> World {
        var seen = self
        seen.cappedKeys = []
        seen.cache = cache.mapValues { $0.filter { $0.value.expiresAt.map { $0 > now } ?? true } }
            .filter { !$0.value.isEmpty }
        return seen
    }

    /// The first difference, for a person.
    func difference(from other: World) -> String {
        func compare<Value: Equatable>(_ area: String, _ a: [String: Value], _ b: [String: Value]) -> String? {
            for key in Set(a.keys).union(b.keys).sorted() where a[key] != b[key] {
                return "\(area) \(key): \(a[key].map { "\($0)" } ?? "nothing") and not "
                    + (b[key].map { "\($0)" } ?? "nothing")
            }
            return nil
        }
        for namespace in Set(cache.keys).union(other.cache.keys).sorted() {
            let text = compare("entry of \(namespace)", cache[namespace] ?? [:], other.cache[namespace] ?? [:])
            if let text { return text }
        }
        return compare("session", sessions, other.sessions) ?? compare("template", templates, other.templates)
            ?? compare("setting", settings, other.settings) ?? compare("timings of", timings, other.timings)
            ?? (marks == other.marks ? nil : "keys \(marks.sorted()) and not \(other.marks.sorted())")
            ?? "no difference"
    }
}

/// What must never be found in a database.
struct Damage: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

extension World {
    /// Reads a storage through its protocols.
    /// - Throws: ``Damage`` when a value is not the one its tag is of.
    init(_ storage: SQLiteStorage, now: Instant) async throws {
        for namespace in try await storage.namespaces(after: nil, limit: 100) {
            let listed = try await storage.list(namespace.name, filter: EntryFilter(), after: nil, limit: 500)
            for metadata in listed {
                let key = metadata.address.key.rawValue
                let bytes = try await storage.bytes(key, in: namespace.name)
                guard EntityTag(of: bytes) == metadata.entityTag, bytes.count == metadata.sizeBytes else {
                    throw Damage("the value of \(key) in \(namespace.name) is not the one its tag is of")
                }
                cache[namespace.name.rawValue, default: [:]][key] = Entry(
                    tag: metadata.entityTag, sizeBytes: metadata.sizeBytes,
                    tags: metadata.tags.map(\.rawValue).sorted(), expiresAt: metadata.expiresAt)
            }
            guard namespace.entryCount == listed.count,
                namespace.sizeBytes == listed.reduce(0, { $0 + $1.sizeBytes })
            else { throw Damage("the figures of \(namespace.name) are not those of its entries") }
            guard !namespace.policy.isExceeded(entries: namespace.entryCount, bytes: namespace.sizeBytes) else {
                throw Damage("\(namespace.name) exceeds its caps")
            }
        }
        for session in try await storage.sessions(activeWithinMilliseconds: nil, after: nil, limit: 500).items {
            let state = try await storage.state(of: session.id, keys: nil, condition: .none).entries ?? []
            let history = try await storage.history(
                of: session.id, kind: nil, order: .oldest, after: nil, limit: 500)
            guard session.stateKeyCount == state.count, session.historyCount == history.items.count,
                session.historySizeBytes == history.items.reduce(0, { $0 + $1.sizeBytes })
            else { throw Damage("the figures of session \(session.id) are not those of its rows") }
            sessions[session.id.rawValue] = Conversation(
                state: Dictionary(
                    uniqueKeysWithValues: state.map {
                        ($0.key.rawValue, String(decoding: $0.value.bytes, as: UTF8.self))
                    }),
                history: history.items.map {
                    Item(id: $0.id.rawValue, data: String(decoding: $0.data.bytes, as: UTF8.self))
                })
        }
        for template in try await storage.templates(after: nil, limit: 100).items {
            templates[template.name.rawValue] = template.content.defaults
                .map { "\($0.key)=\(String(decoding: $0.value.bytes, as: UTF8.self))" }.joined(separator: ",")
        }
        settings = try await storage.settingOverrides().values
        let day: Int64 = 24 * 3_600_000
        let range = MetricRange(
            since: now.rounded(downTo: day).advanced(milliseconds: -day), until: now.advanced(milliseconds: day))
        let measured = try await storage.measure(MetricQuery(kind: .timing, metric: .duration, range: range))
        for item in measured.items { timings[item.name] = item.total.count }
        for number in Operation.keys {
            let request = KeyedRequest(key: [number], content: [])
            if try await storage.earlierRequest(like: request) != nil { marks.insert(number) }
        }
    }
}

extension SQLiteStorage {
    /// - Throws: ``Damage`` for rows that contradict each other.
    func checkRows() async throws {
        let found = try await writer.perform { connection in
            var found: [String] = []
            func check(_ sql: StaticString, _ meaning: String) throws {
                let rows = try connection.all(sql) { $0.text(0) }
                if let first = rows.first { found.append("\(meaning): \(first) and \(rows.count - 1) more") }
            }
            try check("SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'", "integrity")
            try check("SELECT \"table\" FROM pragma_foreign_key_check", "a foreign key without its row")
            try check(
                """
                SELECT CAST(generation_id AS TEXT) FROM cache_generations g
                WHERE entry_count <> (SELECT count(*) FROM cache_entries e WHERE e.generation_id = g.generation_id)
                    OR size_bytes <> (
                        SELECT coalesce(sum(size_bytes), 0) FROM cache_entries e
                        WHERE e.generation_id = g.generation_id)
                """, "figures of a generation that are not those of its entries")
            try check(
                """
                SELECT key FROM cache_entries e WHERE size_bytes <> coalesce(
                    (SELECT length(value) FROM cache_values v WHERE v.entry_id = e.entry_id),
                    (SELECT sum(length(data)) FROM cache_chunks c WHERE c.blob_id = e.blob_id), 0)
                """, "an entry whose size is not that of its value")
            try check(
                """
                SELECT CAST(blob_id AS TEXT) FROM cache_blobs b
                WHERE is_attached <> EXISTS (SELECT 1 FROM cache_entries e WHERE e.blob_id = b.blob_id)
                """, "a blob that is marked wrongly")
            try check(
                "SELECT CAST(blob_id AS TEXT) FROM cache_chunks WHERE blob_id NOT IN (SELECT blob_id FROM cache_blobs)",
                "a chunk without its blob")
            try check(
                """
                SELECT coalesce(id, 'a removed one') FROM sessions s
                WHERE state_key_count <> (SELECT count(*) FROM session_state t WHERE t.session_ref = s.session_ref)
                    OR state_size_bytes <> (
                        SELECT coalesce(sum(length(CAST(value AS BLOB))), 0) FROM session_state t
                        WHERE t.session_ref = s.session_ref)
                    OR history_count <> (SELECT count(*) FROM history_items h WHERE h.session_ref = s.session_ref)
                    OR history_size_bytes <> (
                        SELECT coalesce(sum(length(CAST(data AS BLOB))), 0) FROM history_items h
                        WHERE h.session_ref = s.session_ref)
                """, "figures of a session that are not those of its rows")
            try check(
                "SELECT id FROM sessions WHERE id IS NOT NULL AND history_count > max_history_items",
                "a history over its cap")
            try check(
                """
                SELECT CAST(answer_bytes AS TEXT) FROM idempotency_totals
                WHERE answer_bytes <> (SELECT coalesce(sum(size_bytes), 0) FROM idempotency_answers)
                """, "a total that is not that of the answers kept")
            return found
        }
        if !found.isEmpty { throw Damage(found.joined(separator: "; ")) }
    }
}
