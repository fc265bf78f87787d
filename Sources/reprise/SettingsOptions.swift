// Settings from flags, environment and file, in one order.

import ArgumentParser
import Configuration
import Domain
import FoundationEssentials
import Glibc

/// The flags that set settings. Any setting can be given with `--set`; the common ones have flags of their own.
struct SettingsOptions: ParsableArguments {
    @Option(help: "Address to listen on (default: 127.0.0.1).") var host: String?
    @Option(help: "Port to listen on; 0 picks a free one (default: 8080).") var port: String?
    @Option(help: ArgumentHelp("The SQLite file (default: data/reprise.db).", valueName: "file")) var database: String?
    @Option(help: ArgumentHelp("A configuration file, YAML or JSON (environment: REPRISE_CONFIG).", valueName: "file"))
    var config: String?
    @Option(
        name: .customLong("log-level"), help: "trace, debug, info, notice, warning, error or critical (default: info).")
    var logLevel: String?
    @Option(help: "full or normal (default: full): whether an acknowledged write survives power loss.")
    var durability: String?
    @Option(help: ArgumentHelp("Sets any setting; can be repeated.", valueName: "name=value")) var set: [String] = []

    /// The settings in force: precedence is flag, environment, file, default.
    /// - Parameter all: the settings there are.
    /// - Throws: ``ExitMessage`` naming where the error is.
    func load(
        environment: [String: String] = ProcessInfo.processInfo.environment, all: [Setting] = Setting.all
    ) async throws(ExitMessage) -> Settings {
        let file = config ?? environment["REPRISE_CONFIG"]
        let secretFiles = all.filter { $0.isSecret && environment[$0.environmentFileName] != nil }.map(\.name)
        let environment = try Self.readingSecretFiles(environment, of: all)
        let sources: [(source: SettingSource, values: ConfigReader)] = [
            (.flag, try flags(all).reader(named: "flags")),
            (.environment, environmentReader(environment)),
            (
                .file,
                try (file.map { path throws(ExitMessage) in try ConfigurationFile.read(path) } ?? [:]).reader(
                    named: "file")
            ),
        ]
        warnOfUnknown(environment, all)
        var settings = Settings()
        for setting in all {
            for (source, values) in sources {
                guard let text = values.string(forKey: ConfigKey([setting.name])) else { continue }
                do throws(Failure) {
                    settings.set(setting, to: try setting.parse(text), source: source)
                } catch {
                    let isInSecretFile = source == .environment && secretFiles.contains(setting.name)
                    let place = Self.place(of: setting, source, file: file, isInSecretFile: isInSecretFile)
                    throw ExitMessage(
                        message: "\(place): \(error.errors[0].message)"
                            + Self.hint(text, source), code: ExitMessage.wrongConfiguration)
                }
                break
            }
        }
        return settings
    }

    /// Adds the secrets whose file is named, without the line break that editors put at the end.
    private static func readingSecretFiles(
        _ environment: [String: String], of all: [Setting]
    ) throws(ExitMessage) -> [String: String] {
        var environment = environment
        for setting in all where setting.isSecret {
            guard let path = environment.removeValue(forKey: setting.environmentFileName) else { continue }
            guard environment[setting.environmentName] == nil else {
                throw ExitMessage(
                    message: "\(setting.environmentName) and \(setting.environmentFileName) are both set: use one.",
                    code: ExitMessage.wrongConfiguration)
            }
            environment[setting.environmentName] = try SecretFile.read(path, namedBy: setting.environmentFileName)
        }
        return environment
    }

    private func flags(_ all: [Setting]) throws(ExitMessage) -> [String: String] {
        var values: [String: String] = [:]
        for assignment in set {
            let parts = assignment.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(
                String.init)
            guard parts.count == 2 else {
                throw ExitMessage(
                    message: "--set \(assignment): must be name=value", code: ExitMessage.wrongConfiguration)
            }
            guard let setting = all.first(where: { $0.name == parts[0] }) else {
                throw ExitMessage(
                    message: "--set \(assignment): \(Setting.unknown(parts[0])) The settings are "
                        + all.map(\.name).joined(separator: ", "), code: ExitMessage.wrongConfiguration)
            }
            guard !setting.isSecret else {
                throw ExitMessage(
                    message: "--set \(setting.name): a secret cannot be a flag, because other users can see it in the "
                        + "list of processes. Set \(setting.environmentFileName) to the path of a file that contains "
                        + "it, or \(setting.environmentName).", code: ExitMessage.wrongConfiguration)
            }
            values[parts[0]] = parts[1]
        }
        let named: [(Setting, String?)] = [
            (.host, host), (.port, port), (.database, database), (.logLevel, logLevel), (.durability, durability),
        ]
        for (setting, value) in named { if let value { values[setting.name] = value } }
        return values
    }

    private func environmentReader(_ environment: [String: String]) -> ConfigReader {
        ConfigReader(provider: EnvironmentVariablesProvider(environmentVariables: environment))
            .scoped(to: ConfigKey(["reprise"]))
    }

    /// A mistyped variable would otherwise be ignored silently. It is not an error, because Kubernetes sets
    /// `REPRISE_SERVICE_HOST` and the like by itself for a Service called "reprise".
    private func warnOfUnknown(_ environment: [String: String], _ all: [Setting]) {
        let known = Set(
            all.map(\.environmentName) + ["REPRISE_CONFIG", ServerOptions.urlVariable, ServerOptions.tokenVariable])
        for name in environment.keys.sorted() where name.hasPrefix("REPRISE_") && !known.contains(name) {
            let isKubernetes = name.contains("_SERVICE_") || name.contains("_TCP")
            guard !isKubernetes else { continue }
            let meant = Suggestion.text(for: name, among: all.map(\.environmentName))
            let line =
                "reprise: warning: ignoring the unknown environment variable '\(name)'.\(meant) "
                + "See reprise serve --help for all settings.\n"
            _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
        }
    }

    private static func place(
        of setting: Setting, _ source: SettingSource, file: String?, isInSecretFile: Bool
    ) -> String {
        switch source {
        case .flag: "flag \(setting.name)"
        case _ where isInSecretFile: "the file named by \(setting.environmentFileName)"
        case .environment: "environment variable \(setting.environmentName)"
        case .file: "\(file ?? ""): \(setting.name)"
        case .default, .runtime: setting.name
        }
    }

    private static func hint(_ text: String, _ source: SettingSource) -> String {
        guard source == .environment, text.hasPrefix("tcp://") else { return "" }
        return " Kubernetes sets it for a Service called 'reprise': set enableServiceLinks: false in the pod."
    }
}

extension [String: String] {
    /// As a source for swift-configuration.
    fileprivate func reader(named name: String) -> ConfigReader {
        var values: [AbsoluteConfigKey: ConfigValue] = [:]
        for (setting, text) in self {
            values[AbsoluteConfigKey([setting])] = ConfigValue(.string(text), isSecret: false)
        }
        return ConfigReader(provider: InMemoryProvider(name: name, values: values))
    }
}

/// The settings as `--help` shows them.
enum SettingsHelp {
    static let table: String = {
        var lines = ["Settings, for the file, --set and REPRISE_<NAME>:", ""]
        for setting in Setting.all {
            let text = setting.defaultValue.description
            let unit = setting.unit.isEmpty ? "" : " \(setting.unit)"
            lines.append("  \(setting.name) (default: \(text.isEmpty ? "none" : text)\(unit))")
            lines.append("      \(setting.summary)")
        }
        return lines.joined(separator: "\n")
    }()
}
