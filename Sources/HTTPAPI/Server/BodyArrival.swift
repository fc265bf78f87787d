// Notices requests whose body hardly arrives. docs/design/json.md.

import Domain
import HTTPTypes

/// A body arrived too slowly, or took too long.
struct BodyStalled: Error {
    /// What the sender is told.
    let detail: String
}

/// How fast the body of a connection's request arrives, in windows of ``Limits/bodyWindowSeconds``.
///
/// A body that is held in memory must arrive at ``Limits/minBodyBytesPerSecond``. One that is passed on as it arrives
/// holds only its connection; ``Limits/minStreamedBytesPerSecond`` and ``Limits/maxBodySeconds`` are enough.
///
/// Only what the sender owes counts: while the service itself does not read from the connection, nothing is stalled.
struct BodyArrival {
    /// Whether the service waits for bytes.
    var isReading = false
    /// The request whose body is not complete.
    private var request: HTTPRequest?
    private var receivedBytes = 0
    /// How many whole windows the body has been incomplete for; nil in the window it began in.
    private var windows: Int64?

    mutating func headArrived(_ head: HTTPRequest) { request = head }

    mutating func arrived(_ count: Int) { receivedBytes += count }

    mutating func bodyEnded() {
        request = nil
        windows = nil
    }

    /// Ends a window and begins the next.
    /// - Parameter streamsBody: whether a request's body is passed on as it arrives.
    /// - Returns: what is wrong with the body, if anything is.
    mutating func windowEnds(streamsBody: (HTTPRequest) -> Bool) -> BodyStalled? {
        defer {
            receivedBytes = 0
            windows = request == nil ? nil : (windows ?? -1) + 1
        }
        guard let request, let windows, isReading else { return nil }
        let seconds = Limits.bodyWindowSeconds
        guard windows < Limits.maxBodySeconds / seconds else {
            return BodyStalled(detail: "The body took longer than \(Limits.maxBodySeconds) seconds.")
        }
        guard receivedBytes < Limits.minBodyBytesPerSecond * Int(seconds) else { return nil }
        let least = streamsBody(request) ? Limits.minStreamedBytesPerSecond : Limits.minBodyBytesPerSecond
        guard receivedBytes < least * Int(seconds) else { return nil }
        return BodyStalled(detail: "The body arrived at less than \(least) bytes per second.")
    }
}
