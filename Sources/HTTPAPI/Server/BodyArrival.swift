// Notices requests whose body hardly arrives. docs/design/json.md.

import Domain
import HTTPTypes

/// A body arrived at less than ``Limits/minBodyBytesPerSecond``.
struct BodyStalled: Error {}

/// How fast the body of a connection's request arrives, in windows of ``Limits/bodyWindowSeconds``.
///
/// Only what the sender owes counts: while the service itself does not read from the connection, nothing is stalled.
struct BodyArrival {
    /// Whether the service waits for bytes.
    var isReading = false
    /// The request whose body is not complete.
    private var request: HTTPRequest?
    private var receivedBytes = 0
    /// Whether the body was incomplete for all of the window.
    private var fillsWindow = false

    mutating func headArrived(_ head: HTTPRequest) { request = head }

    mutating func arrived(_ count: Int) { receivedBytes += count }

    mutating func bodyEnded() {
        request = nil
        fillsWindow = false
    }

    /// Ends a window and begins the next.
    /// - Parameter streamsBody: whether a request's body is passed on as it arrives. It then holds no memory and may
    ///   take its time.
    /// - Returns: whether the body has stalled.
    mutating func windowEnds(streamsBody: (HTTPRequest) -> Bool) -> Bool {
        defer {
            receivedBytes = 0
            fillsWindow = request != nil
        }
        guard let request, fillsWindow, isReading else { return false }
        return receivedBytes < Limits.minBodyBytesPerSecond * Int(Limits.bodyWindowSeconds) && !streamsBody(request)
    }
}
