// Settings: what is accepted, and what is in force.

import Testing

@testable import Domain

struct SettingsTests {
    @Test(
        arguments: [
            (.port, "0", .integer(0)), (.port, "65535", .integer(65_535)),
            (.maxEntryBytes, "1073741824", .integer(1 << 30)),
            (.cacheTTL, "0.001", .decimal(0.001)), (.cacheTTL, "300", .decimal(300)),
            (.enableMonitoring, "true", .boolean(true)), (.enableMonitoring, "No", .boolean(false)),
            (.enableMonitoring, "on", .boolean(true)), (.enableMonitoring, "0", .boolean(false)),
            (.logLevel, "debug", .text("debug")), (.durability, "normal", .text("normal")), (.host, "::", .text("::")),
        ] as [(Setting, String, SettingValue)])
    func isRead(setting: Setting, text: String, value: SettingValue) throws {
        #expect(try setting.parse(text) == value)
    }

    @Test(
        arguments: [
            (.port, "65536"), (.port, "-1"), (.port, "80.5"), (.port, "http"), (.port, ""), (.port, " 80"),
            (.maxDatabaseBytes, "1"), (.maxDatabaseBytes, "-1"), (.maxDatabaseBytes, "67108863"), (.maxEntryBytes, "0"),
            (.maxEntryBytes, "1073741825"), (.maxEntryBytes, "99999999999999999999"),
            (.cacheTTL, "0"), (.cacheTTL, "-5"), (.cacheTTL, "1e3"), (.cacheTTL, "none"), (.cleanupInterval, "0.5"),
            (.enableMonitoring, "maybe"), (.enableMonitoring, ""), (.logLevel, "loud"), (.logLevel, "INFO"),
            (.durability, ""), (.host, ""), (.database, "a\u{0}b"), (.database, "a\nb"),
        ] as [(Setting, String)])
    func isRefused(setting: Setting, text: String) {
        #expect(invalidFields { _ = try setting.parse(text) } == [setting.name])
    }

    @Test func ofJSONTheTypeMustBeRight() throws {
        #expect(try Setting.port.parse(JSON.integer(80)) == .integer(80))
        #expect(try Setting.maxDatabaseBytes.parse(JSON.integer(0)) == .integer(0))
        #expect(try Setting.cacheTTL.parse(JSON.decimal(1.5)) == .decimal(1.5))
        #expect(try Setting.enableMonitoring.parse(JSON.bool(false)) == .boolean(false))
        #expect(try Setting.logLevel.parse(JSON.string("debug")) == .text("debug"))
        for (setting, json): (Setting, JSON) in [
            (.maxDatabaseBytes, 1), (.maxDatabaseBytes, nil), (.port, "80"), (.port, .number("80.5")), (.port, 65_536),
            (.cacheTTL, "1"), (.cacheTTL, 0),
            (.enableMonitoring, "true"), (.enableMonitoring, 1), (.logLevel, "loud"), (.host, nil), (.host, 1),
        ] {
            #expect(invalidFields { _ = try setting.parse(json) } == [setting.name])
        }
    }

    @Test(arguments: Setting.all)
    func aDefaultIsWithinItsBounds(setting: Setting) throws {
        // A secret's default means that there is none.
        let none = setting.isSecret ? SettingValue.text("") : nil
        #expect(try setting.defaultValue == none ?? setting.parse(setting.defaultValue.description))
        #expect(!setting.summary.isEmpty)
        #expect(Setting.named(setting.name)?.name == setting.name)
        #expect(setting.environmentName == "REPRISE_" + setting.name.uppercased())
    }

    @Test func namesAreUnique() {
        #expect(Set(Setting.all.map(\.name)).count == Setting.all.count)
    }

    @Test func whatIsSetIsInForce() {
        var settings = Settings()
        #expect(settings.integer(.port) == 8080)
        #expect(settings.source(of: .port) == .default)
        settings.set(.port, to: .integer(1), source: .file)
        settings.set(.cacheTTL, to: .decimal(0.0015), source: .flag)
        #expect(settings.integer(.port) == 1)
        #expect(settings.source(of: .port) == .file)
        #expect(settings.milliseconds(.cacheTTL) == 2)
        #expect(settings.text(.cacheTTL) == "0.0015")
    }
}

struct LiveSettingsTests {
    private func overrides(_ values: [String: String], version: Int) -> SettingOverrides {
        SettingOverrides(values: values, version: version)
    }

    @Test func runtimeValuesGoBeforeOthersUntilDropped() {
        var base = Settings()
        base.set(.cacheTTL, to: .decimal(60), source: .flag)
        let live = LiveSettings(base)
        #expect(live.apply(overrides(["cache_ttl_seconds": "5"], version: 1)) == [])
        #expect(live.current.milliseconds(.cacheTTL) == 5000)
        #expect(live.current.source(of: .cacheTTL) == .runtime)
        live.apply(overrides([:], version: 2))
        #expect(live.current.milliseconds(.cacheTTL) == 60_000)
        #expect(live.current.source(of: .cacheTTL) == .flag)
    }

    @Test func anOlderVersionChangesNothing() {
        let live = LiveSettings(Settings())
        live.apply(overrides(["cache_ttl_seconds": "5"], version: 2))
        live.apply(overrides(["cache_ttl_seconds": "7"], version: 1))
        live.apply(overrides(["cache_ttl_seconds": "8"], version: 2))
        #expect(live.current.milliseconds(.cacheTTL) == 5000)
    }

    @Test func whatIsNotAcceptedStaysOut() {
        let live = LiveSettings(Settings())
        let refused = live.apply(
            overrides(["cache_ttl_seconds": "0", "port": "1", "gone": "1", "log_level": "debug"], version: 1))
        #expect(refused == ["cache_ttl_seconds", "gone", "port"])
        #expect(live.current.milliseconds(.cacheTTL) == 300_000)
        #expect(live.current.integer(.port) == 8080)
        #expect(live.current.text(.logLevel) == "debug")
    }

    @Test func observersAreToldNowAndAfterEachChange() async {
        let live = LiveSettings(Settings())
        await confirmation(expectedCount: 2) { told in
            live.observe { _ in told() }
            live.apply(overrides(["log_level": "debug"], version: 1))
            live.apply(overrides(["log_level": "error"], version: 1))
        }
    }

    @Test func aSecretIsNotShown() throws {
        let secret = Setting(
            name: "test_secret", kind: .text, defaultValue: .text(""), unit: "", summary: "A secret.", isSecret: true)
        #expect(secret.shown(.text("s3cret")) == "(secret)")
        #expect(secret.shown(.text("")) == .null)
        #expect(Setting.host.shown(.text("::")) == "::")
        let failure = #expect(throws: Failure.self) { try secret.parse("s3cret\n") }
        #expect(failure?.errors.first?.message == "must be a non-empty text.")
    }

    /// What is changed at run time is stored in the database.
    @Test func noSecretIsChangedAtRunTime() {
        #expect(!Setting.all.contains { $0.isSecret && $0.isMutable })
    }

    @Test func onlyZeroIsZero() throws {
        for text in ["0", "0.0", "60"] { #expect(throws: Never.self) { try Setting.backupInterval.parse(text) } }
        for text in ["0.0001", "1e-42", "59.9", "-1"] {
            #expect(throws: Failure.self) { try Setting.backupInterval.parse(text) }
            #expect(throws: Failure.self) { try Setting.backupInterval.parse(JSON(parsing: Array(text.utf8))) }
        }
    }
}
