// Which namespaces have their own label in monitoring, and how the others are summed.

import Domain
import Synchronization

/// Gives the most used namespaces their own label and sums up the others.
///
/// A monitor treats a counter that goes back as restarted, and counts all of it again. So a namespace keeps its label
/// for as long as it exists, even if others are used more by now, and the sum of the others does not go back when one
/// of them is removed or gets a label that has become free.
final class NamespaceLabels: Sendable {
    typealias Figures = OperationalFigures.NamespaceFigures

    /// One counter in the sum.
    private struct Floor {
        private var told = 0
        private var lost = 0

        mutating func raise(_ sum: Int) -> Int {
            lost = max(lost, told - sum)
            told = sum + lost
            return told
        }
    }

    private struct State {
        var labelled: Set<String> = []
        var hits = Floor()
        var misses: [MissReason: Floor] = [:]
        var expirations = Floor()
        var evictions = Floor()
    }

    private let state = Mutex(State())
    private let limit: Int

    init(limit: Int = Limits.maxLabelledNamespaces) { self.limit = limit }

    /// At most `limit` namespaces by name, followed by the sum of the others, if there ever were any.
    func rows(_ namespaces: [Figures]) -> [Figures] {
        // A namespace may have the same name as the sum.
        let other = Name(stored: Sample.otherName)
        return state.withLock { state in
            state.labelled.formIntersection(namespaces.map(\.name.rawValue))
            let free = limit - state.labelled.count
            if free > 0 {
                let newcomers = namespaces.filter { !state.labelled.contains($0.name.rawValue) && $0.name != other }
                state.labelled.formUnion(newcomers.sorted(by: Self.goesFirst).prefix(free).map(\.name.rawValue))
            }
            var rows = namespaces.filter { state.labelled.contains($0.name.rawValue) }
            let others = namespaces.filter { !state.labelled.contains($0.name.rawValue) }
            var sum = Figures(name: other)
            sum.hits = state.hits.raise(others.reduce(0) { $0 + $1.hits })
            for reason in MissReason.allCases {
                let misses = others.reduce(0) { $0 + ($1.misses[reason] ?? 0) }
                sum.misses[reason] = state.misses[reason, default: Floor()].raise(misses)
            }
            sum.expirations = state.expirations.raise(others.reduce(0) { $0 + $1.expirations })
            sum.evictions = state.evictions.raise(others.reduce(0) { $0 + $1.evictions })
            sum.entryCount = others.reduce(0) { $0 + $1.entryCount }
            sum.sizeBytes = others.reduce(0) { $0 + $1.sizeBytes }
            if !others.isEmpty || sum.lookups + sum.expirations + sum.evictions > 0 { rows.append(sum) }
            return rows
        }
    }

    private static func goesFirst(_ a: Figures, _ b: Figures) -> Bool {
        (a.lookups, a.entryCount, b.name.rawValue) > (b.lookups, b.entryCount, a.name.rawValue)
    }
}
