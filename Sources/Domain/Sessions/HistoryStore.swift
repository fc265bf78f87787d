// What every storage engine promises about history. Held by the contract tests, which run over each engine.

/// The bounded histories of sessions.
///
/// Items stand in the order in which their appends were committed. A history's cap is its session's own, else its
/// template's, else the setting `max_history_items`. When an append returns, exactly the newest items up to the cap in
/// force are left, however many appends race; a cap that is lowered is held by the next append or the next cleanup.
///
/// Besides what each method names, all that take a session's id throw `session_not_found`, count as its activity, and
/// all throw `overloaded`, `deadline_exceeded`, `shutting_down` and the storage failures.
public protocol HistoryStore: Sendable {
    /// Appends an item unless one of that id is there.
    /// - Parameter session: what a session is made from, in the same transaction, if there is no live one of the id;
    ///   nil to throw.
    func appendHistory(
        _ draft: HistoryDraft, to id: Name, orCreating session: SessionDraft?
    ) async throws -> HistoryAppend

    /// A session's items. Pages stay right while items are appended and removed: no item comes twice, and none that was
    /// there all along is left out. A page also ends at ``Limits/maxPageBytes``.
    func history(
        of id: Name, kind: Name?, order: HistoryOrder, after: CollectionPosition?, limit: Int
    ) async throws -> Page<HistoryItem>

    /// - Throws: `history_item_not_found`.
    func historyItem(_ itemID: Name, of id: Name) async throws -> HistoryItem

    /// Changes an item's data by a JSON Merge Patch (RFC 7396).
    /// - Throws: `history_item_not_found`, `precondition_failed`, `payload_too_large`.
    func patchHistoryItem(
        _ itemID: Name, of id: Name, patch: JSON, condition: EntityCondition
    ) async throws -> HistoryItem

    /// - Throws: `history_item_not_found`, `precondition_failed`.
    func removeHistoryItem(_ itemID: Name, of id: Name, condition: EntityCondition) async throws

    /// Removes all items, in steps; those appended after the call began stay.
    /// - Returns: how many went.
    func clearHistory(of id: Name) async throws -> Int

    /// Items of all live sessions, the latest created first. No activity of any session.
    func history(_ filter: HistoryFilter, after: CollectionPosition?, limit: Int) async throws -> Page<HistoryItem>

    /// History of all live sessions, as it is now.
    func historyFigures() async throws -> HistoryFigures
}

extension HistoryStore {
    /// The same for a session that must exist.
    public func appendHistory(_ draft: HistoryDraft, to id: Name) async throws -> HistoryAppend {
        try await appendHistory(draft, to: id, orCreating: nil)
    }
}
