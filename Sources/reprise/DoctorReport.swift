// What `reprise doctor` prints: a block for each finding, for people.

import Domain
import Glibc

struct DoctorReport {
    /// What was examined.
    let source: String
    let diagnosis: Diagnosis
    /// Whether all of the file was checked.
    let isDeep: Bool
    let isColoured: Bool

    /// Columns of text.
    private static let width = 100

    /// On a terminal, unless the user has said otherwise. https://no-color.org
    static var wantsColours: Bool { isatty(STDOUT_FILENO) != 0 && (getenv("NO_COLOR").map { $0.pointee == 0 } ?? true) }

    var text: String {
        var text = "\(source)\n"
        for finding in diagnosis.findings { text += "\n" + block(finding) }
        return text + "\n" + summary + "\n"
    }

    private func block(_ finding: Finding) -> String {
        let word = finding.severity == .info ? "note" : finding.severity.rawValue
        var lines = [marked(word, finding.severity) + "  \(finding.title) [\(finding.code.rawValue)]"]
        lines += Self.wrapped(finding.detail, indent: "    ")
        if case .object(let members) = finding.evidence, !members.isEmpty {
            let figures = members.map { "\($0.name) \($0.value.text)" }.joined(separator: ", ")
            lines += Self.wrapped(figures, indent: "    ")
        }
        lines += Self.wrapped(finding.remedy, indent: "    ", first: "  > ")
        return lines.joined(separator: "\n") + "\n"
    }

    private func marked(_ word: String, _ severity: Finding.Severity) -> String {
        guard isColoured else { return word }
        let colour =
            switch severity {
            case .critical: "1;31"
            case .warning: "1;33"
            case .info: "1;36"
            }
        return "\u{1B}[\(colour)m\(word)\u{1B}[0m"
    }

    private var summary: String {
        func count(_ severity: Finding.Severity, _ one: String, _ many: String) -> String? {
            let count = diagnosis.findings.count { $0.severity == severity }
            return count == 0 ? nil : "\(count) \(count == 1 ? one : many)"
        }
        let counts = [
            count(.critical, "critical finding", "critical findings"), count(.warning, "warning", "warnings"),
            count(.info, "note", "notes"),
        ].compactMap { $0 }
        let state = diagnosis.status == .ok ? "healthy" : diagnosis.status.rawValue
        let result = counts.isEmpty ? "\(state): nothing was found" : "\(state): \(counts.joined(separator: ", "))"
        return isDeep || diagnosis.status != .ok ? result : "\(result) (pages and values are checked by --deep)"
    }

    /// Breaks a text at blanks; longer words stay whole, so that a command can be copied.
    private static func wrapped(_ text: String, indent: String, first: String? = nil) -> [String] {
        var lines: [String] = []
        var line = first ?? indent
        var isEmpty = true
        for word in text.split(separator: " ") {
            if !isEmpty, line.count + 1 + word.count > width {
                lines.append(line)
                line = indent
                isEmpty = true
            }
            line += (isEmpty ? "" : " ") + word
            isEmpty = false
        }
        return isEmpty ? lines : lines + [line]
    }
}
