// The rules of diagnostics, at both sides of their thresholds.

import Testing

@testable import Domain

private typealias Thresholds = DiagnosticThresholds

struct DiagnosticsTests {
    private func codes(_ change: (inout DiagnosticSnapshot) -> Void) -> [String] {
        diagnosis(change).findings.map(\.code.rawValue)
    }

    private func diagnosis(_ change: (inout DiagnosticSnapshot) -> Void) -> Diagnosis {
        var figures = DiagnosticFigures()
        figures.stored = .init()
        var snapshot = DiagnosticSnapshot(settings: Settings(), figures: figures)
        change(&snapshot)
        let diagnosis = snapshot.diagnosis
        for finding in diagnosis.findings { expectComplete(finding) }
        return diagnosis
    }

    /// A code, sentences, and numbers with units.
    private func expectComplete(_ finding: Finding, sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(finding.code.rawValue.wholeMatch(of: /[a-z]+(_[a-z]+)*/) != nil, sourceLocation: sourceLocation)
        #expect(!finding.title.hasSuffix("."), "\(finding.title)", sourceLocation: sourceLocation)
        #expect(finding.detail.count > 10 && !finding.remedy.isEmpty, sourceLocation: sourceLocation)
        for text in [finding.title, finding.detail, finding.remedy] {
            #expect(!text.contains("  ") && !text.contains("Optional("), "\(text)", sourceLocation: sourceLocation)
        }
        guard case .object(let members) = finding.evidence else {
            Issue.record("no object", sourceLocation: sourceLocation)
            return
        }
        for member in members {
            #expect(member.value.doubleValue != nil, "\(member.name)", sourceLocation: sourceLocation)
        }
        #expect(Set(members.map(\.name)).count == members.count, sourceLocation: sourceLocation)
    }

    @Test func nothingIsWrongWithAQuietService() {
        let diagnosis = diagnosis { $0.process = process() }
        #expect(diagnosis.findings == [])
        #expect(diagnosis.status == .ok)
        #expect(diagnosis.json == ["status": "ok", "findings": []])
    }

    // MARK: Order and form

    private func finding(_ severity: Finding.Severity, _ code: String) -> Finding {
        Finding(severity, .init(rawValue: code), "t", detail: "d", evidence: ["a_bytes": 1], remedy: "r")
    }

    @Test func theWorstComesFirst() {
        let diagnosis = Diagnosis([
            finding(.info, "c"), finding(.warning, "b"), finding(.critical, "z"), finding(.warning, "a"),
        ])
        #expect(diagnosis.findings.map(\.code.rawValue) == ["z", "a", "b", "c"])
        #expect(diagnosis.status == .critical)
        #expect(Diagnosis([finding(.info, "a")]).status == .ok)
        #expect(Diagnosis([finding(.info, "a"), finding(.warning, "a")]).status == .warning)
    }

    @Test func aClientReadsWhatWasSent() throws {
        let diagnosis = Diagnosis([finding(.critical, "z"), finding(.info, "a")])
        #expect(try Diagnosis(json: JSON(parsing: diagnosis.json.utf8)) == diagnosis)
        #expect(Diagnosis(json: ["status": "ok"]) == nil)
        #expect(Diagnosis(json: ["findings": [["severity": "loud"]]]) == nil)
    }

    // MARK: Backups

    @Test func aScheduleThatDoesNotKeepUpIsFound() {
        var settings = Settings()
        settings.set(.backupInterval, to: .decimal(3600), source: .flag)
        func found(_ backups: DiagnosticFigures.Backups?) -> [Finding] {
            diagnosis {
                $0.settings = settings
                $0.figures.backups = backups
            }.findings
        }
        #expect(found(nil) == [])
        #expect(found(.init(latestAge: 7800, databaseAge: 1e6)) == [])
        let late = found(.init(latestAge: 7801, databaseAge: 1e6, failures: 2))
        #expect(late.map(\.code) == [.noRecentBackup] && late[0].severity == .warning)
        #expect(late[0].evidence["failed_backups"] == 2 && late[0].detail.contains("2 failed"))
        #expect(found(.init(databaseAge: 7800)) == [])
        #expect(found(.init(databaseAge: 7801)).map(\.title) == ["There is no backup"])
    }

