// Reads must not write: hits and misses are counted here and written by the writer about once a second.

import Domain
import Synchronization

/// Counters of reads since the last flush, in memory and bounded.
final class AccessLedger: Sendable {
    /// The reads of one entry.
    struct Access: Sendable {
        var hits: Int
        var lastAccess: Instant
        /// Order of the last read among all reads and writes.
        var tick: Int64
    }

    /// The reads of one namespace.
    struct Tally: Sendable {
        var hits = 0
        var misses: [MissReason: Int] = [:]
        var entries: [Int64: Access] = [:]
    }

    private struct State {
        var namespaces: [Int64: Tally] = [:]
        var trackedEntries = 0
        var lastTick: Int64 = 0

        mutating func nextTick(_ now: Instant) -> Int64 {
            // Microseconds, so that ticks compare with ranks from before a restart; never the same twice.
            lastTick = max(lastTick + 1, now.milliseconds * 1000)
            return lastTick
        }
    }

    private let state = Mutex(State())
    /// Whether hits and misses are counted: the setting `enable_monitoring`. Uses always are, for evictions need them.
    let isCounting = Atomic(true)

    /// A number greater than any before it: the order of uses, finer than the clock.
    func tick(_ now: Instant) -> Int64 { state.withLock { $0.nextTick(now) } }

    func countHit(namespaceID: Int64, entryID: Int64, at now: Instant) {
        state.withLock { state in
            let tick = state.nextTick(now)
            var isNew = false
            let isFull = state.trackedEntries >= Limits.maxTrackedAccesses
            withTally(of: namespaceID, in: &state) { tally in
                if isCounting.load(ordering: .relaxed) { tally.hits += 1 }
                if tally.entries[entryID] != nil {
                    tally.entries[entryID]!.hits += 1
                    tally.entries[entryID]!.lastAccess = now
                    tally.entries[entryID]!.tick = tick
                } else if !isFull {
                    tally.entries[entryID] = Access(hits: 1, lastAccess: now, tick: tick)
                    isNew = true
                }
            }
            if isNew { state.trackedEntries += 1 }
        }
    }

    func countMiss(namespaceID: Int64, reason: MissReason) {
        guard isCounting.load(ordering: .relaxed) else { return }
        state.withLock { state in
            withTally(of: namespaceID, in: &state) { $0.misses[reason, default: 0] += 1 }
        }
    }

    private func withTally(of namespaceID: Int64, in state: inout State, _ body: (inout Tally) -> Void) {
        body(&state.namespaces[namespaceID, default: Tally()])
    }

    var isEmpty: Bool { state.withLock { $0.namespaces.isEmpty } }

    /// Takes out everything counted so far.
    func takeAll() -> [Int64: Tally] {
        state.withLock { state in
            defer {
                state.namespaces = [:]
                state.trackedEntries = 0
            }
            return state.namespaces
        }
    }

    /// Takes counters back that could not be written; reads by entry are let go.
    func putBack(_ tally: Tally, namespaceID: Int64) {
        state.withLock { state in
            withTally(of: namespaceID, in: &state) {
                $0.hits += tally.hits
                $0.misses.merge(tally.misses, uniquingKeysWith: +)
            }
        }
    }

    /// Takes out one namespace's reads by entry, before its entries are put in order of use.
    func takeAccesses(namespaceID: Int64) -> [Int64: Access] {
        state.withLock { state in
            guard let entries = state.namespaces[namespaceID]?.entries, !entries.isEmpty else { return [:] }
            state.namespaces[namespaceID]!.entries = [:]
            state.trackedEntries -= entries.count
            return entries
        }
    }

    /// What was counted and not yet flushed for a namespace, without its entries.
    func pending(namespaceID: Int64) -> (hits: Int, misses: [MissReason: Int]) {
        state.withLock { state in
            let tally = state.namespaces[namespaceID] ?? Tally()
            return (tally.hits, tally.misses)
        }
    }
}
