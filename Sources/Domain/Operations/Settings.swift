// Every setting there is: name, default, bounds, unit, meaning. Flags, environment, file and README follow it.

import Synchronization

/// The value of a setting.
public enum SettingValue: Sendable, Equatable, CustomStringConvertible {
    case integer(Int)
    case decimal(Double)
    case boolean(Bool)
    case text(String)

    public var description: String {
        switch self {
        case .integer(let value): String(value)
        case .decimal(let value): JSON.decimal(value).text
        case .boolean(let value): String(value)
        case .text(let value): value
        }
    }

    public var json: JSON {
        switch self {
        case .integer(let value): .integer(value)
        case .decimal(let value): .decimal(value)
        case .boolean(let value): .bool(value)
        case .text(let value): .string(value)
        }
    }
}

/// Where a setting's value came from, weakest first.
public enum SettingSource: String, Sendable, CaseIterable {
    case `default`, file, environment, flag, runtime
}

/// What can be set, and within what bounds.
public struct Setting: Sendable {
    public enum Kind: Sendable {
        case integer(ClosedRange<Int>)
        /// An integer in the range, or 0 for none.
        case integerOrZero(ClosedRange<Int>)
        case decimal(ClosedRange<Double>)
        /// 0 for none, or a value in the range.
        case decimalOrZero(ClosedRange<Double>)
        case boolean
        case choice([String])
        /// Any text that is not empty.
        case text
        /// Host names or addresses, separated by commas; may be empty.
        case hosts
        /// Origins of web pages, `scheme://host[:port]`, separated by commas; may be empty.
        case origins
    }

    /// The name in configuration files. In the environment `REPRISE_` and upper case, as a flag with `-` for `_`.
    public let name: String
    public let kind: Kind
    public let defaultValue: SettingValue
    /// `seconds`, `bytes` or empty.
    public let unit: String
    public let summary: String
    /// Whether it can be changed while the service runs.
    public var isMutable = false
    /// Whether nobody may see its value: it is left out of answers, errors and logs. It cannot be given as a flag,
    /// which every user of the machine can see, or at run time, because it would be stored in the database.
    public var isSecret = false

    /// Whether it can be left out, which an empty text means too.
    private var isOptional: Bool { defaultValue == .text("") && !isSecret }

    public var environmentName: String { "REPRISE_" + name.uppercased() }
    /// For a secret: the environment variable that names a file with the value, as container platforms mount secrets.
    public var environmentFileName: String { environmentName + "_FILE" }

    /// A value as it may be shown; of a secret only whether there is one.
    public func shown(_ value: SettingValue) -> JSON {
        guard isSecret else { return value.json }
        return value == defaultValue ? .null : .string("(secret)")
    }

    /// Reads a value from its text.
    /// - Throws: `validation_failed` naming the setting and what it accepts.
    public func parse(_ text: String) throws(Failure) -> SettingValue {
        if text.isEmpty, isOptional { return defaultValue }
        switch kind {
        case .integer(let range):
            guard let value = Int(text), range.contains(value) else { throw wrong(text) }
            return .integer(value)
        case .integerOrZero(let range):
            guard let value = Int(text), value == 0 || range.contains(value) else { throw wrong(text) }
            return .integer(value)
        case .decimal(let range):
            guard let value = DecimalSeconds.parse(text).map(Self.rounded), range.contains(value) else {
                throw wrong(text)
            }
            return .decimal(value)
        case .decimalOrZero(let range):
            guard let value = DecimalSeconds.parse(text).flatMap({ Self.rounded($0, toZeroOr: range) }) else {
                throw wrong(text)
            }
            return .decimal(value)
        case .boolean:
            switch text.lowercased() {
            case "true", "yes", "on", "1": return .boolean(true)
            case "false", "no", "off", "0": return .boolean(false)
            default: throw wrong(text)
            }
        case .choice(let choices):
            guard choices.contains(text) else { throw wrong(text) }
            return .text(text)
        case .text:
            guard !text.isEmpty, !text.containsControlCharacter else { throw wrong(text) }
            return .text(text)
        case .hosts: return try list(text) { HostName.host(of: $0) }
        case .origins: return try list(text) { HostName.origin($0) }
        }
    }

