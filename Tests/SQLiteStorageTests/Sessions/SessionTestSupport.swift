// What the tests of sessions and history share: a storage on a real file, a clock moved by hand, short ways to say
// things.

import Domain
import FoundationEssentials
import Logging
import Synchronization
import Testing

@testable import SQLiteStorage

/// A storage in a folder of its own, which can be closed and opened again.
final class SessionFixture: Sendable {
    let settings: LiveSettings
    private let clock = SessionClock()
    private let folder: String

    private init(settings: LiveSettings) {
        self.settings = settings
        folder = FileManager.default.temporaryDirectory.path + "/reprise-sessions-\(UUID().uuidString)"
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    /// Runs `body` and closes the storage, however it ends; then `reopened` on the same file.
    static func run(
        settings: LiveSettings = Settings.with(.maxHistoryItems, .integer(20)),
        _ body: (SessionFixture, SQLiteStorage) async throws -> Void,
        reopened: ((SessionFixture, SQLiteStorage) async throws -> Void)? = nil
    ) async throws {
        let fixture = SessionFixture(settings: settings)
        try await fixture.run(body)
        if let reopened { try await fixture.run(reopened) }
    }

    private func run(_ body: (SessionFixture, SQLiteStorage) async throws -> Void) async throws {
        let storage = try SQLiteStorage(
            path: folder + "/test.db", settings: settings, clock: WallClock { [clock] in clock.now },
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        do {
            try await body(self, storage)
        } catch {
            await storage.close()
            throw error
        }
        await storage.close()
    }

    var now: Instant { clock.now }

    func advance(seconds: Double) {
        clock.milliseconds.wrappingAdd(Int64((seconds * 1000).rounded()), ordering: .sequentiallyConsistent)
    }
}

/// A clock that stands until it is moved.
private final class SessionClock: Sendable {
    let milliseconds = Atomic<Int64>(1_800_000_000_000)

    var now: Instant { Instant(milliseconds: milliseconds.load(ordering: .sequentiallyConsistent)) }
}

/// The code `body` fails with; nil if it succeeds.
func failureCode<T>(_ body: () async throws -> T) async -> Failure.Code? {
    do {
        _ = try await body()
        return nil
    } catch {
        return (error as? Failure)?.code
    }
}

extension Name {
    static let s = Name(stored: "s")
    static let template = Name(stored: "template")
}

extension Key: ExpressibleByStringLiteral {
    public init(stringLiteral value: String) { self.init(stored: value) }
}

extension Settings {
    /// One setting changed, and without waiting for the disk: no test pulls the plug.
    static func with(_ setting: Setting, _ value: SettingValue) -> LiveSettings {
        var settings = Settings()
        settings.set(.durability, to: .text("normal"), source: .flag)
        settings.set(setting, to: value, source: .flag)
        return LiveSettings(settings)
    }
}

/// Keys and values, in the byte order of the keys.
func stateEntries(_ values: [String: JSON]) -> [StateEntry] {
    values.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
        .map { StateEntry(key: Key(stored: $0.key), value: JSONText($0.value)) }
}

extension JSON {
    /// A string whose JSON text has so many bytes.
    static func text(bytes: Int) -> JSON { .string(String(repeating: "x", count: bytes - 2)) }
}

extension SessionStore {
    @discardableResult
    func create(
        _ id: Name = .s, ttl seconds: Double? = nil, template: Name? = nil, cap: Int? = nil, state: [String: JSON] = [:]
    ) async throws -> Session {
        try await createSession(
            id,
            SessionDraft(
                timeToLive: seconds.map { .finite(milliseconds: Int64($0 * 1000)) }, template: template,
                maxHistoryItems: cap, state: stateEntries(state)))
    }

    func session(_ id: Name) async throws -> Session { try await readSession(id).session }

    @discardableResult
    func open(_ id: Name = .s, template: Name? = nil, defaults: [String: JSON]) async throws -> SessionOpening {
        try await openSession(
            id, SessionDraft(template: template), defaults: stateEntries(defaults), condition: .none)
    }

    /// The resolved state as a JSON object.
    func stateText(_ id: Name = .s, keys: [Key]? = nil) async throws -> String {
        let entries = try await state(of: id, keys: keys, condition: .none).entries ?? []
        return JSON.object(entries.map { JSON.Member(name: $0.key.rawValue, value: .verbatim($0.value)) }).text
    }

    @discardableResult
    func patch(
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
    func define(
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
    func append(
        _ itemID: String? = nil, kind: String? = nil, data: JSON = 1, to id: Name = .s
    ) async throws -> HistoryAppend {
        try await appendHistory(
            HistoryDraft(
                id: itemID.map { Name(stored: $0) } ?? .random(), kind: kind.map { Name(stored: $0) },
                data: JSONText(data)), to: id)
    }

    /// The ids of all items, page by page.
    func itemIDs(
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

extension SQLiteStorage {
    /// The first column of a query's first row, through the writer: what is committed and what is not can be seen.
    func number(_ sql: StaticString) async throws -> Int64 {
        try await writer.perform { try $0.first(sql) { $0.integer(0) } ?? 0 }
    }

    func execute(_ sql: String) async throws {
        try await writer.perform { try $0.execute(sql) }
    }

    /// Asserts that the figures on the rows of sessions and templates are those of the rows they count.
    func expectRightFigures(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let wrong = try await number(
            """
            SELECT count(*) FROM sessions s WHERE
                state_key_count <> (SELECT count(*) FROM session_state v WHERE v.session_ref = s.session_ref)
                OR state_size_bytes <> (SELECT coalesce(sum(length(CAST(value AS BLOB))), 0) FROM session_state v
                    WHERE v.session_ref = s.session_ref)
                OR temporary_key_count <> (SELECT count(*) FROM session_state v WHERE v.session_ref = s.session_ref
                    AND (key LIKE 'temp\\_%' ESCAPE '\\' OR key LIKE 'cache\\_%' ESCAPE '\\')
                    AND key <> 'temp_current_generation')
                OR history_count <> (SELECT count(*) FROM history_items h WHERE h.session_ref = s.session_ref)
                OR history_size_bytes <> (SELECT coalesce(sum(length(CAST(data AS BLOB))), 0) FROM history_items h
                    WHERE h.session_ref = s.session_ref)
            """)
        #expect(wrong == 0, "figures of sessions", sourceLocation: sourceLocation)
        let wrongTemplates = try await number(
            """
            SELECT count(*) FROM session_templates t WHERE
                default_count <> (SELECT count(*) FROM session_template_defaults d WHERE d.template_id = t.template_id)
                OR defaults_size_bytes <> (SELECT coalesce(sum(length(CAST(value AS BLOB))), 0)
                    FROM session_template_defaults d WHERE d.template_id = t.template_id)
            """)
        #expect(wrongTemplates == 0, "figures of templates", sourceLocation: sourceLocation)
    }
}