    @Test func withoutAScheduleTheLackOfABackupIsANote() {
        func found(_ backups: DiagnosticFigures.Backups) -> [Finding.Severity] {
            diagnosis { $0.figures.backups = backups }.findings.map(\.severity)
        }
        #expect(found(.init(databaseAge: Thresholds.unscheduledBackupSeconds)) == [])
        #expect(found(.init(databaseAge: Thresholds.unscheduledBackupSeconds + 1)) == [.info])
        #expect(found(.init(latestAge: 1, databaseAge: 1e9)) == [])
    }

    // MARK: The process

    private func process(
        residentBytes: Int64 = 30 << 20, percent: Double = 1, open: Int = 20, max: Int = 65_536
    ) -> ProcessFigures {
        ProcessFigures(
            residentBytes: residentBytes, virtualBytes: 1 << 30, memoryPercent: percent, cpuSeconds: 1,
            openDescriptors: open, maxDescriptors: max, startedAt: 0)
    }

    @Test func aSlowStartNamesItsLongestPart() {
        let parts = [
            DiagnosticFigures.OpeningPart(name: "recovery", seconds: 0.4, what: "reading the log", remedy: "Stop it."),
            DiagnosticFigures.OpeningPart(name: "migration", seconds: 1.7, what: "migrating", remedy: "Nothing."),
        ]
        let slow = diagnosis { $0.figures.opening = parts }
        #expect(slow.findings.map(\.code) == [.slowStart])
        #expect(slow.findings[0].detail.contains("migrating"))
        #expect(slow.findings[0].remedy == "Nothing.")
        #expect(slow.findings[0].evidence["migration_seconds"] == .number("1.7"))
        #expect(codes { $0.figures.opening = Array(parts.prefix(1)) } == [])
        // Time that was spent elsewhere.
        let other = diagnosis {
            $0.figures.opening = Array(parts.prefix(1))
            $0.startupSeconds = 5
        }
        #expect(other.findings.map(\.code) == [.slowStart])
        #expect(other.findings[0].evidence["other_seconds"] == .number("4.6"))
        #expect(codes { $0.startupSeconds = Thresholds.startupSeconds } == [])
    }

    @Test(arguments: [
        (process: (Thresholds.residentBytes - 1, 74.9), severity: nil),
        (process: (Thresholds.residentBytes, 1.0), severity: Finding.Severity.warning),
        (process: (1 << 20, 75.0), severity: .warning), (process: (1 << 20, 90.0), severity: .critical),
    ])
    func memoryIsComparedWithWhatThereIs(process: (Int64, Double), severity: Finding.Severity?) {
        let found = diagnosis { $0.process = self.process(residentBytes: process.0, percent: process.1) }.findings
        #expect(found.map(\.severity) == (severity.map { [$0] } ?? []))
        #expect(found.allSatisfy { $0.code == .memoryHigh })
    }

    @Test func descriptorsMayRunShort() {
        let wanted = Limits.maxConnections + Thresholds.ownDescriptors
        #expect(codes { $0.process = process(max: wanted) } == [])
        #expect(codes { $0.process = process(max: wanted - 1) } == ["descriptor_limit_low"])
        #expect(codes { $0.process = process(open: 79, max: 100) } == ["descriptor_limit_low"])
        #expect(codes { $0.process = process(open: 80, max: 100) } == ["descriptors_scarce"])
    }

    @Test func anApplicationMayRunOutOfMemory() {
        func applications(_ percents: Double...) -> [DiagnosticSnapshot.Application] {
            percents.map { .init(name: "melodai", memoryPercent: $0, residentBytes: 1e9) }
        }
        #expect(codes { $0.applications = applications(84.9) } == [])
        let found = diagnosis { $0.applications = applications(20, 85, 91.26) }.findings
        #expect(found.map(\.code) == [.applicationMemoryHigh])
        #expect(found[0].detail.contains("91.3 %"))
        #expect(found[0].evidence["process_count"] == 2)
    }

    // MARK: Names, sessions, background work

    @Test func overflowingNamesAreNamedByKind() {
        let found = diagnosis { $0.figures.stored!.overflowingKinds = [.timing] }.findings
        #expect(found.map(\.code) == [.sampleNamesOverflow])
        #expect(found[0].detail.contains("timing"))
    }