    /// Reads a value from a request's JSON, where a number must be a number.
    /// - Throws: `validation_failed` naming the setting and what it accepts.
    public func parse(_ json: JSON) throws(Failure) -> SettingValue {
        switch (kind, json) {
        case (.integer(let range), .number):
            guard let value = json.integerValue, range.contains(Int(value)) else { throw wrong(json.text) }
            return .integer(Int(value))
        case (.integerOrZero(let range), .number):
            guard let value = json.integerValue, value == 0 || range.contains(Int(value)) else {
                throw wrong(json.text)
            }
            return .integer(Int(value))
        case (.decimal(let range), .number):
            guard let value = json.doubleValue.map(Self.rounded), range.contains(value) else { throw wrong(json.text) }
            return .decimal(value)
        case (.decimalOrZero(let range), .number):
            guard let value = json.doubleValue.flatMap({ Self.rounded($0, toZeroOr: range) }) else {
                throw wrong(json.text)
            }
            return .decimal(value)
        case (.boolean, .bool(let value)): return .boolean(value)
        case (.choice, .string(let text)), (.text, .string(let text)), (.hosts, .string(let text)),
            (.origins, .string(let text)):
            return try parse(text)
        default: throw wrong(json.text)
        }
    }

    /// The items of a list, each as `convert` writes it.
    private func list(_ text: String, _ convert: (String) -> String?) throws(Failure) -> SettingValue {
        var items: [String] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: true) {
            let item = part.split(separator: " ").joined(separator: " ")
            guard let item = convert(item) else { throw wrong(text) }
            items.append(item)
        }
        guard items.count <= Limits.maxAllowedNames else { throw wrong(text) }
        return .text(items.joined(separator: ","))
    }

    /// Decimal settings are seconds, and the service counts whole milliseconds.
    private static func rounded(_ seconds: Double) -> Double { (seconds * 1000).rounded() / 1000 }

    /// - Returns: nil for what is neither 0 nor in the range. What is rounded to 0 is not 0, which means something
    ///   else.
    private static func rounded(_ seconds: Double, toZeroOr range: ClosedRange<Double>) -> Double? {
        seconds == 0 || range.contains(rounded(seconds)) ? rounded(seconds) : nil
    }

    private func wrong(_ text: String) -> Failure {
        .invalid(name, isSecret ? "must be \(accepted)." : "'\(text)' is not \(accepted).")
    }

    /// What is accepted, in words.
    public var accepted: String {
        switch kind {
        case .integer(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .integerOrZero(let range):
            "0 for none, or a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .decimal(let range):
            "a number from \(JSON.decimal(range.lowerBound).text) to \(JSON.decimal(range.upperBound).text)"
        case .decimalOrZero(let range):
            "0, or a number from \(JSON.decimal(range.lowerBound).text) to \(JSON.decimal(range.upperBound).text)"
        case .boolean: "true or false"
        case .choice(let choices): "one of \(choices.joined(separator: ", "))"
        case .text: "a non-empty text"
        case .hosts: "a list of at most \(Limits.maxAllowedNames) host names or addresses, separated by commas"
        case .origins:
            "a list of at most \(Limits.maxAllowedNames) origins such as https://app.example, separated by commas"
        }
    }
}

