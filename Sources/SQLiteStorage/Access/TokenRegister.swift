// All tokens in memory, and when each was last used.

import Domain
import Synchronization

/// What the rows of `access_tokens` say, kept in step with them by ``SQLiteStorage``. No other process writes them,
/// because only one has the database.
final class TokenRegister: Sendable {
    /// One token, and its uses since it was read or added.
    private final class Entry: Sendable {
        let token: AccessToken
        /// Milliseconds; 0 for never.
        let lastUsed: Atomic<Int64>
        let writtenUse: Atomic<Int64>

        init(_ token: AccessToken) {
            self.token = token
            lastUsed = Atomic(token.lastUsedAt?.milliseconds ?? 0)
            writtenUse = Atomic(token.lastUsedAt?.milliseconds ?? 0)
        }

        /// The token as it is now.
        var current: AccessToken {
            var token = token
            let used = lastUsed.load(ordering: .relaxed)
            token.lastUsedAt = used == 0 ? nil : Instant(milliseconds: used)
            return token
        }
    }

    private let entries: Mutex<[String: Entry]>
    let count: Atomic<Int>

    init(_ tokens: [AccessToken]) {
        entries = Mutex(Dictionary(uniqueKeysWithValues: tokens.map { ($0.id, Entry($0)) }))
        count = Atomic(tokens.count)
    }

    var all: [AccessToken] { entries.withLock { Array($0.values) }.map(\.current) }

    func token(_ id: String) -> AccessToken? { entry(id)?.current }

    func noteUse(of id: String, at now: Instant) { entry(id)?.lastUsed.max(now.milliseconds, ordering: .relaxed) }

    private func entry(_ id: String) -> Entry? { entries.withLock { $0[id] } }

    func add(_ token: AccessToken) {
        entries.withLock { entries in
            entries[token.id] = Entry(token)
            count.store(entries.count, ordering: .releasing)
        }
    }

    func remove(_ id: String) {
        entries.withLock { entries in
            entries[id] = nil
            count.store(entries.count, ordering: .releasing)
        }
    }

    /// Uses that are later than those written, by at least `gap` milliseconds.
    func usesToWrite(after gap: Int64) -> [(id: String, instant: Instant)] {
        entries.withLock { Array($0.values) }.compactMap { entry in
            let used = entry.lastUsed.load(ordering: .relaxed)
            let written = entry.writtenUse.load(ordering: .relaxed)
            guard used > written, used - written >= gap else { return nil }
            return (entry.token.id, Instant(milliseconds: used))
        }
    }

    func noteWritten(_ uses: [(id: String, instant: Instant)]) {
        for (id, instant) in uses { entry(id)?.writtenUse.store(instant.milliseconds, ordering: .relaxed) }
    }
}
