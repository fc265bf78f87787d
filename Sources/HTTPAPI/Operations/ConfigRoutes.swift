// /v1/config: settings read and changed while the service runs.

import Domain
import Hummingbird

/// The current settings.
struct ConfigRoutes: Sendable {
    let store: any SettingsStore
    let settings: LiveSettings

    var routes: [Route] {
        [
            Route(.get, "/v1/config", scope: .admin, list),
            Route(.patch, "/v1/config", scope: .admin, patch),
            Route(.get, "/v1/config/{name}", scope: .admin, get),
            Route(.delete, "/v1/config/{name}", scope: .admin, answersJSON: false, remove),
        ]
    }

    @Sendable func list(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        return try .entity(settings.current.json, for: request)
    }

    @Sendable func get(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        return try .entity(settings.current.json(of: try context.setting()), for: request)
    }

    @Sendable func patch(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        var changes: [String: String?] = [:]
        for setting in Setting.all {
            guard let json = body.take(setting.name) else { continue }
            guard setting.isMutable else {
                body.report(setting.name, "cannot be changed at run time: restart the server with another value.")
                continue
            }
            do throws(Failure) {
                changes[setting.name] = try setting.parse(json).description
            } catch {
                body.report(error)
            }
        }
        try body.finish()
        try await change(changes) { settings throws(Failure) in
            try request.condition.check(.present(settings.json.entityTag))
        }
        return .json(settings.current.json)
    }

    @Sendable func remove(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        let setting = try context.setting()
        try await change([setting.name: nil]) { settings throws(Failure) in
            try request.condition.check(.present(settings.json(of: setting).entityTag))
            guard settings.source(of: setting) == .runtime else {
                throw Failure(.settingNotFound, "\(setting.name) was not changed at run time.")
            }
        }
        return Response(status: .noContent)
    }

    /// Changes settings atomically, unless `check` rejects the current ones.
    private func change(_ changes: [String: String?], _ check: (Settings) throws(Failure) -> Void) async throws {
        while true {
            let (current, version) = settings.versioned
            try check(current)
            if changes.isEmpty { return }
            if let changed = try await store.changeSettingOverrides(changes, of: version) {
                settings.apply(changed)
                return
            }
            // Another request changed them in the meantime.
            settings.apply(try await store.settingOverrides())
        }
    }
}

extension APIContext {
    /// - Throws: `bad_percent_encoding`, `setting_not_found`.
    fileprivate func setting() throws(Failure) -> Setting {
        let name = try pathParameter("name")
        guard let setting = Setting.named(name) else {
            throw Failure(.settingNotFound, Setting.unknown(name) + " GET /v1/config lists all settings.")
        }
        return setting
    }
}

extension Settings {
    fileprivate var json: JSON { ["settings": .array(Setting.all.map { json(of: $0) })] }

    fileprivate func json(of setting: Setting) -> JSON {
        [
            "name": .string(setting.name),
            "value": setting.shown(value(of: setting)),
            "default": setting.shown(setting.defaultValue),
            "source": .string(source(of: setting).rawValue),
            "unit": setting.unit.isEmpty ? .null : .string(setting.unit),
            "description": .string(setting.summary),
            "mutable": .bool(setting.isMutable),
        ]
    }
}