extension Setting {
    public static let host = Setting(
        name: "host", kind: .text, defaultValue: .text("127.0.0.1"), unit: "",
        summary: "Address to listen on; 0.0.0.0 or :: for all.")
    public static let port = Setting(
        name: "port", kind: .integer(0...65_535), defaultValue: .integer(8080), unit: "",
        summary: "Port to listen on; 0 picks a free one.")
    public static let tlsCertificate = Setting(
        name: "tls_certificate_file", kind: .text, defaultValue: .text(""), unit: "",
        summary: "PEM file of the certificate and its intermediates; with it, port speaks HTTPS.")
    public static let tlsKey = Setting(
        name: "tls_key_file", kind: .text, defaultValue: .text(""), unit: "",
        summary: "PEM file of the certificate's private key.")
    public static let tlsPort = Setting(
        name: "tls_port", kind: .integer(0...65_535), defaultValue: .text(""), unit: "",
        summary: "Port for HTTPS, so that port keeps speaking HTTP; 0 picks a free one.")
    public static let unixSocket = Setting(
        name: "unix_socket", kind: .text, defaultValue: .text(""), unit: "",
        summary: "Path of a Unix domain socket to listen on as well; only this user can connect to it.")
    public static let database = Setting(
        name: "database", kind: .text, defaultValue: .text("data/reprise.db"), unit: "",
        summary: "The SQLite file; the file and its folder are created if missing.")
    public static let durability = Setting(
        name: "durability", kind: .choice(["full", "normal"]), defaultValue: .text("full"), unit: "",
        summary: "full: acknowledged writes survive power loss. normal: they survive a crash of the process.")
    public static let logLevel = Setting(
        name: "log_level", kind: .choice(["trace", "debug", "info", "notice", "warning", "error", "critical"]),
        defaultValue: .text("info"), unit: "", summary: "Minimum log level; debug logs every request.",
        isMutable: true)
    public static let logFormat = Setting(
        name: "log_format", kind: .choice(["text", "json"]), defaultValue: .text("text"), unit: "",
        summary: "Format of log lines: text for people, or one JSON object per line.")
    public static let cacheTTL = Setting(
        name: "cache_ttl_seconds", kind: .decimal(0.001...3_153_600_000), defaultValue: .decimal(300), unit: "seconds",
        summary: "Lifetime of a cache entry if neither the entry nor its namespace sets one.", isMutable: true)
    public static let maxEntryBytes = Setting(
        name: "max_entry_bytes", kind: .integer(1...Limits.maxEntryBytesCeiling),
        defaultValue: .integer(64 * 1024 * 1024), unit: "bytes", summary: "Maximum size of a cached value.",
        isMutable: true)
    public static let maxDatabaseBytes = Setting(
        name: "max_database_bytes", kind: .integerOrZero(Limits.leastDatabaseBytes...Limits.maxDatabaseBytesCeiling),
        defaultValue: .integer(0), unit: "bytes",
        summary: "Maximum size of the database with its log; entries of the cache give way. 0 for none.",
        isMutable: true)
    public static let cleanupInterval = Setting(
        name: "memory_cleanup_interval", kind: .decimal(1...86_400), defaultValue: .decimal(600), unit: "seconds",
        summary: "Maximum time between two runs of each background task.", isMutable: true)
    public static let maxHistoryItems = Setting(
        name: "max_history_items", kind: .integer(1...Limits.maxHistoryItems), defaultValue: .integer(20),
        unit: "items",
        summary: "History items a session keeps if neither the session nor its template sets a number.",
        isMutable: true)
    public static let enableMonitoring = Setting(
        name: "enable_monitoring", kind: .boolean, defaultValue: .boolean(true), unit: "",
        summary: "Whether hits and misses are counted and samples are kept.", isMutable: true)
    public static let debounceDelay = Setting(
        name: "debounce_delay", kind: .decimal(0...86_400), defaultValue: .decimal(0.5), unit: "seconds",
        summary: "Time after an allowed call during which a debounce refuses further calls.", isMutable: true)
    public static let sessionTTL = Setting(
        name: "session_ttl_seconds", kind: .decimal(0.001...3_153_600_000), defaultValue: .decimal(86_400),
        unit: "seconds", summary: "Lifetime of an idle session if neither the session nor its template sets one.",
        isMutable: true)
    public static let sampleRetention = Setting(
        name: "sample_retention_seconds", kind: .decimal(60...31_536_000), defaultValue: .decimal(604_800),
        unit: "seconds", summary: "How long individual performance samples are kept.", isMutable: true)
    public static let rollupRetention = Setting(
        name: "sample_rollup_retention_seconds", kind: .decimal(3600...315_360_000), defaultValue: .decimal(7_776_000),
        unit: "seconds", summary: "How long roll-ups by minute, hour and six hours are kept.", isMutable: true)
    public static let authentication = Setting(
        name: "authentication", kind: .choice(["auto", "required", "none"]), defaultValue: .text("auto"), unit: "",
        summary: "Whether callers need a token. auto: yes, except while none exists and only this machine can connect.")
    public static let adminToken = Setting(
        name: "admin_token", kind: .text, defaultValue: .text(""), unit: "",
        summary: "A token that may do everything, to begin with.", isSecret: true)
    public static let allowedHosts = Setting(
        name: "allowed_hosts", kind: .hosts, defaultValue: .text(""), unit: "",
        summary: "Further names that clients may use for this server, separated by commas.")
    public static let allowedOrigins = Setting(
        name: "allowed_origins", kind: .origins, defaultValue: .text(""), unit: "",
        summary: "Origins of web pages that may call this server, such as https://app.example.")
    public static let backupDirectory = Setting(
        name: "backup_directory", kind: .text, defaultValue: .text("backups"), unit: "",
        summary: "Folder of the backups; a relative path begins at the folder of the database.")
    public static let backupKeep = Setting(
        name: "backup_keep", kind: .integer(1...Limits.maxBackups), defaultValue: .integer(7), unit: "backups",
        summary: "Backups to keep; each new one removes the oldest beyond this number.", isMutable: true)
    public static let backupInterval = Setting(
        name: "backup_interval_seconds", kind: .decimalOrZero(60...31_536_000), defaultValue: .decimal(0),
        unit: "seconds", summary: "Time between two backups made by the server itself; 0 makes none.", isMutable: true)
    public static let idleTimeout = Setting(
        name: "idle_timeout_seconds", kind: .decimal(1...3600), defaultValue: .decimal(60), unit: "seconds",
        summary: "A connection that sends nothing for this long is closed.")
    public static let shutdownTimeout = Setting(
        name: "shutdown_timeout_seconds", kind: .decimal(0.1...3600), defaultValue: .decimal(8), unit: "seconds",
        summary: "Time that requests in progress have to finish at shutdown.")

