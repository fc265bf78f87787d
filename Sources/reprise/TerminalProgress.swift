// How far a long command is, for somebody who watches it.

import Glibc
import Synchronization

/// Shows how far a command is on one line of standard error, if that is a terminal, and nothing otherwise.
final class TerminalProgress: Sendable {
    private let what: String
    private let isShown = isatty(STDERR_FILENO) == 1
    private let shown = Mutex("")

    /// - Parameter what: what is being done, such as `copying`.
    init(_ what: String = "") { self.what = what }

    /// - Parameter all: nil if it is not known.
    func report(_ done: Int, of all: Int?) {
        report(what + (all.map { " \($0 > 0 ? min(100, done * 100 / $0) : 100) %" } ?? " …"))
    }

    /// Shows a text in the place of the last one.
    func report(_ text: String) {
        guard isShown else { return }
        let isNew = shown.withLock { shown in
            defer { shown = text }
            return shown != text
        }
        if isNew { Self.write("\r\u{1B}[K\(text)") }
    }

    /// Removes the line, so that others can follow. Call it before anything else is printed.
    func end() {
        // https://en.wikipedia.org/wiki/ANSI_escape_code: erases to the end of the line.
        if isShown, shown.withLock({ !$0.isEmpty }) { Self.write("\r\u{1B}[K") }
    }

    private static func write(_ text: String) {
        _ = text.withCString { Glibc.write(STDERR_FILENO, $0, strlen($0)) }
    }
}
