// Settings from flags, environment and file: one precedence, and no invalid value accepted silently.

import ArgumentParser
import TestSupport
import Testing

@testable import Domain
@testable import reprise

struct SettingsOptionsTests {
    private let folder = TemporaryFolder()

    private func load(_ flags: [String], environment: [String: String] = [:]) async throws -> Settings {
        try await SettingsOptions.parse(flags).load(environment: environment)
    }

    private func message(_ flags: [String], environment: [String: String] = [:]) async -> String? {
        let message = await exitMessage { try await load(flags, environment: environment) }
        if let message { #expect(message.code == 78) }
        return message?.message
    }

    @Test func withoutAnythingTheDefaultsHold() async throws {
        let settings = try await load([])
        for setting in Setting.all {
            #expect(settings.value(of: setting) == setting.defaultValue)
            #expect(settings.source(of: setting) == .default)
        }
    }

    @Test func theFirstOfFlagEnvironmentFileDefaultHolds() async throws {
        let file = try folder.write("port: 1\n", to: "reprise.yaml")
        func port(_ flags: [String], _ environment: [String: String]) async throws -> [String] {
            let settings = try await load(flags, environment: environment)
            return [settings.text(.port), settings.source(of: .port).rawValue]
        }
        let environment = ["REPRISE_PORT": "2"]
        #expect(try await port(["--port", "3", "--config", file], environment) == ["3", "flag"])
        #expect(try await port(["--set", "port=3", "--config", file], environment) == ["3", "flag"])
        #expect(try await port(["--config", file], environment) == ["2", "environment"])
        #expect(try await port(["--config", file], [:]) == ["1", "file"])
        #expect(try await port([], [:]) == ["8080", "default"])
    }

    @Test(arguments: Setting.all)
    func everySettingHasEverySource(setting: Setting) async throws {
        let text: String
        switch setting.kind {
        case .integer(let range), .integerOrZero(let range): text = "\(range.upperBound)"
        case .decimal(let range), .decimalOrZero(let range): text = SettingValue.decimal(range.upperBound).description
        case .boolean: text = "false"
        case .choice(let choices): text = choices.last!
        case .text: text = "some text"
        case .hosts: text = "a.example,b.example"
        case .origins: text = "https://a.example,http://b.example:8080"
        }
        let value = try setting.parse(text)
        let file = try folder.write("\(setting.name): \(text)\n", to: "reprise.yaml")
        let environment = try await load([], environment: [setting.environmentName: text])
        let fromFile = try await load(["--config", file])
        if !setting.isSecret {
            let flag = try await load(["--set", "\(setting.name)=\(text)"])
            #expect(flag.value(of: setting) == value)
            #expect(flag.source(of: setting) == .flag)
        }
        #expect(environment.value(of: setting) == value)
        #expect(fromFile.value(of: setting) == value)
        #expect(environment.source(of: setting) == .environment)
        #expect(fromFile.source(of: setting) == .file)
    }

    @Test func theCommonOnesHaveFlagsOfTheirOwn() async throws {
        let settings = try await load([
            "--host", "::1", "--port", "0", "--database", "x.db", "--log-level", "debug", "--durability", "normal",
        ])
        let texts = [Setting.host, .port, .database, .logLevel, .durability].map { settings.text($0) }
        #expect(texts == ["::1", "0", "x.db", "debug", "normal"])
    }

    @Test func aValueMayHoldAnEqualsSign() async throws {
        #expect(try await load(["--set", "database=a=b.db"]).text(.database) == "a=b.db")
    }

    @Test func theEnvironmentMayNameTheFile() async throws {
        let one = try folder.write("port: 1", to: "one.yaml")
        let two = try folder.write("port: 2", to: "two.yaml")
        #expect(try await load([], environment: ["REPRISE_CONFIG": one]).integer(.port) == 1)
        #expect(try await load(["--config", two], environment: ["REPRISE_CONFIG": one]).integer(.port) == 2)
    }

    // MARK: Wrong values

    @Test func aWrongFlagIsNamed() async {
        #expect(await message(["--port", "http"]) == "flag port: 'http' is not a whole number from 0 to 65535.")
        #expect(
            await message(["--set", "cache_ttl_seconds=0"])?.hasPrefix("flag cache_ttl_seconds: '0' is not") == true)
        #expect(await message(["--set", "durability="])?.contains("one of full, normal") == true)
    }

