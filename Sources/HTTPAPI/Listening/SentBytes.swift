// How much of what was sent has arrived, as the kernel knows.

import Glibc
import NIOCore

/// What a connection's peer has taken of the bytes sent to it.
enum SentBytes {
    /// As much of Linux's `struct tcp_info` as is needed. glibc's has no `tcpi_bytes_acked`, which is at byte 120 since
    /// Linux 4.1 (include/uapi/linux/tcp.h).
    private struct Information: Sendable {
        var before: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)
        var between: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0)
        var acknowledged: UInt64 = 0
    }

    /// Bytes that the peer's machine has acknowledged since the connection began. Fails for anything but TCP.
    static func acknowledged(by channel: any Channel) -> EventLoopFuture<UInt64> {
        guard let channel = channel as? any SocketOptionProvider else {
            return channel.eventLoop.makeFailedFuture(ChannelError.operationUnsupported)
        }
        let information: EventLoopFuture<Information> = channel.unsafeGetSocketOption(
            level: .tcp, name: .init(rawValue: TCP_INFO))
        return information.map(\.acknowledged)
    }
}
