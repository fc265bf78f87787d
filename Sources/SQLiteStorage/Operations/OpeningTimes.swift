// How long each part of opening the database took: why a start was slow.

import Domain

/// Measures the parts of opening, one after the other.
struct OpeningTimes: Sendable {
    enum Part: String, CaseIterable {
        case recovery, migration, preparation
    }

    private let microseconds: @Sendable () -> Int64
    private var started: Int64
    private var taken: [Part: Double] = [:]

    /// - Parameter microseconds: a clock that never steps.
    init(_ microseconds: @escaping @Sendable () -> Int64) {
        self.microseconds = microseconds
        started = microseconds()
    }

    /// Ends the part that began with the end of the one before.
    mutating func end(_ part: Part) {
        let now = microseconds()
        taken[part] = Double(now - started) / 1e6
        started = now
    }

    var parts: [DiagnosticFigures.OpeningPart] {
        Part.allCases.map { part in
            DiagnosticFigures.OpeningPart(
                name: part.rawValue, seconds: taken[part] ?? 0, what: part.what, remedy: part.remedy)
        }
    }
}

extension OpeningTimes.Part {
    fileprivate var what: String {
        switch self {
        case .recovery: "opening the file and reading the write-ahead log that the last server left"
        case .migration: "updating the schema"
        case .preparation: "looking up where the tables end"
        }
    }

    fileprivate var remedy: String {
        switch self {
        case .recovery:
            "Stop the server with SIGTERM and give it time to finish, so that it leaves no log. If it was stopped that "
                + "way, the disk is slow: check what else uses it, and keep the database on a local one."
        case .migration: "Nothing: this happens once after an upgrade. The next start does not repeat it."
        case .preparation:
            "This reads a few pages, so the disk is slow: check what else uses it, and keep the database on a local "
                + "one."
        }
    }
}
