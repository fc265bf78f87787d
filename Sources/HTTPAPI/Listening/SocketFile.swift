// Makes the file of a Unix domain socket, and removes one that a dead server left behind.

import Glibc

/// A Unix domain socket that accepts connections, and its file.
///
/// Only the user of the process can connect: the file's mode is 0600 from the moment it exists. Linux gives it the
/// mode of the socket's inode, so `fchmod` before `bind` decides it whatever the umask (unix_bind_bsd in
/// net/unix/af_unix.c).
struct SocketFile: Sendable {
    let path: String
    /// Owned by whoever takes it; not blocking.
    let descriptor: CInt
    private let identity: Identity

    /// What a path leads to, as long as nobody replaces it.
    private struct Identity: Equatable {
        let device: dev_t
        let inode: ino_t
    }

    /// Longest path: `sun_path` without its terminating zero.
    static let maxPathBytes = 107
    private static let mode: mode_t = 0o600
    private static let kind = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)

    /// Binds a new socket to `path` and listens.
    ///
    /// The file of a server that no longer runs is replaced. Anything else at the path is left alone. Servers that
    /// start at the same time take turns, by a lock on the folder.
    /// - Throws: ``ListenError``.
    init(path: String, backlog: CInt) throws {
        guard (1...Self.maxPathBytes).contains(path.utf8.count) else {
            throw ListenError(
                "cannot listen on unix:\(path): the path of a socket has at most \(Self.maxPathBytes) bytes. "
                    + "Choose a shorter unix_socket.")
        }
        let folder = open(Self.folder(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else {
            throw Self.failure(
                path, "its folder cannot be opened: \(Self.reason). Create it, or choose another unix_socket.")
        }
        defer { close(folder) }
        guard flock(folder, LOCK_EX) == 0 else { throw Self.failure(path, Self.reason) }
        try Self.removeStale(path)
        let descriptor = socket(AF_UNIX, Self.kind, 0)
        guard descriptor >= 0 else { throw Self.failure(path, Self.reason) }
        guard fchmod(descriptor, Self.mode) == 0, Self.withAddress(of: path, { bind(descriptor, $0, $1) }) == 0,
            listen(descriptor, backlog) == 0, let identity = Self.identity(of: path)
        else {
            let reason = Self.reason
            close(descriptor)
            throw Self.failure(path, "\(reason). Choose another unix_socket, in a folder you can write to.")
        }
        self.path = path
        self.descriptor = descriptor
        self.identity = identity
    }

    /// Removes the file, unless another server has replaced it.
    func remove() {
        if Self.identity(of: path) == identity { unlink(path) }
    }

    private static func removeStale(_ path: String) throws {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            if errno == ENOENT { return }
            throw failure(path, reason)
        }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw failure(path, "there is something else at this path. Choose another unix_socket, or move it away.")
        }
        let probe = socket(AF_UNIX, kind, 0)
        guard probe >= 0 else { throw failure(path, reason) }
        defer { close(probe) }
        // A server that lives but is busy answers EAGAIN; one that may not be asked, EACCES.
        guard withAddress(of: path, { connect(probe, $0, $1) }) != 0, errno == ECONNREFUSED else {
            throw failure(path, "another program is listening there. Stop it, or choose another unix_socket.")
        }
        guard unlink(path) == 0 else {
            throw failure(path, "the socket of a server that has ended cannot be removed: \(reason)")
        }
    }

    private static func identity(of path: String) -> Identity? {
        var status = stat()
        guard lstat(path, &status) == 0 else { return nil }
        return Identity(device: status.st_dev, inode: status.st_ino)
    }

    private static func withAddress(
        of path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt
    ) -> CInt {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    private static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func failure(_ path: String, _ what: String) -> ListenError {
        ListenError("cannot listen on unix:\(path): \(what)")
    }

    private static var reason: String { String(cString: strerror(errno)) }
}