    @Test func aWrongVariableIsNamed() async {
        let message = await message([], environment: ["REPRISE_LOG_LEVEL": "loud"])
        #expect(message?.hasPrefix("environment variable REPRISE_LOG_LEVEL: 'loud' is not one of") == true)
        #expect(await self.message([], environment: ["REPRISE_PORT": ""]) != nil)
    }

    @Test func kubernetesVariableIsExplained() async {
        let message = await message([], environment: ["REPRISE_PORT": "tcp://10.0.0.1:8080"])
        #expect(message?.contains("enableServiceLinks") == true)
    }

    @Test func aWrongValueInTheFileIsNamed() async throws {
        let file = try folder.write("port: 70000\n", to: "reprise.yaml")
        #expect(await message(["--config", file]) == "\(file): port: '70000' is not a whole number from 0 to 65535.")
    }

    @Test func aWrongValueIsNotOverlookedForAStrongerOne() async throws {
        // A value that is overridden is not read, so that a deployment can be repaired from outside.
        let file = try folder.write("port: 70000\n", to: "reprise.yaml")
        #expect(try await load(["--port", "1", "--config", file]).integer(.port) == 1)
    }

    // MARK: Unknown names

    @Test(arguments: ["port", ""])
    func onlyAssignmentsSetSettings(assignment: String) async {
        #expect(await message(["--set", assignment]) == "--set \(assignment): must be name=value")
    }

    @Test(arguments: [
        ("typo=1", "Unknown setting 'typo'. The settings are "), ("=1", "Unknown setting ''. The settings are "),
        ("Port=1", "Unknown setting 'Port'. Did you mean 'port'? The settings are "),
        (" port=1", "Unknown setting ' port'. Did you mean 'port'? The settings are "),
    ])
    func anUnknownNameToSetIsRefused(assignment: String, expected: String) async {
        #expect(await message(["--set", assignment])?.hasPrefix("--set \(assignment): \(expected)") == true)
    }

    @Test func anUnknownFlagIsRefused() async {
        await #expect(throws: (any Error).self) { try await load(["--typo", "1"]) }
    }

    @Test func otherVariablesAreIgnored() async throws {
        let environment = ["REPRISE_TYPO": "1", "PORT": "1", "REPRISE_SERVICE_HOST": "10.0.0.1", "reprise_port": "2"]
        #expect(try await load([], environment: environment).integer(.port) == 8080)
    }

    @Test func theHelpHasEverySetting() {
        for setting in Setting.all {
            #expect(SettingsHelp.table.contains("  \(setting.name) (default: \(setting.defaultValue)"))
            #expect(SettingsHelp.table.contains(setting.summary))
        }
    }

    // MARK: Secrets

    private static let secret = Setting(
        name: "test_secret", kind: .text, defaultValue: .text(""), unit: "", summary: "A secret.", isSecret: true)

    private func loadSecret(_ flags: [String] = [], _ environment: [String: String] = [:]) async throws -> String {
        let options = try SettingsOptions.parse(flags)
        return try await options.load(environment: environment, all: [Self.secret]).text(Self.secret)
    }

    @Test func aSecretComesFromTheEnvironmentOrAFile() async throws {
        #expect(try await loadSecret() == "")
        #expect(try await loadSecret([], ["REPRISE_TEST_SECRET": "s3cret"]) == "s3cret")
        let file = try folder.write("s3cret\r\n\n", to: "secret")
        #expect(try await loadSecret([], ["REPRISE_TEST_SECRET_FILE": file]) == "s3cret")
    }

    @Test func aSecretIsNoFlagAndHasOneSource() async throws {
        let flag = try #require(await exitMessage { try await loadSecret(["--set", "test_secret=s3cret"]) })
        #expect(flag.message.contains("REPRISE_TEST_SECRET_FILE"))
        let file = try folder.write("a", to: "secret")
        let large = try folder.write(String(repeating: "a", count: Limits.maxSecretFileBytes + 1), to: "large")
        for environment in [
            ["REPRISE_TEST_SECRET": "s3cret", "REPRISE_TEST_SECRET_FILE": file],
            ["REPRISE_TEST_SECRET_FILE": file + "/none"], ["REPRISE_TEST_SECRET_FILE": large],
            ["REPRISE_TEST_SECRET": "s3cret\u{1}"],
        ] {
            let message = try #require(await exitMessage { try await loadSecret([], environment) })
            #expect(message.code == ExitMessage.wrongConfiguration)
            #expect(!message.message.contains("s3cret"))
        }
        #expect(!flag.message.contains("s3cret"))
    }
}
