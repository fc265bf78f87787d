// /v1/maintenance: cleanup on demand, and what ran.

import Domain
import Hummingbird

/// Background work: on demand, and its history.
struct MaintenanceRoutes: Sendable {
    let store: any MaintenanceStore
    let clock: WallClock

    var routes: [Route] {
        [
            Route(.post, "/v1/maintenance/cleanup", scope: .admin, cleanup),
            Route(.get, "/v1/maintenance/runs", scope: .admin, runs),
        ]
    }

    @Sendable func cleanup(_ request: Request, _ context: APIContext) async throws -> Response {
        try request.refuseQuery()
        var body = try await request.objectBody(context)
        let isDryRun = body.bool("dry_run") ?? false
        let names = body.strings("tasks")
        let declared = store.tasks
        let known = declared.map(\.task.rawValue)
        if let unknown = names?.first(where: { !known.contains($0) }) {
            body.report(
                "tasks",
                "'\(unknown)' is not a task.\(Suggestion.text(for: unknown, among: known)) "
                    + "The tasks are \(known.joined(separator: ", ")).")
        }
        try body.finish()
        // Each task once, and before those that create work for it, so that a real run does what a dry run reported.
        // The background service soon handles what this leaves: chunks of expired values, for example.
        let tasks = (declared.filter(\.isFedByOthers).reversed() + declared.filter { !$0.isFedByOthers }).map(\.task)
            .filter { names?.contains($0.rawValue) ?? true }
        let runner = MaintenanceRunner(store: store, clock: clock)
        var results: [JSON] = []
        for task in tasks {
            results.append(await runner.run(task, trigger: .demand, isDryRun: isDryRun).taskJSON)
        }
        return .json(["dry_run": .bool(isDryRun), "tasks": .array(results)])
    }

    @Sendable func runs(_ request: Request, _ context: APIContext) async throws -> Response {
        var query = try QueryReader(request)
        let limit = query.limit()
        let before = query.cursor { Int64($0) }
        try query.finish()
        let found = try await store.maintenanceRuns(before: before, limit: limit + 1)
        let page = found.prefix(limit)
        return try .page(
            page.map(\.json), next: found.count > limit ? page.last.map { String($0.id) } : nil, for: request)
    }
}

extension MaintenanceRun {
    /// As the answer to a cleanup.
    fileprivate var taskJSON: JSON {
        var members: [JSON.Member] = [
            .init(name: "task", value: .string(task.rawValue)),
            .init(name: "removed", value: .integer(rowsRemoved)),
            .init(name: "freed_bytes", value: .integer(bytesFreed)),
            .init(name: "duration_seconds", value: .decimal(durationSeconds)),
        ]
        if let error { members.append(.init(name: "error", value: .string(error))) }
        return .object(members)
    }

    /// As recorded.
    var json: JSON {
        [
            "id": .integer(id),
            "task": .string(task.rawValue),
            "trigger": .string(trigger.rawValue),
            "started_at": .instant(startedAt),
            "duration_seconds": .decimal(durationSeconds),
            "removed": .integer(rowsRemoved),
            "freed_bytes": .integer(bytesFreed),
            "error": .optional(error, JSON.string),
        ]
    }
}
