// Which storage engine the setting `database` means: the one place that names an engine.

import Domain
import Logging
import SQLiteStorage

/// The storage engines this program can open, told apart by the setting `database`.
enum StorageSelection: Equatable {
    /// A file, kept by SQLite.
    case sqlite(path: String)

    /// - Parameter database: the setting's value: the path of a file.
    /// - Throws: ``ExitMessage`` for a URL, which must not become the name of a file by mistake.
    init(database: String) throws(ExitMessage) {
        if let scheme = Self.scheme(of: database) {
            throw ExitMessage(
                // Without the rest: a database's URL may hold a password.
                message: "there is no storage engine for \(scheme)://… databases. Set --database to the path of a "
                    + "file, such as data/reprise.db.",
                code: ExitMessage.wrongConfiguration)
        }
        // SQLite would take these as something else than the name of a file.
        if database == ":memory:" || database.hasPrefix("file:") {
            throw ExitMessage(
                message: "--database must be the path of a file, not \(database). "
                    + (database == ":memory:"
                        ? "For a database that is gone with the process, use a path in a tmpfs, such as /dev/shm."
                        : "Leave out file: and everything from ? on."),
                code: ExitMessage.wrongConfiguration)
        }
        self = .sqlite(path: database)
    }

    /// The one that the setting `database` means.
    init(_ settings: Settings) throws(ExitMessage) { try self.init(database: settings.text(.database)) }

    /// The path of the file, for commands that look at it themselves.
    var path: String {
        switch self {
        case .sqlite(let path): path
        }
    }

    /// The scheme of a URL with an authority; nil for anything else. https://www.rfc-editor.org/rfc/rfc3986#section-3.1
    private static func scheme(of text: String) -> String? {
        guard let end = text.firstRange(of: "://")?.lowerBound, let first = text.unicodeScalars.first,
            first.properties.isAlphabetic, first.isASCII
        else { return nil }
        let scheme = text[..<end]
        let isScheme = scheme.utf8.allSatisfy { byte in
            UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte | 0x20 || UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte
                || byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-") || byte == UInt8(ascii: ".")
        }
        return isScheme ? scheme.lowercased() : nil
    }

    /// Opens the engine, creating what is missing and updating its schema.
    /// - Throws: ``ExitMessage`` with the remedy.
    func open(
        _ settings: LiveSettings, for use: StorageUse, clock: WallClock, logger: Logger
    ) throws(ExitMessage) -> any StorageEngine {
        switch self {
        case .sqlite(let path):
            do {
                return try SQLiteStorage(path: path, for: use, settings: settings, clock: clock, logger: logger)
            } catch {
                throw ExitMessage(
                    message: error.description, code: ExitMessage.failed, isServerRunning: error.isHeldByServer)
            }
        }
    }
}

/// Opens the storage engine that the setting `database` chooses.
/// - Throws: ``ExitMessage`` with the remedy.
func openStorage(
    _ settings: LiveSettings, for use: StorageUse, logger: Logger
) throws(ExitMessage) -> any StorageEngine {
    try StorageSelection(settings.current).open(settings, for: use, clock: .system, logger: logger)
}