    @Test func aLargeSessionIsNamed() {
        func session(_ bytes: Int) -> DiagnosticFigures.Session {
            .init(id: Name(stored: "tab-7"), stateSizeBytes: bytes, historyCount: 3)
        }
        #expect(codes { $0.figures.stored!.largestSession = session(Thresholds.sessionStateBytes - 1) } == [])
        let found = diagnosis { $0.figures.stored!.largestSession = session(Thresholds.sessionStateBytes) }.findings
        #expect(found.map(\.code) == [.sessionStateLarge])
        #expect(found[0].remedy.contains("/v1/sessions/tab-7/optimize"))
    }

    @Test func cleanupMayBeLate() {
        #expect(codes { $0.figures.stored!.lagSeconds = [.cache: 900, .sessions: 0] } == [])
        let found = diagnosis { $0.figures.stored!.lagSeconds = [.cache: 901, .sessions: 4000, .cleared: 3] }.findings
        #expect(found.map(\.code) == [.cleanupLate])
        #expect(found[0].evidence == ["cache_lag_seconds": 901, "sessions_lag_seconds": 4000])
        #expect(found[0].title.contains("67 min"))
    }

    @Test func aFailingTaskShowsItsLatestError() {
        func tasks(_ failures: Int) -> MaintenanceFigures {
            let run = MaintenanceRun(
                task: .cacheExpiry, trigger: .deadline, startedAt: Instant(milliseconds: 0), durationSeconds: 1,
                rowsRemoved: 0, bytesFreed: 0, error: "The disk is full.")
            return MaintenanceFigures(
                tasks: [
                    .cacheExpiry: .init(runs: 9, failures: failures), .sampleRollup: .init(runs: 5),
                ], latest: [run])
        }
        #expect(codes { $0.tasks = tasks(0) } == [])
        let passing = diagnosis { $0.tasks = tasks(Thresholds.taskFailures - 1) }.findings
        #expect(passing.map(\.severity) == [.info])
        let failing = diagnosis { $0.tasks = tasks(Thresholds.taskFailures) }.findings
        #expect(failing.map(\.severity) == [.warning])
        #expect(failing[0].detail.hasSuffix("The disk is full."))
    }

    // MARK: Requests and choices

    @Test(arguments: [
        (Failure.Code.overloaded, Thresholds.refusedRequests, Finding.Code.requestsRefused),
        (.deadlineExceeded, Thresholds.timedOutReads, .readsTimedOut), (.storageUnavailable, 1, .storageFailing),
        (.databaseBusy, 1, .storageFailing), (.databaseReadOnly, 1, .storageFailing),
        (.databaseDamaged, 1, .damageSeen), (.internalError, 1, .serverErrors),
    ])
    func failuresOfRequestsAreCounted(code: Failure.Code, least: Int, finding: Finding.Code) {
        #expect(codes { $0.failures = [code: least - 1] } == [])
        #expect(codes { $0.failures = [code: least] } == [finding.rawValue])
    }

    @Test func choicesAreNotes() {
        var settings = Settings()
        settings.set(.durability, to: .text("normal"), source: .flag)
        settings.set(.enableMonitoring, to: .boolean(false), source: .runtime)
        let found = diagnosis { $0.settings = settings }
        #expect(found.findings.map(\.code) == [.durabilityNormal, .monitoringDisabled])
        #expect(found.status == .ok)
    }

    @Test(arguments: [
        ("none", "0.0.0.0", true), ("none", "::", true), ("none", "10.0.0.7", true), ("none", "127.0.0.1", false),
        ("none", "::1", false), ("auto", "0.0.0.0", false),
    ])
    func anOpenServiceIsAWarning(authentication: String, host: String, isOpen: Bool) {
        var settings = Settings()
        settings.set(.authentication, to: .text(authentication), source: .flag)
        settings.set(.host, to: .text(host), source: .flag)
        #expect(codes { $0.settings = settings } == (isOpen ? ["open_to_network"] : []))
    }

    @Test func aDatabaseThatDoesNotAnswerIsCritical() {
        let found = diagnosis {
            $0.figures.stored = nil
            $0.figures.problem = "The storage failed."
        }
        #expect(found.findings.map(\.code) == [.databaseUnreadable])
        #expect(found.status == .critical)
    }

    // MARK: The cache

