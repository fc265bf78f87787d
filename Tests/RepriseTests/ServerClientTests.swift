// Where the commands look for the server.

import ArgumentParser
import Domain
import Testing

@testable import reprise

struct ServerClientTests {
    private static let pair = ["tls_certificate_file=c.pem", "tls_key_file=k.pem"]

    private func settings(_ flags: String...) async throws -> Settings {
        try await SettingsOptions.parse(flags.flatMap { ["--set", $0] }).load(environment: [:])
    }

    private func client(
        _ flags: [String], _ settings: Settings = Settings(), _ environment: [String: String] = [:]
    ) throws -> ServerClient {
        try ServerClient(try ServerOptions.parse(flags), settings: settings, environment: environment)
    }

    @Test(arguments: [
        ("http://cache:8080", ServerClient.Endpoint.tcp(host: "cache", port: 8080), false, ""),
        ("http://cache", .tcp(host: "cache", port: 80), false, ""),
        ("https://cache.example.com/reprise/", .tcp(host: "cache.example.com", port: 443), true, "/reprise"),
        ("HTTPS://[::1]:8443", .tcp(host: "::1", port: 8443), true, ""),
        ("unix:/run/r.sock", .unix(path: "/run/r.sock"), false, ""),
    ])
    func aURLNamesTheServer(url: String, endpoint: ServerClient.Endpoint, isSecure: Bool, prefix: String) throws {
        for client in [try client(["--url", url]), try client([], Settings(), ["REPRISE_URL": url])] {
            #expect(client.endpoint == endpoint && (client.trust != nil) == isSecure && client.prefix == prefix)
        }
    }

    @Test(arguments: ["cache:8080", "ftp://cache", "http://", "http://user@cache", "http://cache?x=1", "unix:", "x"])
    func whatIsNotAURLIsRefused(url: String) async {
        let message = await exitMessage { _ = try client(["--url", url]) }
        #expect(message?.code == ExitMessage.wrongConfiguration && message?.message.contains(url) == true)
    }

    @Test func theSettingsNameTheServerOnThisMachine() async throws {
        #expect(try client([], try await settings("host=0.0.0.0")).endpoint == .tcp(host: "127.0.0.1", port: 8080))
        #expect(try client([], try await settings("host=::")).endpoint == .tcp(host: "::1", port: 8080))
        let secure = try client([], try await settings(Self.pair[0], Self.pair[1], "host=::"))
        #expect(secure.endpoint == .tcp(host: "::1", port: 8080) && secure.trust == .certificate(file: "c.pem"))
        let both = try client([], try await settings(Self.pair[0], Self.pair[1], "tls_port=1"))
        #expect(both.endpoint == .tcp(host: "127.0.0.1", port: 8080) && both.trust == nil)
        let authority = try client(["--ca-file", "ca.pem"], try await settings(Self.pair[0], Self.pair[1]))
        #expect(authority.trust == .authorities(file: "ca.pem"))
    }
}
