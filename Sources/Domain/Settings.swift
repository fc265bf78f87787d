// Every setting there is: name, default, bounds, unit, meaning. Flags, environment, file and README follow it.

import Synchronization

/// The value of a setting.
public enum SettingValue: Sendable, Equatable, CustomStringConvertible {
    case integer(Int)
    case decimal(Double)
    case text(String)

    public var description: String {
        switch self {
        case .integer(let value): String(value)
        case .decimal(let value): JSON.decimal(value).text
        case .text(let value): value
        }
    }
}

/// Where a setting's value came from, weakest first.
public enum SettingSource: String, Sendable, CaseIterable {
    case `default`, file, environment, flag
}

/// What can be set, and within what bounds.
public struct Setting: Sendable {
    public enum Kind: Sendable {
        case integer(ClosedRange<Int>)
        case decimal(ClosedRange<Double>)
        case choice([String])
        /// Any text that is not empty.
        case text
    }

    /// The name in configuration files. In the environment `REPRISE_` and upper case, as a flag with `-` for `_`.
    public let name: String
    public let kind: Kind
    public let defaultValue: SettingValue
    /// `seconds`, `bytes` or empty.
    public let unit: String
    public let summary: String

    public var environmentName: String { "REPRISE_" + name.uppercased() }

    /// Reads a value from its text.
    /// - Throws: `validation_failed` naming the setting and what it accepts.
    public func parse(_ text: String) throws(Failure) -> SettingValue {
        switch kind {
        case .integer(let range):
            guard let value = Int(text), range.contains(value) else { throw wrong(text) }
            return .integer(value)
        case .decimal(let range):
            guard let value = DecimalSeconds.parse(text), range.contains(value) else { throw wrong(text) }
            return .decimal(value)
        case .choice(let choices):
            guard choices.contains(text) else { throw wrong(text) }
            return .text(text)
        case .text:
            guard !text.isEmpty, !text.containsControlCharacter else { throw wrong(text) }
            return .text(text)
        }
    }

    private func wrong(_ text: String) -> Failure {
        .invalid(name, "'\(text)' is not \(accepted).")
    }

    /// What is accepted, in words.
    public var accepted: String {
        switch kind {
        case .integer(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .decimal(let range):
            "a number from \(JSON.decimal(range.lowerBound).text) to \(JSON.decimal(range.upperBound).text)"
        case .choice(let choices): "one of \(choices.joined(separator: ", "))"
        case .text: "a text that is not empty"
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
    public static let database = Setting(
        name: "database", kind: .text, defaultValue: .text("data/reprise.db"), unit: "",
        summary: "The SQLite file; it and its folder are created when missing.")
    public static let durability = Setting(
        name: "durability", kind: .choice(["full", "normal"]), defaultValue: .text("full"), unit: "",
        summary: "full: an acknowledged write survives power loss. normal: it survives a crash of the process.")
    public static let logLevel = Setting(
        name: "log_level", kind: .choice(["trace", "debug", "info", "notice", "warning", "error", "critical"]),
        defaultValue: .text("info"), unit: "", summary: "Least level written; debug has a line for each request.")
    public static let logFormat = Setting(
        name: "log_format", kind: .choice(["text", "json"]), defaultValue: .text("text"), unit: "",
        summary: "Log lines for people, or one JSON object each.")
    public static let cacheTTL = Setting(
        name: "cache_ttl_seconds", kind: .decimal(0.001...3_153_600_000), defaultValue: .decimal(300), unit: "seconds",
        summary: "Lifetime of a cache entry when neither it nor its namespace says.")
    public static let maxEntryBytes = Setting(
        name: "max_entry_bytes", kind: .integer(1...Limits.maxEntryBytesCeiling),
        defaultValue: .integer(64 * 1024 * 1024), unit: "bytes", summary: "Largest cached value.")
    public static let cleanupInterval = Setting(
        name: "memory_cleanup_interval", kind: .decimal(1...86_400), defaultValue: .decimal(600), unit: "seconds",
        summary: "Longest time between two runs of every background task.")
    public static let idleTimeout = Setting(
        name: "idle_timeout_seconds", kind: .decimal(1...3600), defaultValue: .decimal(60), unit: "seconds",
        summary: "A connection that sends nothing for so long is closed.")
    public static let shutdownTimeout = Setting(
        name: "shutdown_timeout_seconds", kind: .decimal(0.1...3600), defaultValue: .decimal(8), unit: "seconds",
        summary: "Time that requests under way get to finish at shutdown.")

    public static let all = [
        host, port, database, durability, logLevel, logFormat, cacheTTL, maxEntryBytes, cleanupInterval, idleTimeout,
        shutdownTimeout,
    ]
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

    public func integer(_ setting: Setting) -> Int {
        guard case .integer(let value) = value(of: setting) else { preconditionFailure("\(setting.name) is no integer") }
        return value
    }

    /// The value of a setting in seconds, as whole milliseconds.
    public func milliseconds(_ setting: Setting) -> Int64 {
        guard case .decimal(let value) = value(of: setting) else { preconditionFailure("\(setting.name) is no decimal") }
        return Int64((value * 1000).rounded())
    }
}

/// The settings in force, shared by everything that runs.
public final class LiveSettings: Sendable {
    private let settings: Mutex<Settings>

    public init(_ settings: Settings) {
        self.settings = Mutex(settings)
    }

    public var current: Settings { settings.withLock { $0 } }
}