    private func namespace(
        named name: String = "scores", hits: Int = 0, _ misses: [MissReason: Int] = [:], evictions: Int = 0,
        policy: CachePolicy = CachePolicy(), entries: Int = 100, bytes: Int = 100_000,
        delays: [MissReason: [Int64]] = [:]
    ) -> DiagnosticFigures.Namespace {
        DiagnosticFigures.Namespace(
            name: Name(stored: name), policy: policy, entryCount: entries, sizeBytes: bytes,
            activity: CacheActivity(hits: hits, misses: misses, evictions: evictions),
            delays: delays.mapValues { seconds in
                var delays = MissDelays()
                for second in seconds { delays.add(milliseconds: second * 1000) }
                return delays
            })
    }

    private func findings(_ namespaces: DiagnosticFigures.Namespace...) -> [Finding] {
        diagnosis { $0.figures.stored!.namespaces = namespaces }.findings
    }

    @Test func fewLookupsSayNothing() {
        #expect(findings(namespace([.absent: Thresholds.minLookups - 1])) == [])
        #expect(findings(namespace([.absent: Thresholds.minLookups])).map(\.code) == [.cacheMissesAbsent])
    }

    @Test(arguments: [
        (MissReason.expired, 20, Finding.Code.cacheMissesExpired, Finding.Severity.warning),
        (.evicted, 20, .cacheMissesEvicted, .warning), (.deleted, 20, .cacheMissesDeleted, .info),
        (.cleared, 20, .cacheMissesCleared, .info), (.absent, 50, .cacheMissesAbsent, .info),
    ])
    func theReasonThatDominatesIsFound(reason: MissReason, percent: Int, code: Finding.Code, severity: Finding.Severity)
    {
        let policy = CachePolicy(maxEntries: 100)
        #expect(findings(namespace(hits: 101 - percent, [reason: percent - 1], policy: policy)) == [])
        let found = findings(namespace(hits: 100 - percent, [reason: percent], policy: policy))
        #expect(found.map(\.code) == [code])
        #expect(found.map(\.severity) == [severity])
        #expect(found[0].title.contains("'scores'"))
        #expect(found[0].evidence["lookups"] == 100)
        #expect(found[0].evidence["\(reason.rawValue)_misses"] == .integer(percent))
    }

    @Test func manyReasonsTogetherMakeALowRatio() {
        let mixed: [MissReason: Int] = [.absent: 19, .expired: 18, .deleted: 15]
        #expect(findings(namespace(hits: 48, mixed)).map(\.code) == [.cacheHitRatioLow])
        #expect(findings(namespace(hits: 52, mixed)) == [])
    }

    @Test func aCacheThatAnswersNothingIsAWarning() {
        func severity(hits: Int, absent: Int) -> [Finding.Severity] {
            findings(namespace(hits: hits, [.absent: absent])).map(\.severity)
        }
        #expect(severity(hits: 99, absent: 901) == [.warning])
        #expect(severity(hits: 100, absent: 900) == [.info])
        #expect(severity(hits: 0, absent: 999) == [.info])
    }

    @Test func theTTLThatWouldHaveHelpedIsComputed() {
        // Half come within 100 s and four fifths within 500 s: bounds of 120 and 600.
        let delays =
            [Int64](repeating: 100, count: 50) + [Int64](repeating: 500, count: 30)
            + [Int64](repeating: 80_000, count: 20)
        let found = findings(namespace(hits: 50, [.expired: 50], delays: [.expired: delays]))[0]
        #expect(found.evidence["delay_p50_seconds"] == 120)
        #expect(found.evidence["delay_p80_seconds"] == 600)
        #expect(found.evidence["ttl_seconds"] == 300)
        #expect(found.evidence["helpful_ttl_seconds"] == 900)
        #expect(found.remedy.contains(#"PUT /v1/cache/scores with {"ttl_seconds":900}"#))
        #expect(found.detail.contains("300 s, the default"))
        // The namespace's own TTL.
        let policy = CachePolicy(timeToLive: .finite(milliseconds: 1_800_000))
        let own = findings(namespace(hits: 50, [.expired: 50], policy: policy, delays: [.expired: delays]))[0]
        #expect(own.evidence["helpful_ttl_seconds"] == 2400)
        // Entries that expire although the namespace's never do have lifetimes of their own.
        let never = findings(
            namespace(hits: 50, [.expired: 50], policy: CachePolicy(timeToLive: .never), delays: [.expired: delays]))[0]
        #expect(never.evidence["helpful_ttl_seconds"] == nil)
        #expect(never.remedy.contains("by 600 s"))
    }

