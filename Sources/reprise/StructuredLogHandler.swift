// Log lines on standard error: text for people, or one JSON object per line.

import Domain
import Glibc
import Logging
import Synchronization

/// Writes one line for each event. The level is shared by all loggers, so that it can change while the service runs.
struct StructuredLogHandler: LogHandler {
    enum Format: String {
        case text, json
    }

    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?
    private let format: Format
    private let level: SharedLevel

    /// The level of all handlers.
    private final class SharedLevel: Sendable {
        let value: Mutex<Logger.Level>
        init(_ level: Logger.Level) { value = Mutex(level) }
    }

    private init(format: Format, level: SharedLevel) {
        self.format = format
        self.level = level
    }

    /// A logger as the settings ask for, now and whenever they change.
    static func bootstrap(_ settings: LiveSettings) -> Logger {
        let format = Format(rawValue: settings.current.text(.logFormat)) ?? .text
        let level = SharedLevel(.info)
        settings.observe { settings in
            level.value.withLock { $0 = Logger.Level(rawValue: settings.text(.logLevel)) ?? .info }
        }
        return Logger(label: "reprise") { _ in StructuredLogHandler(format: format, level: level) }
    }

    var logLevel: Logger.Level {
        get { level.value.withLock { $0 } }
        set { level.value.withLock { $0 = newValue } }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        // Hummingbird puts an id of its own on each request's logger; request_id is the one callers know.
        var fields = metadata.merging(event.metadata ?? [:]) { $1 }
        fields["hb.request.id"] = nil
        let pairs = fields.map { ($0.key, $0.value.description) }.sorted { $0.0 < $1.0 }
        let time = WallClock.system.now().rfc3339
        var line: [UInt8]
        switch format {
        case .json:
            var members: [JSON.Member] = [
                .init(name: "time", value: .string(time)), .init(name: "level", value: .string(event.level.rawValue)),
                .init(name: "message", value: .string(event.message.description)),
            ]
            members += pairs.map { .init(name: $0.0, value: .string($0.1)) }
            line = JSON.object(members).utf8
        case .text:
            line = Array("\(time) \(event.level.rawValue) \(event.message)".utf8)
            for (name, value) in pairs {
                line += " \(name)=".utf8
                // Quoted if a blank or a control character would break the line.
                let isPlain = !value.isEmpty && value.utf8.allSatisfy { $0 > 0x20 && $0 != 0x22 && $0 != 0x7F }
                if isPlain { line += value.utf8 } else { JSON.string(value).write(to: &line) }
            }
        }
        line.append(UInt8(ascii: "\n"))
        _ = line.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
