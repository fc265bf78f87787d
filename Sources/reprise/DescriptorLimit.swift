// How many files, sockets among them, the process may have open, and how many connections that leaves.

import Domain
import Glibc
import Logging
import NIOCore

enum DescriptorLimit {
    /// Descriptors that are not for connections: three of each event loop, listeners, SQLite's temporary files, files
    /// read now and then.
    private static let reserved = 32 + 3 * System.coreCount

    /// Raises the limit as far as needed and allowed.
    /// - Parameter open: descriptors open now, the database's among them.
    /// - Returns: how many connections there can be, at most ``Limits/maxConnections``.
    static func connections(open: Int, logger: Logger) -> Int {
        let needed = open + reserved + Limits.maxConnections
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return Limits.maxConnections }
        if limit.rlim_cur < rlim_t(needed) {
            limit.rlim_cur = min(limit.rlim_max, rlim_t(needed))
            _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            _ = getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        }
        let connections = connections(open: open, limit: Int(clamping: limit.rlim_cur))
        if connections < Limits.maxConnections {
            logger.warning(
                "the limit of open files allows fewer connections; raise it with ulimit -n or LimitNOFILE",
                metadata: [
                    "limit": "\(limit.rlim_cur)", "connections": "\(connections)", "needed": "\(needed)",
                ])
        }
        return connections
    }

    /// What a limit leaves for connections, and at least one.
    static func connections(open: Int, limit: Int) -> Int {
        min(Limits.maxConnections, max(1, limit - open - reserved))
    }
}
