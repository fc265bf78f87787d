// Host names and origins, as requests and settings name them.

/// The host of a `Host` field, an origin or a setting.
public enum HostName {
    /// The host in `host[:port]`, in lower case and without the brackets of an IPv6 address; nil if it is none.
    public static func host(of authority: some StringProtocol) -> String? {
        let host: Substring
        let port: Substring
        let text = Substring(authority)
        if text.first == "[" {
            guard let end = text.firstIndex(of: "]") else { return nil }
            host = text[text.index(after: text.startIndex)..<end]
            port = text[text.index(after: end)...]
            guard host.utf8.allSatisfy({ isAddressByte($0) }) else { return nil }
        } else {
            let colon = text.firstIndex(of: ":") ?? text.endIndex
            host = text[..<colon]
            port = text[colon...]
            guard host.utf8.allSatisfy(isNameByte) else { return nil }
        }
        guard !host.isEmpty, port.isEmpty || (port.first == ":" && port.dropFirst().utf8.allSatisfy(isDigit)) else {
            return nil
        }
        return host.lowercased()
    }

    /// Whether a host can only be this machine: `localhost` and names under it (RFC 6761, section 6.3), 127.0.0.0/8
    /// and ::1.
    public static func isLoopback(_ host: String) -> Bool {
        var host = host.lowercased()
        if host.hasSuffix(".") { host.removeLast() }
        if host == "localhost" || host.hasSuffix(".localhost") || host == "::1" { return true }
        if host == "0:0:0:0:0:0:0:1" { return true }
        let mapped = host.hasPrefix("::ffff:") ? host.dropFirst("::ffff:".count) : host[...]
        let parts = mapped.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127"
            && parts.allSatisfy { (1...3).contains($0.utf8.count) && $0.utf8.allSatisfy(isDigit) && UInt8($0) != nil }
    }

    /// `scheme://host[:port]` in lower case and without the scheme's own port (RFC 6454); nil if `text` is no origin of
    /// a web page.
    public static func origin(_ text: some StringProtocol) -> String? {
        let text = text.lowercased()
        let schemes = [("http", ":80"), ("https", ":443")]
        guard let (scheme, ownPort) = schemes.first(where: { text.hasPrefix($0.0 + "://") }) else { return nil }
        var authority = text.dropFirst(scheme.utf8.count + 3)
        guard host(of: authority) != nil, authority.last != ":" else { return nil }
        if authority.hasSuffix(ownPort) { authority.removeLast(ownPort.utf8.count) }
        return "\(scheme)://\(authority)"
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }

    private static func isAddressByte(_ byte: UInt8) -> Bool {
        isDigit(byte) || (0x61...0x66).contains(byte | 0x20) || byte == UInt8(ascii: ":") || byte == UInt8(ascii: ".")
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        isDigit(byte) || (0x61...0x7A).contains(byte | 0x20) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "-")
            || byte == UInt8(ascii: "_")
    }
}
