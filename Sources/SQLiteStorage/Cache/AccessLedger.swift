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

    /// The look-ups of one minute.
    struct Minute: Sendable {
        var start: Instant
        var lookups: Lookups
    }

    /// The reads of one namespace.
    struct Tally: Sendable {
        /// In order of arrival; rarely more than one.
        var minutes: [Minute] = []
        var entries: [Int64: Access] = [:]

        var isEmpty: Bool { minutes.isEmpty && entries.isEmpty }

        /// The look-ups of all minutes.
        var lookups: Lookups { minutes.reduce(into: Lookups()) { $0.add($1.lookups) } }

        /// Counts a look-up in the minute that contains `now`.
        mutating func count(at now: Instant, _ change: (inout Lookups) -> Void) {
            let start = now.rounded(downTo: MetricResolution.minute.periodMilliseconds)
            // The clock may have been set back.
            var place = minutes.lastIndex { $0.start == start }
            if place == nil, minutes.count < StorageLimits.maxPendingMinutes {
                minutes.append(Minute(start: start, lookups: Lookups()))
                place = minutes.count - 1
            }
            change(&minutes[place ?? minutes.count - 1].lookups)
        }

        /// Adds earlier reads.
        mutating func add(_ earlier: Tally) {
            for minute in earlier.minutes { count(at: minute.start) { $0.add(minute.lookups) } }
            entries.merge(earlier.entries) { later, earlier in
                Access(
                    hits: later.hits + earlier.hits, lastAccess: max(later.lastAccess, earlier.lastAccess),
                    tick: max(later.tick, earlier.tick))
            }
        }
    }

    /// Look-ups of one namespace.
    struct Lookups: Sendable {
        var hits = 0
        var misses: [MissReason: Int] = [:]

        mutating func add(_ more: Lookups) {
            hits += more.hits
            misses.merge(more.misses, uniquingKeysWith: +)
        }

        mutating func subtract(_ fewer: Lookups) {
            hits -= fewer.hits
            misses.merge(fewer.misses, uniquingKeysWith: -)
        }

        var activity: CacheActivity { CacheActivity(hits: hits, misses: misses) }
    }

    private struct State {
        var namespaces: [Int64: Tally] = [:]
        /// The look-ups that have been taken out of `namespaces` since the process started.
        var flushed: [Int64: Lookups] = [:]
        /// How long after its removal an entry was asked for, by namespace and reason.
        var delays: [Int64: [MissReason: MissDelays]] = [:]
        var trackedEntries = 0
        var lastTick: Int64 = 0

        mutating func nextTick(_ now: Instant) -> Int64 {
            // In microseconds, so that ticks compare with ranks from before a restart. A tick is never used twice, and
            // is never the first of its millisecond, which is the rank of an entry whose use is only known to the
            // millisecond.
            lastTick = max(lastTick + 1, now.milliseconds * 1000 + 1)
            return lastTick
        }
    }

    private let state = Mutex(State())
    /// Whether hits and misses are counted: the setting `enable_monitoring`. Uses always are, because eviction needs
    /// them.
    let isCounting = Atomic(true)

    /// A number greater than any earlier one: the order of uses, finer than the clock.
    func tick(_ now: Instant) -> Int64 { state.withLock { $0.nextTick(now) } }

    /// Makes all ticks from now on greater than `tick`.
    func raiseTick(to tick: Int64) { state.withLock { $0.lastTick = max($0.lastTick, tick) } }

    func countHit(namespaceID: Int64, entryID: Int64, at now: Instant) {
        state.withLock { state in
            let tick = state.nextTick(now)
            var isNew = false
            let isFull = state.trackedEntries >= StorageLimits.maxTrackedAccesses
            withTally(of: namespaceID, in: &state) { tally in
                if isCounting.load(ordering: .relaxed) { tally.count(at: now) { $0.hits += 1 } }
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

    func countMiss(namespaceID: Int64, _ miss: CacheMiss, at now: Instant) {
        guard isCounting.load(ordering: .relaxed) else { return }
        state.withLock { state in
            withTally(of: namespaceID, in: &state) { tally in
                tally.count(at: now) { $0.misses[miss.reason, default: 0] += 1 }
            }
            // For the reasons that a setting could change.
            if miss.reason == .expired || miss.reason == .evicted, let removedAt = miss.removedAt {
                state.delays[namespaceID, default: [:]][miss.reason, default: MissDelays()]
                    .add(milliseconds: now.milliseconds(since: removedAt))
            }
        }
    }

    private func withTally(of namespaceID: Int64, in state: inout State, _ body: (inout Tally) -> Void) {
        body(&state.namespaces[namespaceID, default: Tally()])
    }

    /// The reads of an entry that have not been written yet.
    func access(namespaceID: Int64, entryID: Int64) -> Access? {
        state.withLock { $0.namespaces[namespaceID]?.entries[entryID] }
    }

    var isEmpty: Bool { state.withLock { $0.namespaces.isEmpty } }

    /// Namespaces with something to write, and how many of their entries were read.
    func waiting() -> [(namespaceID: Int64, entries: Int)] {
        state.withLock { $0.namespaces.map { ($0.key, $0.value.entries.count) } }
    }

    /// What one write has taken out. It is put back if the write is undone.
    final class Withdrawal: Sendable {
        private let ledger: AccessLedger
        private let taken = Mutex<[(namespaceID: Int64, tally: Tally)]>([])

        init(from ledger: AccessLedger) { self.ledger = ledger }

        /// Takes out a namespace's counters, with the reads of at most `limit` of its entries.
        func takeCounters(namespaceID: Int64, entries limit: Int) -> Tally {
            take(namespaceID) { tally in
                let entries = tally.entries.prefix(limit)
                defer {
                    for (entryID, _) in entries { tally.entries[entryID] = nil }
                    tally.minutes = []
                }
                return Tally(minutes: tally.minutes, entries: Dictionary(uniqueKeysWithValues: Array(entries)))
            }
        }

        /// Takes out the reads of some of a namespace's entries.
        func takeAccesses(namespaceID: Int64, of entryIDs: [Int64]) -> [Int64: Access] {
            guard !entryIDs.isEmpty else { return [:] }
            return take(namespaceID) { tally in
                var taken: [Int64: Access] = [:]
                for entryID in entryIDs { taken[entryID] = tally.entries.removeValue(forKey: entryID) }
                return Tally(entries: taken)
            }.entries
        }

        private func take(_ namespaceID: Int64, _ part: (inout Tally) -> Tally) -> Tally {
            let tally = ledger.take(namespaceID, part)
            if !tally.isEmpty { taken.withLock { $0.append((namespaceID, tally)) } }
            return tally
        }

        /// Puts everything back.
        func undo() {
            let all = taken.withLock { taken in
                defer { taken = [] }
                return taken
            }
            for (namespaceID, tally) in all { ledger.putBack(tally, namespaceID) }
        }
    }

    private func take(_ namespaceID: Int64, _ part: (inout Tally) -> Tally) -> Tally {
        state.withLock { state in
            guard var tally = state.namespaces.removeValue(forKey: namespaceID) else { return Tally() }
            let taken = part(&tally)
            state.trackedEntries -= taken.entries.count
            state.flushed[namespaceID, default: Lookups()].add(taken.lookups)
            if !tally.isEmpty { state.namespaces[namespaceID] = tally }
            return taken
        }
    }

    private func putBack(_ tally: Tally, _ namespaceID: Int64) {
        state.withLock { state in
            let before = state.namespaces[namespaceID]?.entries.count ?? 0
            state.namespaces[namespaceID, default: Tally()].add(tally)
            state.trackedEntries += state.namespaces[namespaceID]!.entries.count - before
            state.flushed[namespaceID]?.subtract(tally.lookups)
        }
    }

    /// All look-ups of these namespaces since the process started, in the order given. An older namespace that is not
    /// among them no longer exists, so its look-ups are dropped.
    func lookups(of namespaceIDs: [Int64]) -> [Lookups] {
        let live = Set(namespaceIDs)
        let newest = namespaceIDs.max() ?? 0
        return state.withLock { state in
            // Ids only grow: a higher one belongs to a namespace that was created in the meantime.
            state.flushed = state.flushed.filter { $0.key > newest || live.contains($0.key) }
            state.delays = state.delays.filter { $0.key > newest || live.contains($0.key) }
            return namespaceIDs.map { id in
                var lookups = state.flushed[id] ?? Lookups()
                if let tally = state.namespaces[id] { lookups.add(tally.lookups) }
                return lookups
            }
        }
    }

    /// How late the misses of a reason came, by namespace, since the process started.
    func delays() -> [Int64: [MissReason: MissDelays]] { state.withLock { $0.delays } }

    /// What was counted but not flushed yet, by namespace, without entries.
    func pending() -> [Int64: [Minute]] {
        state.withLock { $0.namespaces.mapValues(\.minutes) }
    }

    /// What was counted but not flushed yet for a namespace, without its entries.
    func pending(namespaceID: Int64) -> Lookups {
        state.withLock { $0.namespaces[namespaceID]?.lookups ?? Lookups() }
    }
}
