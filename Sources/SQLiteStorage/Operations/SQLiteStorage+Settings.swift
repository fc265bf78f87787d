// Settings changed at run time.

import Domain

extension SQLiteStorage: SettingsStore {
    public func settingOverrides() async throws -> SettingOverrides {
        try readers.point { try $0.settingOverrides() }
    }

    public func changeSettingOverrides(
        _ changes: [String: String?], of version: Int?
    ) async throws -> SettingOverrides? {
        let now = clock.now()
        // Settings can be part of the remedy for a full disk, and take next to nothing.
        return try await writer.perform(.foreground, .durable, .shrinking) { connection in
            if let version, try connection.settingOverrides().version != version { return nil }
            for (name, value) in changes {
                if let value {
                    try connection.run(
                        """
                        INSERT INTO runtime_settings (name, value, changed_at_ms) VALUES (?1, ?2, ?3)
                        ON CONFLICT (name) DO UPDATE SET value = excluded.value, changed_at_ms = excluded.changed_at_ms
                        """, .text(name), .text(value), .instant(now))
                } else {
                    try connection.run("DELETE FROM runtime_settings WHERE name = ?1", .text(name))
                }
            }
            try connection.run("UPDATE runtime_settings_version SET version = version + 1 WHERE only_row = 1")
            return try connection.settingOverrides()
        }
    }
}

extension Connection {
    fileprivate func settingOverrides() throws(SQLiteError) -> SettingOverrides {
        let rows = try all("SELECT name, value FROM runtime_settings ORDER BY name") { ($0.text(0), $0.text(1)) }
        let version = try first("SELECT version FROM runtime_settings_version WHERE only_row = 1") { $0.int(0) } ?? 0
        return SettingOverrides(values: Dictionary(uniqueKeysWithValues: rows), version: version)
    }
}