    public static let all = [
        cacheTTL, maxHistoryItems, cleanupInterval, enableMonitoring, debounceDelay, sessionTTL, maxEntryBytes,
        maxDatabaseBytes, sampleRetention, rollupRetention, backupKeep, backupInterval, host, port, tlsCertificate,
        tlsKey, tlsPort, unixSocket, authentication, adminToken, allowedHosts, allowedOrigins, database,
        backupDirectory, durability, logLevel, logFormat, idleTimeout, shutdownTimeout,
    ]
}

extension Setting {
    public static func named(_ name: String) -> Setting? { all.first { $0.name == name } }

    /// What is wrong with a name that no setting has, and which one may be meant.
    public static func unknown(_ name: String) -> String {
        "Unknown setting '\(name)'." + Suggestion.text(for: name, among: all.map(\.name))
    }
}

/// The values in force, each with its source.
public struct Settings: Sendable {
    private var values: [String: (value: SettingValue, source: SettingSource)] = [:]

    /// All defaults.
    public init() {}

    public mutating func set(_ setting: Setting, to value: SettingValue, source: SettingSource) {
        values[setting.name] = (value, source)
    }

    public func value(of setting: Setting) -> SettingValue { values[setting.name]?.value ?? setting.defaultValue }
    public func source(of setting: Setting) -> SettingSource { values[setting.name]?.source ?? .default }

