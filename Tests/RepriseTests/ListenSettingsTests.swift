// Where the settings have the server listen.

import ArgumentParser
import Domain
import TestSupport
import Testing

@testable import reprise

struct ListenSettingsTests {
    private func settings(_ flags: String...) async throws -> Settings {
        try await SettingsOptions.parse(flags.flatMap { ["--set", $0] }).load(environment: [:])
    }

    private static let pair = ["tls_certificate_file=c.pem", "tls_key_file=k.pem"]

    @Test func withoutACertificateThereIsHTTP() async throws {
        let listening = try ListenSettings(try await settings())
        #expect(listening.httpPort == 8080 && listening.httpsPort == nil && listening.unixSocket == nil)
    }

    @Test func aCertificateMakesThePortSecure() async throws {
        let listening = try ListenSettings(try await settings(Self.pair[0], Self.pair[1], "unix_socket=r.sock"))
        #expect(listening.httpPort == nil && listening.httpsPort == 8080 && listening.unixSocket == "r.sock")
        #expect(listening.certificate == .init(certificate: "c.pem", key: "k.pem"))
    }

    @Test func aSecondPortKeepsTheFirstPlain() async throws {
        let listening = try ListenSettings(try await settings(Self.pair[0], Self.pair[1], "tls_port=8443"))
        #expect(listening.httpPort == 8080 && listening.httpsPort == 8443)
        let free = try ListenSettings(try await settings(Self.pair[0], Self.pair[1], "tls_port=0", "port=0"))
        #expect(free.httpPort == 0 && free.httpsPort == 0)
    }

    @Test func anEmptyTextMeansNone() async throws {
        let listening = try ListenSettings(
            try await settings("tls_certificate_file=", "tls_key_file=", "tls_port=", "unix_socket="))
        #expect(listening == (try ListenSettings(Settings())))
    }

    @Test(arguments: [
        (["tls_certificate_file=c.pem"], "tls_key_file"), (["tls_key_file=k.pem"], "tls_certificate_file"),
        (["tls_port=8443"], "tls_certificate_file"), (pair + ["tls_port=8080"], "tls_port"),
    ])
    func halvesAreRefused(flags: [String], named: String) async throws {
        let settings = try await SettingsOptions.parse(flags.flatMap { ["--set", $0] }).load(environment: [:])
        let message = await exitMessage { _ = try ListenSettings(settings) }
        #expect(message?.code == ExitMessage.wrongConfiguration)
        #expect(message?.message.contains(named) == true)
    }
}
