// Threads for work that must not run on an event loop, with a bounded queue.

import Domain
import Glibc
import NIOPosix
import Synchronization

/// A few threads, started when first used, that take waiting work in order of arrival.
final class BoundedThreads: Sendable {
    private let count: Int
    private let maxAdmitted: Int
    private let niceness: Int32
    private let refusal: String
    private let admitted = Atomic(0)
    private let state = Mutex(State.idle)

    private enum State {
        case idle
        case running(NIOThreadPool)
        case closed
    }

    /// - Parameters:
    ///   - maxQueued: how many calls may wait while all threads are busy.
    ///   - niceness: how much less processor time than other threads they get; 0 for the same.
    ///   - refusal: the detail for callers beyond that.
    init(count: Int, maxQueued: Int, niceness: Int32 = 0, refusal: String) {
        self.count = count
        maxAdmitted = count + maxQueued
        self.niceness = niceness
        self.refusal = refusal
    }

    /// Runs `body` on one of the threads. A call that is cancelled while it waits is not run.
    /// - Throws: what `body` throws; `overloaded`, `shutting_down`.
    func run<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
        defer { admitted.wrappingSubtract(1, ordering: .relaxed) }
        guard admitted.wrappingAdd(1, ordering: .relaxed).newValue <= maxAdmitted else {
            throw Failure.overloaded(refusal)
        }
        do {
            return try await threads().runIfActive { [niceness] in
                // Applies to this thread only, because Linux has a niceness per thread.
                if niceness > 0 { setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, niceness) }
                return try body()
            }
        } catch is CancellationError {
            throw Failure.shuttingDown
        }
    }

    private func threads() throws(Failure) -> NIOThreadPool {
        try state.withLock { state throws(Failure) -> NIOThreadPool in
            switch state {
            case .closed: throw .shuttingDown
            case .running(let threads): return threads
            case .idle:
                let threads = NIOThreadPool(numberOfThreads: count)
                threads.start()
                state = .running(threads)
                return threads
            }
        }
    }

    /// Refuses later and waiting calls; those that are running finish first.
    func close() async {
        let running = state.withLock { state -> NIOThreadPool? in
            defer { state = .closed }
            if case .running(let threads) = state { return threads }
            return nil
        }
        try? await running?.shutdownGracefully()
    }
}
