// Ends requests whose JSON body hardly arrives. docs/design/json.md.

import Domain
import NIOCore

/// Sent down the pipeline by a handler that waits for the rest of a JSON body.
struct BodyAwaited: Sendable {}

/// A body arrived at less than ``Limits/minBodyBytesPerSecond``.
struct BodyStalled: Error {}

/// Watches how fast an awaited body arrives, in windows of ``Limits/bodyWindowSeconds``. It belongs to one connection
/// and is used on its event loop.
///
/// Only what the sender owes counts: while the service itself does not read from the connection, nothing is stalled.
final class BodyArrival {
    private let stalled: () -> Void
    private var isArriving = false
    private var isReading = false
    private var receivedBytes = 0
    private var window: Scheduled<Void>?

    /// - Parameter stalled: called once per body that arrives too slowly.
    init(stalled: @escaping () -> Void) { self.stalled = stalled }

    func headArrived() { isArriving = true }

    func arrived(_ count: Int) { receivedBytes += count }

    func bodyEnded() {
        isArriving = false
        stop()
    }

    func readRequested() { isReading = true }

    func readCompleted() { isReading = false }

    /// Starts watching, unless the body is complete or watched already.
    func watch(on loop: any EventLoop) {
        guard isArriving, window == nil else { return }
        receivedBytes = 0
        window = loop.assumeIsolated().scheduleTask(in: .seconds(Limits.bodyWindowSeconds)) { self.windowEnded(loop) }
    }

    func stop() {
        window?.cancel()
        window = nil
    }

    private func windowEnded(_ loop: any EventLoop) {
        window = nil
        guard !isReading || receivedBytes >= Limits.minBodyBytesPerSecond * Int(Limits.bodyWindowSeconds) else {
            return stalled()
        }
        watch(on: loop)
    }
}
