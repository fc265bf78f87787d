// Whether a server could start with these settings on this machine.

import Domain
import Glibc

extension Finding.Code {
    static let settingsInvalid = Self(rawValue: "settings_invalid")
    static let cannotListen = Self(rawValue: "cannot_listen")
    static let folderNotWritable = Self(rawValue: "folder_not_writable")
    static let backupFolderNotWritable = Self(rawValue: "backup_folder_not_writable")
    static let noFirstToken = Self(rawValue: "no_first_token")
}

enum SetupChecks {
    /// Settings that a server would refuse.
    static func invalid(_ message: ExitMessage) -> Finding {
        Finding(
            .critical, .settingsInvalid, "The settings are not valid", detail: message.message,
            remedy: "Correct the value where the message says it comes from. 'reprise help serve' lists all settings.")
    }

    /// For a machine on which no server runs.
    /// - Parameter hasTokens: whether the database has a token; nil if that is unknown.
    static func findings(_ settings: Settings, path: String, hasTokens: Bool?) -> [Finding] {
        addresses(settings) + firstToken(settings, hasTokens) + folders(settings, path)
    }

    private static func addresses(_ settings: Settings) -> [Finding] {
        do throws(ExitMessage) {
            let addresses = try ListenSettings(settings)
            _ = try addresses.loadCertificate()
            let ports = [addresses.httpPort, addresses.httpsPort].compactMap { $0 }
            return ports.flatMap { listening(host: addresses.host, port: $0) }
        } catch {
            return [invalid(error)]
        }
    }

    /// A server that nobody could use, and everybody can reach, does not start.
    private static func firstToken(_ settings: Settings, _ hasTokens: Bool?) -> [Finding] {
        guard hasTokens == false, settings.text(.adminToken).isEmpty, settings.text(.authentication) != "none",
            !HostName.isLoopback(settings.text(.host))
        else { return [] }
        return [
            Finding(
                .critical, .noFirstToken, "A server would not start without a token",
                detail: "Other machines could connect to \(settings.text(.host)), and there is no token.",
                remedy: "Run 'reprise token create NAME --scope admin' with the same settings, set admin_token, or set "
                    + "--host 127.0.0.1.")
        ]
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

    private static func folders(_ settings: Settings, _ path: String) -> [Finding] {
        var findings: [Finding] = []
        let home = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "./"
        // The log and the lock are created beside the database.
        if let (file, reason) = obstacle(home) ?? obstacle(path + ".lock", isFolder: false) {
            findings.append(
                Finding(
                    .critical, .folderNotWritable, "The database's folder or its lock file cannot be written",
                    detail: "\(file): \(reason). A server creates its log and locks its lock file there.",
                    remedy: "Make it writable for the user that the server runs as, or choose another --database."))
        }
        let setting = settings.text(.backupDirectory)
        if let (file, reason) = obstacle(setting.hasPrefix("/") ? setting : home + setting) {
            findings.append(
                Finding(
                    .warning, .backupFolderNotWritable, "No backup can be made", detail: "\(file): \(reason).",
                    remedy: "Make it a folder that is writable for the user that the server runs as, or change "
                        + "backup_directory."))
        }
        return findings
    }

    /// What keeps this user from writing to a file or to a folder, and why; for what is missing, the folder that it
    /// would be created in.
    private static func obstacle(_ path: String, isFolder: Bool = true) -> (path: String, reason: String)? {
        var folder = path
        while access(folder, F_OK) != 0, errno == ENOENT {
            guard isFolder else { return nil }
            while folder.count > 1, folder.hasSuffix("/") { folder.removeLast() }
            folder = folder.lastIndex(of: "/").map { $0 == folder.startIndex ? "/" : String(folder[..<$0]) } ?? "."
        }
        guard access(folder, isFolder ? R_OK | W_OK | X_OK : R_OK | W_OK) != 0 else {
            var status = stat()
            guard isFolder, stat(folder, &status) == 0, status.st_mode & S_IFMT != S_IFDIR else { return nil }
            return (folder, String(cString: strerror(ENOTDIR)))
        }
        return (folder, String(cString: strerror(errno)))
    }
}