    public func text(_ setting: Setting) -> String { value(of: setting).description }

    /// The items of a list.
    public func list(_ setting: Setting) -> [String] {
        text(setting).split(separator: ",").map(String.init)
    }

    public func integer(_ setting: Setting) -> Int {
        guard case .integer(let value) = value(of: setting) else {
            preconditionFailure("\(setting.name) is no integer")
        }
        return value
    }

    /// The value of a setting whose default means "none".
    public func optionalText(_ setting: Setting) -> String? {
        let text = text(setting)
        return text.isEmpty ? nil : text
    }

    /// The value of a setting whose default means "none".
    public func optionalInteger(_ setting: Setting) -> Int? {
        guard case .integer(let value) = value(of: setting) else { return nil }
        return value
    }

    public func boolean(_ setting: Setting) -> Bool {
        guard case .boolean(let value) = value(of: setting) else {
            preconditionFailure("\(setting.name) is no boolean")
        }
        return value
    }

    /// The value of a setting in seconds, as whole milliseconds.
    public func milliseconds(_ setting: Setting) -> Int64 {
        guard case .decimal(let value) = value(of: setting) else {
            preconditionFailure("\(setting.name) is no decimal")
        }
        return Int64((value * 1000).rounded())
    }
}

/// Values given at run time, as the storage keeps them.
public struct SettingOverrides: Sendable, Equatable {
    /// Text by the setting's name.
    public var values: [String: String]
    /// Goes up with each change.
    public var version: Int

    public init(values: [String: String], version: Int) {
        self.values = values
        self.version = version
    }
}

/// What every storage engine promises about settings changed at run time.
public protocol SettingsStore: Sendable {
    func settingOverrides() async throws -> SettingOverrides

    /// Changes several as one; nil removes.
    /// - Parameter version: that of the overrides the change was decided on; nil for whatever is there.
    /// - Returns: what is in force afterwards; nil, with nothing changed, when the version is another by now.
    func changeSettingOverrides(_ changes: [String: String?], of version: Int?) async throws -> SettingOverrides?
}

/// The settings in force, shared by everything that runs.
public final class LiveSettings: Sendable {
    private struct State {
        var base: Settings
        var current: Settings
        var overridesVersion = -1
        var observers: [@Sendable (Settings) -> Void] = []
    }

    private let state: Mutex<State>

    /// - Parameter base: what flags, environment, file and defaults say.
    public init(_ base: Settings) {
        state = Mutex(State(base: base, current: base))
    }

    public var current: Settings { state.withLock { $0.current } }

    /// The settings in force, and the version of the overrides among them.
    public var versioned: (settings: Settings, version: Int) {
        state.withLock { ($0.current, $0.overridesVersion) }
    }

    /// Calls `observer` now and after each change, in the order of the changes. It must not call back.
    public func observe(_ observer: @escaping @Sendable (Settings) -> Void) {
        state.withLock { state in
            state.observers.append(observer)
            observer(state.current)
        }
    }

    /// Applies the values set at run time; a version older than the current one changes nothing.
    /// - Returns: names with a stored value that this program does not accept; their other sources stay in force.
    @discardableResult
    public func apply(_ overrides: SettingOverrides) -> [String] {
        state.withLock { state in
            guard overrides.version > state.overridesVersion else { return [] }
            state.overridesVersion = overrides.version
            state.current = state.base
            var refused: [String] = []
            for (name, text) in overrides.values {
                if let setting = Setting.named(name), setting.isMutable, let value = try? setting.parse(text) {
                    state.current.set(setting, to: value, source: .runtime)
                } else {
                    refused.append(name)
                }
            }
            for observer in state.observers { observer(state.current) }
            return refused.sorted()
        }
    }
}
