// What a storage engine contributes to diagnostics.

/// What every engine reports for the rules that are the same for all of them, and the findings that only it can make.
public struct DiagnosticFigures: Sendable, Equatable {
    /// A part of opening the engine.
    public struct OpeningPart: Sendable, Equatable {
        /// In the evidence: `recovery` becomes `recovery_seconds`.
        public let name: String
        public let seconds: Double
        /// What takes the time: "reading the log that a killed server left".
        public let what: String
        /// What to do if it takes long, in sentences.
        public let remedy: String

        public init(name: String, seconds: Double, what: String, remedy: String) {
            self.name = name
            self.seconds = seconds
            self.what = what
            self.remedy = remedy
        }
    }

    /// A namespace of the cache: what it holds, and what it did in the last
    /// ``DiagnosticThresholds/windowMilliseconds``.
    public struct Namespace: Sendable, Equatable {
        public var name: Name
        public var policy: CachePolicy
        public var entryCount: Int
        public var sizeBytes: Int
        public var activity: CacheActivity
        /// How late the misses of a reason came, since the process started; only for `expired` and `evicted`.
        public var delays: [MissReason: MissDelays]

        public init(
            name: Name, policy: CachePolicy = CachePolicy(), entryCount: Int = 0, sizeBytes: Int = 0,
            activity: CacheActivity = CacheActivity(), delays: [MissReason: MissDelays] = [:]
        ) {
            self.name = name
            self.policy = policy
            self.entryCount = entryCount
            self.sizeBytes = sizeBytes
            self.activity = activity
            self.delays = delays
        }
    }

    /// The session with the largest state.
    public struct Session: Sendable, Equatable {
        public var id: Name
        public var stateSizeBytes: Int
        public var historyCount: Int

        public init(id: Name, stateSizeBytes: Int, historyCount: Int) {
            self.id = id
            self.stateSizeBytes = stateSizeBytes
            self.historyCount = historyCount
        }
    }

    /// What has to be read from the database.
    public struct Stored: Sendable, Equatable {
        /// All there are, by name.
        public var namespaces: [Namespace] = []
        /// As in ``OperationalFigures/Stored/lagSeconds``.
        public var lagSeconds: [OperationalFigures.Leftover: Double] = [:]
        /// Kinds of samples that have so many names that some are counted as ``Sample/otherName``.
        public var overflowingKinds: [SampleKind] = []
        public var largestSession: Session?

        public init() {}
    }

    /// The backups of this database, by their ages, in seconds.
    public struct Backups: Sendable, Equatable {
        /// Of the latest; nil if there is none.
        public var latestAge: Double?
        /// How long ago the database was created; nil if that is not known.
        public var databaseAge: Double?
        /// Backups that failed since the start.
        public var failures: Int

        public init(latestAge: Double? = nil, databaseAge: Double? = nil, failures: Int = 0) {
            self.latestAge = latestAge
            self.databaseAge = databaseAge
            self.failures = failures
        }
    }

    /// In their order; empty when the engine was not opened for this.
    public var opening: [OpeningPart] = []
    /// nil when the database did not answer.
    public var stored: Stored?
    /// Why it did not, for a person.
    public var problem: String?
    /// nil when the engine makes no backups.
    public var backups: Backups?
    /// Whether there is a token; nil if that is unknown.
    public var hasTokens: Bool?
    /// What only this engine can tell about itself.
    public var findings: [Finding] = []

    public init() {}
}

public protocol DiagnosticStore: Sendable {
    /// Never fails, because diagnostics are needed most when the database does not answer. Writes nothing, and takes no
    /// longer for a large database than for a small one.
    func diagnosticFigures() async -> DiagnosticFigures
}
