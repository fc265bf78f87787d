// Where the server listens, and what it speaks there.

import NIOCore

/// An address to listen on.
public struct Listener: Sendable {
    public enum Address: Sendable, Equatable {
        /// Port 0 picks a free one.
        case tcp(host: String, port: Int)
        /// The path of a Unix domain socket.
        case unix(path: String)
    }

    public let address: Address
    /// For TLS; nil for plain HTTP.
    public let certificate: ServerCertificate?

    public init(_ address: Address, certificate: ServerCertificate? = nil) {
        self.address = address
        self.certificate = certificate
    }

    /// The listener as clients write it, with the port that was picked: `http://127.0.0.1:8080`, `unix:/run/r.sock`.
    func url(boundTo channel: any Channel) -> String {
        switch address {
        case .tcp(let host, let port):
            let scheme = certificate == nil ? "http" : "https"
            let port = channel.localAddress?.port ?? port
            return "\(scheme)://\(host.contains(":") ? "[\(host)]" : host):\(port)"
        case .unix(let path): return "unix:\(path)"
        }
    }
}

/// The server cannot listen on an address.
public struct ListenError: Error, CustomStringConvertible {
    /// What was wrong, where, and what to do.
    public let description: String

    init(_ description: String) { self.description = description }
}