    @Test func withoutMeasuredDelaysNothingIsClaimed() {
        let few = [Int64](repeating: 100, count: Thresholds.minDelays - 1)
        let found = findings(namespace(hits: 50, [.expired: 50], delays: [.expired: few]))[0]
        #expect(found.evidence["helpful_ttl_seconds"] == nil)
        #expect(found.detail.contains("not known yet"))
        #expect(found.remedy.contains("600"))
        let evicted = findings(
            namespace(hits: 50, [.evicted: 50], policy: CachePolicy(maxEntries: 100), delays: [.evicted: few]))[0]
        #expect(evicted.remedy.contains(#"{"max_entries":200}"#))
    }

    @Test func theCapThatWouldHaveHelpedIsEstimated() {
        // An eviction a second, and four fifths ask within 60 s.
        let delays = [Int64](repeating: 50, count: 80) + [Int64](repeating: 9000, count: 20)
        let policy = CachePolicy(maxEntries: 100, maxBytes: 200_000)
        let found = findings(
            namespace(hits: 50, [.evicted: 50], evictions: 3600, policy: policy, delays: [.evicted: delays]))[0]
        #expect(found.evidence["delay_p80_seconds"] == 60)
        #expect(found.evidence["helpful_max_entries"] == 160)
        // 60 entries of 1000 bytes more.
        #expect(found.evidence["helpful_max_bytes"] == 260_000)
        #expect(found.remedy.contains(#"{"max_entries":160,"max_bytes":260000}"#))
        // Without caps there is nothing to raise.
        #expect(findings(namespace(hits: 50, [.evicted: 50])).map(\.severity) == [.info])
    }

    @Test(arguments: [(0.0, 0), (7, 7), (99.2, 100), (100, 100), (101, 110), (12_345, 13_000)])
    func estimatesAreRoundedUp(value: Double, rounded: Int) {
        #expect(DiagnosticSnapshot.roundedUp(value) == rounded)
    }

    @Test func aNamespaceMayBeOverItsCaps() {
        let policy = CachePolicy(maxEntries: 100, maxBytes: 1000)
        #expect(findings(namespace(policy: policy, entries: 110, bytes: 1100)) == [])
        #expect(findings(namespace(policy: policy, entries: 111, bytes: 0)).map(\.code) == [.cacheOverCap])
        #expect(findings(namespace(policy: policy, entries: 0, bytes: 1101)).map(\.code) == [.cacheOverCap])
    }

    @Test func onlyTheWorstNamespacesAreNamed() {
        let many = (1...8).map { namespace(named: "n\($0)", [.absent: 50 + $0]) }
        let found = diagnosis { $0.figures.stored!.namespaces = many }.findings
        #expect(found.count == Thresholds.maxNamespacesPerCode)
        #expect(found[0].title.contains("'n8'"))
        #expect(found[4].detail.contains("3 more namespaces"))
    }

    @Test func namespacesMayRunOut() {
        func found(_ count: Int) -> [Finding.Severity] {
            diagnosis {
                $0.figures.stored!.namespaces = (0..<count).map { .init(name: Name(stored: "n\($0)")) }
            }.findings.map(\.severity)
        }
        #expect(found(7999) == [])
        #expect(found(8000) == [.warning])
        #expect(found(10_000) == [.critical])
    }

    // MARK: Delays

    @Test func delaysAreKeptInBoundedSpace() {
        var delays = MissDelays()
        #expect(delays.seconds(covering: 0.5) == nil)
        for _ in 0..<100_000 { delays.add(milliseconds: 1500) }
        #expect(delays.count < MissDelays.maxMisses)
        #expect(delays.seconds(covering: 1) == 2)
        // Older ones weigh less.
        for _ in 0..<MissDelays.maxMisses * 4 { delays.add(milliseconds: 40_000) }
        #expect(delays.seconds(covering: 0.1) == 60)
    }

    @Test func delaysAreRoundedUpToABound() {
        func bound(_ milliseconds: Int64) -> Double? {
            var delays = MissDelays()
            delays.add(milliseconds: milliseconds)
            return delays.seconds(covering: 0.8)
        }
        #expect(bound(-5) == 1)
        #expect(bound(1000) == 1)
        #expect(bound(1001) == 2)
        #expect(bound(86_400_000) == 86_400)
        #expect(bound(.max) == 86_400)
    }
}
