// How far a long command is, for somebody who watches it.

import Glibc
import Synchronization

/// Shows a percentage on one line of standard error, if that is a terminal, and nothing otherwise.
final class TerminalProgress: Sendable {
    private let what: String
    private let isShown = isatty(STDERR_FILENO) == 1
    private let lastPercent = Mutex(-1)

    /// - Parameter what: what is being done, such as `copying`.
    init(_ what: String) { self.what = what }

    /// - Parameter all: nil if it is not known.
    func report(_ done: Int, of all: Int?) {
        guard isShown else { return }
        let percent = all.map { $0 > 0 ? min(100, done * 100 / $0) : 100 } ?? 0
        let isNew = lastPercent.withLock { last in
            defer { last = percent }
            return last != percent
        }
        if isNew { Self.write("\r\(what)" + (all == nil ? " …" : " \(percent) %")) }
    }

    /// Removes the line, so that others can follow. Call it before anything else is printed.
    func end() {
        // https://en.wikipedia.org/wiki/ANSI_escape_code: erases to the end of the line.
        if isShown, lastPercent.withLock({ $0 }) >= 0 { Self.write("\r\u{1B}[K") }
    }

    private static func write(_ text: String) {
        _ = text.withCString { Glibc.write(STDERR_FILENO, $0, strlen($0)) }
    }
}
