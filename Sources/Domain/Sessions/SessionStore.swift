// What every storage engine promises about sessions. Held by the contract tests, which run over each engine.

/// Durable sessions with sliding expiry, their state, and the templates they are made from.
///
/// A session lives for its ``Session/timeToLive`` after its latest read or write. The engine's own clock decides, on
/// each access: an expired session is absent from every answer, with its state, history and debounce marks, swept or
/// not, and its id is free. Activity by reading may be kept in memory for a second or two before it is written; a crash
/// loses that much of it.
///
/// Methods with `orCreating` make a session from that draft, in the same transaction, if there is no live one of the
/// id; without a draft they throw.
///
/// Writes are atomic and in one order; a method that returns has made its effect durable. Besides what each method
/// names, all that take a session's id throw `session_not_found`, and all throw `overloaded`, `deadline_exceeded`,
/// `shutting_down` and the storage failures.
public protocol SessionStore: Sendable {
    /// - Throws: `session_exists` when a live session has that id; `validation_failed` for `template` when there is no
    ///   such template; `too_many_keys`, `payload_too_large`. Not `session_not_found`.
    func createSession(_ id: Name, _ draft: SessionDraft) async throws -> Session

    /// Creates a session unless it exists, and sets defaults where their keys are absent, after the draft's own state.
    /// The draft does not change an existing session. Of any number of racing calls, one creates the session, and each
    /// default is set once.
    /// - Parameter condition: `*` says whether the session must exist or must not.
    /// - Throws: as ``createSession(_:_:)``, without `session_exists`; `precondition_failed`.
    func openSession(
        _ id: Name, _ draft: SessionDraft, defaults: [StateEntry], condition: EntityCondition
    ) async throws -> SessionOpening

    /// Reads a session, which counts as activity.
    /// - Returns: the session, and what it was before that activity.
    func readSession(_ id: Name) async throws -> (session: Session, before: Session)

    /// Reads a session and parts of it as they are at one instant, which counts as activity.
    func sessionContents(of id: Name, including parts: Set<SessionPart>) async throws -> SessionContents

    /// Renews a session's lifetime from now on. Unlike the activity of a read it is written before this returns.
    func touchSession(_ id: Name) async throws -> Session

    /// Live sessions, those with the latest activity first. Listing a session does not count as activity.
    /// - Parameter activeWithinMilliseconds: only those active within this time.
    func sessions(
        activeWithinMilliseconds: Int64?, after: CollectionPosition?, limit: Int
    ) async throws -> Page<Session>

    /// Removes a session with its state, history and debounce marks.
    func removeSession(_ id: Name) async throws

    /// Removes the live sessions whose latest activity was at least this long before the call, with their state,
    /// history and debounce marks, in steps of bounded size. A session that becomes active before its step stays, also
    /// if that is by reading. Does not throw `session_not_found`.
    /// - Parameter isDryRun: only counts them.
    /// - Returns: how many sessions were removed.
    func removeSessions(inactiveForMilliseconds: Int64, isDryRun: Bool) async throws -> Int

    /// Trims the history to its cap and removes stored keys that begin with one of ``TemporaryKeys/prefixes``.
    func optimizeSession(_ id: Name, keep: [Key]) async throws -> SessionOptimization

    /// Allows a call unless one was allowed less than the delay ago: see ``DebounceDecision``. Of any number of racing
    /// calls exactly one is allowed.
    func debounce(
        _ name: Name, of id: Name, delayMilliseconds: Int64, orCreating: SessionDraft?
    ) async throws -> DebounceDecision

    // MARK: State

    /// The state, including its template's defaults.
    /// - Parameters:
    ///   - keys: only these, if present; nil for all.
    ///   - condition: tags are versions.
    /// - Throws: `precondition_failed` for its `match`.
    func state(of id: Name, keys: [Key]?, condition: EntityCondition) async throws -> SessionState

    /// - Throws: `state_key_not_found`; `precondition_failed` for the condition's `match`.
    func stateValue(_ key: Key, of id: Name, condition: EntityCondition) async throws -> StateValue

    /// Changes the state as one. A key with a default in the template counts as present.
    /// - Throws: `precondition_failed`, `too_many_keys`, `payload_too_large`.
    func patchState(
        of id: Name, _ patch: StatePatch, condition: EntityCondition, orCreating: SessionDraft?
    ) async throws -> StateChange

    /// Sets one key.
    /// - Parameter condition: `any` in its `match` or `noneMatch` is about the key, tags are versions of the state.
    /// - Returns: whether it was absent before, where its template's default counts as present; and the version.
    /// - Throws: `precondition_failed`, `too_many_keys`, `payload_too_large`.
    func setStateValue(
        _ entry: StateEntry, of id: Name, condition: EntityCondition
    ) async throws -> (isNew: Bool, version: Int64)

    /// Removes one stored key; its template's default, if there is one, applies again.
    /// - Throws: `state_key_not_found` when nothing is stored under it; `precondition_failed`.
    func removeStateValue(_ key: Key, of id: Name, condition: EntityCondition) async throws

    // MARK: Templates

    /// Templates by name, after `name`; a page also ends at ``Limits/maxPageBytes``. None of these methods throws
    /// `session_not_found`.
    /// - Returns: the name after which the next page begins; nil after the last template.
    func templates(after name: String?, limit: Int) async throws -> (items: [SessionTemplate], next: Name?)

    /// - Throws: `template_not_found`.
    func template(_ name: Name) async throws -> SessionTemplate

    /// Creates or replaces a template. Sessions of that template have the new defaults and the new cap at once, and
    /// their versions go up; their lifetimes stay as they are.
    /// - Throws: `too_many_templates`, `precondition_failed`.
    func setTemplate(
        _ draft: SessionTemplateDraft, of name: Name, condition: EntityCondition
    ) async throws -> (template: SessionTemplate, isNew: Bool)

    /// Removes a template. Its sessions live on without its defaults.
    /// - Throws: `template_not_found`, `precondition_failed`.
    func removeTemplate(_ name: Name, condition: EntityCondition) async throws

    /// All live sessions and their state, as they are now.
    func sessionFigures() async throws -> SessionFigures
}

extension SessionStore {
    /// The same for a session that must exist.
    public func debounce(
        _ name: Name, of id: Name, delayMilliseconds: Int64
    ) async throws -> DebounceDecision {
        try await debounce(name, of: id, delayMilliseconds: delayMilliseconds, orCreating: nil)
    }

    /// The same for a session that must exist.
    public func patchState(
        of id: Name, _ patch: StatePatch, condition: EntityCondition
    ) async throws -> StateChange {
        try await patchState(of: id, patch, condition: condition, orCreating: nil)
    }
}
