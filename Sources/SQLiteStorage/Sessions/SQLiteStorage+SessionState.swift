// A session's state: reading it sparsely, changing it as one.

import Domain

extension SQLiteStorage {
    public func state(of id: Name, keys: [Key]?, condition: EntityCondition) async throws -> SessionState {
        let read: @Sendable (Connection, SessionRow) throws -> SessionState = { connection, row in
            if try condition.isKnown(.present(String(row.version))) {
                return SessionState(version: row.version, entries: nil)
            }
            return SessionState(version: row.version, entries: try connection.state(of: row, keys: keys))
        }
        let small = try await visit(id) { connection, row -> SessionState? in
            let isSmall =
                row.maxKeyCount <= StorageLimits.maxPointReadKeys
                && row.maxStateBytes <= StorageLimits.maxPointReadBytes
            return isSmall ? try read(connection, row) : nil
        }
        if let small { return small }
        return try await visitPooled(id, read)
    }

    public func stateValue(_ key: Key, of id: Name, condition: EntityCondition) async throws -> StateValue {
        try await visit(id) { connection, row in
            guard let value = try connection.value(of: key, in: row) else { throw Failure.stateKeyNotFound(key) }
            let isKnown = try condition.isKnown(.present(String(row.version)))
            return StateValue(version: row.version, value: isKnown ? nil : value)
        }
    }

    public func patchState(
        of id: Name, _ patch: StatePatch, condition: EntityCondition, orCreating draft: SessionDraft?
    ) async throws -> StateChange {
        do {
            if let change = try await patchUnchanged(id, patch, condition) { return change }
        } catch let failure as Failure where failure.code == .sessionNotFound && draft != nil {
            // It is created below.
        }
        let isShrinking = patch.set.isEmpty && patch.setDefault.isEmpty && draft == nil
        return try await sessionTransaction(
            .foreground, isShrinking ? .shrinking : .growing, bytes: patch.sizeBytes
        ) { transaction in
            try transaction.patch(id, patch, condition, orCreating: draft)
        }
    }

    /// The usual case of a front end that reruns: all defaults are set already, and nothing is written.
    private func patchUnchanged(
        _ id: Name, _ patch: StatePatch, _ condition: EntityCondition
    ) async throws -> StateChange? {
        guard patch.onlySetsDefaults, patch.setDefault.count <= StorageLimits.maxPointReadKeys else { return nil }
        return try await visit(id) { connection, row in
            try condition.check(.present(String(row.version)))
            for entry in patch.setDefault where try !connection.hasValue(entry.key, in: row) { return nil }
            let session = try connection.resolved(row)
            return StateChange(session, initializedKeys: [], removedKeys: [])
        }
    }

    public func setStateValue(
        _ entry: StateEntry, of id: Name, condition: EntityCondition
    ) async throws -> (isNew: Bool, version: Int64) {
        try await sessionTransaction(bytes: entry.value.sizeBytes) { transaction in
            var row = try transaction.live(id)
            let isPresent = try transaction.connection.hasValue(entry.key, in: row)
            try condition.check(.member(isPresent: isPresent, of: String(row.version)))
            let before = try transaction.connection.resolved(row)
            let hasChanged = try transaction.store(entry, in: row)
            try transaction.touch(&row, changingState: hasChanged)
            let session = try transaction.checked(row, before: before)
            return (!isPresent, session.version)
        }
    }

    public func removeStateValue(_ key: Key, of id: Name, condition: EntityCondition) async throws {
        try await sessionTransaction(.foreground, .shrinking) { transaction in
            var row = try transaction.live(id)
            let isPresent = try transaction.connection.hasValue(key, in: row)
            try condition.check(.member(isPresent: isPresent, of: String(row.version)))
            guard try transaction.removeKey(key, from: row) else {
                guard try transaction.connection.hasValue(key, in: row) else { throw Failure.stateKeyNotFound(key) }
                throw Failure(
                    .stateKeyNotFound,
                    "Nothing is stored under this key. Its value is the template's default, which stays."
                )
            }
            try transaction.touch(&row, changingState: true)
        }
    }
}

extension SessionTransaction {
    /// Deletes keys, deletes prefixes, sets, sets defaults. A key deleted and set by the same patch counts as replaced,
    /// not removed.
    func patch(
        _ id: Name, _ patch: StatePatch, _ condition: EntityCondition, orCreating draft: SessionDraft?
    ) throws -> StateChange {
        var (row, isNew) = try live(id, orCreating: draft)
        try condition.check(isNew ? .absent : .present(String(row.version)))
        let before = isNew ? nil : try connection.resolved(row)
        let replaced = Set(patch.set.map(\.key))
        let kept = replaced.union(patch.keep)
        var removed: [Key] = []
        for key in patch.delete where !replaced.contains(key) {
            if try removeKey(key, from: row) { removed.append(key) }
        }
        for prefix in patch.deletePrefixes {
            for (key, _) in try storedKeys(prefix: prefix, of: row) where !kept.contains(key) {
                if try removeKey(key, from: row) { removed.append(key) }
            }
        }
        var hasChanged = !removed.isEmpty
        for entry in patch.set {
            if try store(entry, in: row) { hasChanged = true }
        }
        let initialized = try initialize(patch.setDefault, in: row)
        try touch(&row, changingState: hasChanged || !initialized.isEmpty)
        if !initialized.isEmpty {
            let reset = Set(initialized)
            removed.removeAll { reset.contains($0) }
        }
        return StateChange(
            try checked(row, before: before), initializedKeys: initialized, removedKeys: removed)
    }
}

extension Connection {
    /// The resolved state in the byte order of its keys; of `keys` those that are present.
    func state(of row: SessionRow, keys: [Key]?) throws -> [StateEntry] {
        if let keys {
            return try keys.compactMap { key in
                try value(of: key, in: row).map { StateEntry(key: key, value: $0) }
            }
        }
        return try all(
            """
            SELECT key, value FROM session_state WHERE session_ref = ?1
            UNION ALL
            SELECT d.key, d.value FROM session_template_defaults d WHERE d.template_id = ?2
                AND NOT EXISTS (SELECT 1 FROM session_state v WHERE v.session_ref = ?1 AND v.key = d.key)
            ORDER BY 1
            """, .integer(row.ref), .optional(row.templateID, Value.integer)
        ) { StateEntry(key: Key(stored: $0.text(0)), value: JSONText(stored: $0.blob(1))) }
    }
}

extension StateChange {
    /// - Parameter session: as it is after the change.
    fileprivate init(_ session: Session, initializedKeys: [Key], removedKeys: [Key]) {
        self.init(
            version: session.version, initializedKeys: initializedKeys, removedKeys: removedKeys,
            stateKeyCount: session.stateKeyCount, stateSizeBytes: session.stateSizeBytes)
    }
}

extension Failure {
    static func stateKeyNotFound(_ key: Key) -> Failure {
        Failure(.stateKeyNotFound, "The session's state has no key '\(key)'.")
    }
}
