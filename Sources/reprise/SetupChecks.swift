// Whether a server could start with these settings on this machine.

import Domain
import Glibc

extension Finding.Code {
    static let settingsInvalid = Self(rawValue: "settings_invalid")
    static let cannotListen = Self(rawValue: "cannot_listen")
    static let folderNotWritable = Self(rawValue: "folder_not_writable")
}

enum SetupChecks {
    /// Settings that a server would refuse.
    static func invalid(_ message: ExitMessage) -> Finding {
        Finding(
            .critical, .settingsInvalid, "The settings are not valid", detail: message.message,
            remedy: "Correct the value where the message says it comes from. 'reprise help serve' lists all settings.")
    }

    /// For a machine on which no server runs.
    static func findings(_ settings: Settings, path: String) -> [Finding] {
        do throws(ExitMessage) {
            let addresses = try ListenSettings(settings)
            _ = try addresses.loadCertificate()
            let ports = [addresses.httpPort, addresses.httpsPort].compactMap { $0 }
            return ports.flatMap { listening(host: addresses.host, port: $0) } + folder(of: path)
        } catch {
            return [invalid(error)] + folder(of: path)
        }
    }

    private static func listening(host: String, port: Int) -> [Finding] {
        guard let reason = refusal(host: host, port: port) else { return [] }
        return [
            Finding(
                .critical, .cannotListen, "A server could not listen on \(host):\(port)", detail: "\(reason).",
                evidence: ["port": .integer(port)],
                remedy: "If another program uses the port, stop it ('ss -ltnp' names it) or choose another --port or "
                    + "--tls-port. If the address is not one of this machine, choose another --host. It is no problem "
                    + "if no server is to run on this database while the other program runs.")
        ]
    }

    /// Why the address cannot be bound; nil if it can.
    static func refusal(host: String, port: Int) -> String? {
        var hints = addrinfo()
        hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host, "\(port)", &hints, &found)
        guard code == 0, let first = found else { return "\(host): \(String(cString: gai_strerror(code)))" }
        defer { freeaddrinfo(found) }
        let descriptor = socket(first.pointee.ai_family, first.pointee.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return String(cString: strerror(errno)) }
        defer { close(descriptor) }
        // As the server does, so that connections of the last one that linger are not in the way.
        var yes: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        guard bind(descriptor, first.pointee.ai_addr, first.pointee.ai_addrlen) == 0, listen(descriptor, 1) == 0 else {
            return String(cString: strerror(errno))
        }
        return nil
    }

    /// The log and the lock are created beside the database.
    private static func folder(of path: String) -> [Finding] {
        var folder = path.contains("/") ? String(path[..<path.lastIndex(of: "/")!]) : "."
        if folder.isEmpty { folder = "/" }
        // Missing folders are created.
        while access(folder, F_OK) != 0, errno == ENOENT {
            folder = folder.contains("/") ? String(folder[..<folder.lastIndex(of: "/")!]) : "."
            if folder.isEmpty { folder = "/" }
        }
        guard access(folder, W_OK | X_OK) != 0 else { return [] }
        return [
            Finding(
                .critical, .folderNotWritable, "The database's folder cannot be written",
                detail: "\(folder): \(String(cString: strerror(errno))). The log and the lock file are created there.",
                remedy: "Make it writable for the user that the server runs as, or choose another --database.")
        ]
    }
}
