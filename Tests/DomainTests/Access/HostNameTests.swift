// Hosts and origins in texts.

import Domain
import Testing

struct HostNameTests {
    @Test(arguments: [
        ("a.example", "a.example"), ("A.Example:80", "a.example"), ("[::1]:80", "::1"), ("[FD00::1]", "fd00::1"),
        ("127.0.0.1:8080", "127.0.0.1"), ("a:", "a"),
    ])
    func theHostOfAnAuthority(text: String, host: String) { #expect(HostName.host(of: text) == host) }

    @Test(arguments: ["", ":80", "a:b", "a b", "u@a", "a/b", "[::1", "[::1]x", "[g::]", "::1", "a:1:2", "é", "[]"])
    func whatIsNoAuthority(text: String) { #expect(HostName.host(of: text) == nil) }

    @Test(arguments: [
        ("http://a.example", "http://a.example"), ("HTTPS://A.example:443", "https://a.example"),
        ("http://a:80", "http://a"), ("http://a:8080", "http://a:8080"), ("https://a:80", "https://a:80"),
        ("http://[::1]:80", "http://[::1]"),
    ])
    func originsAreNormalized(text: String, origin: String) { #expect(HostName.origin(text) == origin) }

    @Test(arguments: ["", "null", "a", "http://", "http://a/", "http://a:", "file:///x", "http://a b", "*", "http://*"])
    func whatIsNoOrigin(text: String) { #expect(HostName.origin(text) == nil) }

    @Test(arguments: ["localhost", "Localhost.", "x.localhost", "127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"])
    func loopback(host: String) { #expect(HostName.isLoopback(host)) }

    @Test(arguments: ["", "0.0.0.0", "::", "localhost.example", "127.0.0.1.example", "127.0.0.0.1", "127.0.0.x", "::2"])
    func notLoopback(host: String) { #expect(!HostName.isLoopback(host)) }

    @Test func settingsTakeLists() throws {
        #expect(try Setting.allowedHosts.parse("") == .text(""))
        #expect(try Setting.allowedHosts.parse(" A.example , b:80,") == .text("a.example,b"))
        let origins = try Setting.allowedOrigins.parse("https://A.example:443,http://b")
        #expect(origins == .text("https://a.example,http://b"))
        let wrong: [(Setting, String)] = [
            (.allowedHosts, "a/b"), (.allowedOrigins, "https://a,b"), (.allowedHosts, "a b"),
        ]
        for (setting, text) in wrong {
            #expect(throws: Failure.self) { try setting.parse(text) }
        }
        let many = (0...Limits.maxAllowedNames).map { "h\($0)" }.joined(separator: ",")
        #expect(throws: Failure.self) { try Setting.allowedHosts.parse(many) }
    }
}
