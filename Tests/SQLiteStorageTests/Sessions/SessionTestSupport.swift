// Shared by the tests of sessions and history: a storage on a real file that can be reopened, and access to its rows.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

/// A storage in its own folder, which can be closed and reopened.
final class SessionFixture: Sendable {
    let settings: LiveSettings
    private let clock = ManualClock()
    private let folder = TemporaryFolder()

    private init(settings: LiveSettings) { self.settings = settings }

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
            path: folder.file("test.db"), settings: settings, clock: clock.wallClock, logger: quietLogger)
        do {
            try await body(self, storage)
        } catch {
            await storage.close()
            throw error
        }
        await storage.close()
    }

    var now: Instant { clock.now }

    func advance(seconds: Double) { clock.advance(seconds: seconds) }
}

extension SQLiteStorage {
    /// The first column of a query's first row, through the writer, which sees both committed and uncommitted changes.
    func number(_ sql: StaticString) async throws -> Int64 {
        try await writer.perform { try $0.first(sql) { $0.integer(0) } ?? 0 }
    }

    func execute(_ sql: String) async throws {
        try await writer.perform { try $0.execute(sql) }
    }

    /// Asserts that the statistics in the rows of sessions and templates match the rows that they count.
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
