// Performance samples: what is measured, and which ones are queried.

/// The raw values are stored in databases: changing one needs a migration.
public enum SampleKind: String, Sendable, CaseIterable {
    /// How long an operation took.
    case timing
    /// The memory of a process.
    case memory
    /// Any other value at an instant.
    case gauge
}

/// One measurement.
public struct Sample: Sendable, Equatable {
    public enum Outcome: String, Sendable, CaseIterable {
        case ok, error
    }

    /// The raw values are stored in databases: changing one needs a migration.
    public enum CacheResult: String, Sendable, CaseIterable {
        case hit, miss
    }

    public enum Measurement: Sendable, Equatable {
        case timing(seconds: Double, outcome: Outcome, cache: CacheResult?, variant: String?)
        case memory(rssBytes: Int64, vmsBytes: Int64, percent: Double)
        case gauge(value: Double, unit: String?)
    }

    public var name: String
    public var measurement: Measurement
    public var recordedAt: Instant
    public var sessionID: Name?
    /// An object of strings.
    public var labels: JSONText?

    public init(
        name: String, measurement: Measurement, recordedAt: Instant, sessionID: Name? = nil, labels: JSONText? = nil
    ) {
        self.name = name
        self.measurement = measurement
        self.recordedAt = recordedAt
        self.sessionID = sessionID
        self.labels = labels
    }

    public var kind: SampleKind {
        switch measurement {
        case .timing: .timing
        case .memory: .memory
        case .gauge: .gauge
        }
    }

    /// Whether a name, variant, unit or label is allowed: at most this many Unicode characters, no control characters.
    public static func isValid(_ text: String, maxCharacters: Int) -> Bool {
        (1...maxCharacters).contains(text.unicodeScalars.count) && !text.containsControlCharacter
    }

    /// The name that names and variants beyond their limit share.
    public static let otherName = "__other__"
}

/// The outcome of recording samples.
public struct SampleReceipt: Sendable, Equatable {
    public var accepted: Int
    /// Names counted as ``Sample/otherName`` because there are ``Limits/maxSampleNames`` of their kind already; a
    /// bounded number of them.
    public var foldedNames: [String]
    /// How many samples this affects, including those with too many variants.
    public var foldedCount: Int

    public init(accepted: Int, foldedNames: [String] = [], foldedCount: Int = 0) {
        self.accepted = accepted
        self.foldedNames = foldedNames
        self.foldedCount = foldedCount
    }
}

/// Which raw samples are read.
public struct SampleFilter: Sendable, Equatable {
    public var kind: SampleKind?
    public var name: String?
    public var sessionID: Name?
    public var variant: String?
    /// Recorded at this instant or later.
    public var since: Instant?
    /// Recorded before this instant.
    public var until: Instant?

    public init(
        kind: SampleKind? = nil, name: String? = nil, sessionID: Name? = nil, variant: String? = nil,
        since: Instant? = nil, until: Instant? = nil
    ) {
        self.kind = kind
        self.name = name
        self.sessionID = sessionID
        self.variant = variant
        self.since = since
        self.until = until
    }
}

/// Which value of a sample is reported: a memory sample has three. The raw values are stored in databases: changing one
/// needs a migration.
public enum SampleMetric: String, Sendable, CaseIterable {
    case duration = "duration_seconds"
    case residentBytes = "rss_bytes"
    case virtualBytes = "vms_bytes"
    case percent
    case value

    public static func all(of kind: SampleKind) -> [SampleMetric] {
        switch kind {
        case .timing: [.duration]
        case .memory: [.residentBytes, .virtualBytes, .percent]
        case .gauge: [.value]
        }
    }
}

/// Who measured.
/// The raw values are stored in databases: changing one needs a migration.
public enum SampleSource: String, Sendable, CaseIterable {
    /// The callers of the API.
    case app
    /// The service itself: the timings of its requests. They are kept only as roll-ups.
    case service
}

/// What the service measures about itself, in addition to its memory and the timings of its requests. The raw values
/// are stored in databases: changing one needs a migration.
public enum ServiceGauge: String, Sendable, CaseIterable {
    /// The hit ratio of the look-ups since the last measurement.
    case cacheHitRatio = "reprise.cache_hit_ratio"
    case sessionCount = "reprise.session_count"
    case sessionStateBytes = "reprise.session_state_bytes"
    case sessionStateKeys = "reprise.session_state_keys"

    public var unit: String {
        switch self {
        case .cacheHitRatio: "ratio"
        case .sessionCount: "sessions"
        case .sessionStateBytes: "bytes"
        case .sessionStateKeys: "keys"
        }
    }

    /// The name of the service's own process among memory samples.
    public static let processName = "reprise"
}
