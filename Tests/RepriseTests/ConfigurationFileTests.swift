// The configuration file: YAML and JSON, and the position of errors.

import Domain
import TestSupport
import Testing

@testable import reprise

struct ConfigurationFileTests {
    private let folder = TemporaryFolder()

    private func read(_ text: String) throws -> [String: String] {
        try ConfigurationFile.read(try folder.write(text, to: "reprise.yaml"))
    }

    private func message(_ text: String) async -> String? {
        let message = await exitMessage { try read(text) }
        if let message { #expect(message.code == 78) }
        return message?.message
    }

    @Test func yamlIsRead() throws {
        let values = try read(
            """
            # Where it listens.
            port: 9090
            host: "0.0.0.0"
            database: 'data/my reprise.db'   # quoted
            enable_monitoring: no
            cache_ttl_seconds: 1.50
            """)
        #expect(
            values == [
                "port": "9090", "host": "0.0.0.0", "database": "data/my reprise.db", "enable_monitoring": "no",
                "cache_ttl_seconds": "1.50",
            ])
    }

    @Test func jsonIsRead() throws {
        let values = try read(
            #"{"port": 9090, "host": "::", "enable_monitoring": false, "cache_ttl_seconds": 1.5, "#
                + #""database": "\u00e4.db"}"#
        )
        #expect(
            values == [
                "port": "9090", "host": "::", "enable_monitoring": "false", "cache_ttl_seconds": "1.5",
                "database": "ä.db",
            ])
    }

    @Test(arguments: ["", "# nothing\n", "{}", "---\n"])
    func anEmptyFileSetsNothing(text: String) throws {
        #expect(try read(text) == [:])
    }

    @Test(arguments: ["port: null", "port: ~", "port:", #"{"port": null}"#])
    func nullLeavesASettingAsItIs(text: String) throws {
        #expect(try read(text) == [:])
    }

    @Test func quotedItIsAText() throws {
        #expect(try read("host: 'null'\ndatabase: ''") == ["host": "null", "database": ""])
    }

    @Test func anUnknownNameIsRefusedWithItsLine() async {
        let message = await message("port: 1\nprot: 2\n")
        #expect(message?.contains("reprise.yaml, line 2: Unknown setting 'prot'. Did you mean 'port'? The") == true)
        #expect(message?.contains("cache_ttl_seconds, ") == true)
    }

    @Test func aNameTwiceIsRefused() async {
        #expect(await message("port: 1\nhost: a\nport: 2\n")?.contains("line 3: port is set twice") == true)
    }

    @Test(arguments: ["port: [1, 2]", "port: {a: 1}", "port:\n  - 1"])
    func onlySingleValuesAreTaken(text: String) async {
        #expect(await message(text)?.contains("line 1: port must be a single value") == true)
    }

    @Test(arguments: ["- port", "port", "[]", "8080"])
    func onlyAMappingIsTaken(text: String) async {
        #expect(await message(text)?.contains("must be a mapping of settings to values") == true)
    }

    @Test(arguments: ["port: 'a", "port: 1\n\thost: a", "{\"port\": 1", "port: @", "\u{1}"])
    func brokenSyntaxIsToldWithItsLine(text: String) async {
        #expect(await message(text)?.contains("reprise.yaml, line ") == true)
    }

    @Test func onlyOneDocumentIsTaken() async {
        #expect(await message("port: 1\n---\nhost: a\n")?.contains("line 2") == true)
    }

    @Test func aFileThatCannotBeReadIsTold() async {
        #expect(
            await exitMessage { try ConfigurationFile.read("/nowhere/x.yaml") }?.message
                == "/nowhere/x.yaml: cannot be read: No such file or directory")
        #expect(await exitMessage { try ConfigurationFile.read(folder.path) } != nil)
    }
}
