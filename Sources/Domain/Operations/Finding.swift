// What is noticed about the service, and what to do about it.

/// One thing an operator should know: what it is, the numbers that show it, and a remedy that can be followed.
public struct Finding: Sendable, Equatable {
    public enum Severity: String, Sendable, CaseIterable, Comparable {
        /// Worth knowing; nothing has to be done.
        case info
        /// Something is worse than it should be, or soon will be.
        case warning
        /// Data or service is lost, or about to be.
        case critical

        private var rank: Int { Self.allCases.firstIndex(of: self)! }

        public static func < (a: Self, b: Self) -> Bool { a.rank < b.rank }
    }

    /// A stable slug. Those below are for every engine; an engine adds those for what only it has. docs/operations.md
    /// lists all of them.
    public struct Code: RawRepresentable, Hashable, Sendable {
        public let rawValue: String

        public init(rawValue: String) { self.rawValue = rawValue }
    }

    public var severity: Severity
    public var code: Code
    /// What it is, in a few words, without a full stop.
    public var title: String
    /// What was seen, in sentences.
    public var detail: String
    /// An object of numbers, with their units in their names.
    public var evidence: JSON
    /// What to do, in sentences.
    public var remedy: String

    public init(
        _ severity: Severity, _ code: Code, _ title: String, detail: String, evidence: JSON = [:], remedy: String
    ) {
        self.severity = severity
        self.code = code
        self.title = title
        self.detail = detail
        self.evidence = evidence
        self.remedy = remedy
    }
}

/// All findings of one moment.
public struct Diagnosis: Sendable, Equatable {
    public enum Status: String, Sendable, CaseIterable {
        case ok, warning, critical
    }

    /// The most severe first; among equals by code, and then in the order in which they were found.
    public let findings: [Finding]

    public init(_ findings: [Finding]) {
        let keyed = findings.enumerated().sorted { a, b in
            if a.element.severity != b.element.severity { return a.element.severity > b.element.severity }
            if a.element.code != b.element.code { return a.element.code.rawValue < b.element.code.rawValue }
            return a.offset < b.offset
        }
        self.findings = keyed.map(\.element)
    }

    /// The worst severity; an info counts as ok.
    public var status: Status {
        switch findings.map(\.severity).max() {
        case nil, .info: .ok
        case .warning: .warning
        case .critical: .critical
        }
    }
}

extension Diagnosis {
    /// As `GET /v1/diagnostics` answers it.
    public var json: JSON {
        ["status": .string(status.rawValue), "findings": .array(findings.map(\.json))]
    }

    /// From an answer of `GET /v1/diagnostics`; nil if it is something else.
    public init?(json: JSON) {
        guard case .array(let items)? = json["findings"] else { return nil }
        var findings: [Finding] = []
        for item in items {
            guard let finding = Finding(json: item) else { return nil }
            findings.append(finding)
        }
        self.init(findings)
    }
}

extension Finding {
    fileprivate var json: JSON {
        [
            "severity": .string(severity.rawValue), "code": .string(code.rawValue), "title": .string(title),
            "detail": .string(detail), "evidence": evidence, "remedy": .string(remedy),
        ]
    }

    fileprivate init?(json: JSON) {
        guard let severity = json["severity"]?.stringValue.flatMap(Severity.init(rawValue:)),
            let code = json["code"]?.stringValue, let title = json["title"]?.stringValue,
            let detail = json["detail"]?.stringValue, let evidence = json["evidence"],
            let remedy = json["remedy"]?.stringValue
        else { return nil }
        self.init(severity, Code(rawValue: code), title, detail: detail, evidence: evidence, remedy: remedy)
    }
}
