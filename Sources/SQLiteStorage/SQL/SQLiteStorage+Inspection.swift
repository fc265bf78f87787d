// Ad-hoc SQL on the file that this storage serves.

import Domain

extension SQLiteStorage: SQLInspection {
    public var relations: [SQLRelation] { inspector.relations }

    public func answer(_ query: SQLQuery) async throws -> SQLAnswer {
        do {
            return try await inspector.answer(query)
        } catch {
            throw storageFailure(error)
        }
    }
}
