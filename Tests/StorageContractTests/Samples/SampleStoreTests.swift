// The contract of Domain/SampleStore.swift: samples kept all or none, counted once, rolled up without loss.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

@Suite struct SampleStoreTests {
    private func timing(
        _ name: String, _ seconds: Double, at instant: Instant, cache: Sample.CacheResult? = nil,
        variant: String? = nil, outcome: Sample.Outcome = .ok, session: String? = nil
    ) -> Sample {
        Sample(
            name: name, measurement: .timing(seconds: seconds, outcome: outcome, cache: cache, variant: variant),
            recordedAt: instant, sessionID: session.map { Name(stored: $0) })
    }

    private func query(
        _ since: Instant, _ until: Instant, kind: SampleKind = .timing, metric: SampleMetric = .duration,
        name: String? = nil, grouping: MetricQuery.Grouping? = nil, step: Int64? = nil
    ) -> MetricQuery {
        MetricQuery(
            kind: kind, metric: metric, range: MetricRange(since: since, until: until), name: name, grouping: grouping,
            stepMilliseconds: step)
    }

    private let hour: Int64 = 3_600_000

    // MARK: Recording

    @Test func samplesComeBackAsTheyWere() async throws {
        try await withStorage { storage, clock async throws in
            let labels = JSONText(["model": "small"])
            let sent = [
                timing("load", 1.5, at: clock.now, cache: .miss, variant: "original", outcome: .error, session: "s"),
                Sample(
                    name: "app", measurement: .memory(rssBytes: 1 << 40, vmsBytes: 1 << 41, percent: 12.5),
                    recordedAt: clock.now.advanced(milliseconds: -1), labels: labels),
                Sample(
                    name: "queue", measurement: .gauge(value: -0.5, unit: "jobs"),
                    recordedAt: clock.now.advanced(milliseconds: -2)),
            ]
            #expect(try await storage.record(sent) == SampleReceipt(accepted: 3))
            #expect(try await storage.samples(SampleFilter(), after: nil, limit: 10).items == sent)
            #expect(try await storage.samples(SampleFilter(kind: .memory), after: nil, limit: 10).items == [sent[1]])
            #expect(try await storage.samples(SampleFilter(name: "load"), after: nil, limit: 10).items == [sent[0]])
            let session = SampleFilter(sessionID: Name(stored: "s"), variant: "original")
            #expect(try await storage.samples(session, after: nil, limit: 10).items == [sent[0]])
            let span = SampleFilter(since: sent[1].recordedAt, until: sent[0].recordedAt)
            #expect(try await storage.samples(span, after: nil, limit: 10).items == [sent[1]])
        }
    }

    @Test func pagesStayRightWhileSamplesCome() async throws {
        try await withStorage { storage, clock async throws in
            for number in 0..<25 { _ = try await storage.record([timing("t", Double(number), at: clock.now)]) }
            var (seen, position) = ([Double](), CollectionPosition?.none)
            repeat {
                let page = try await storage.samples(SampleFilter(), after: position, limit: 10)
                seen += page.items.map {
                    if case .timing(let seconds, _, _, _) = $0.measurement { seconds } else { -1 }
                }
                position = page.next
                clock.advance(milliseconds: 1)
                _ = try await storage.record([timing("t", 99, at: clock.now)])
            } while position != nil
            #expect(seen == (0..<25).reversed().map(Double.init))
        }
    }

    @Test func namesAndVariantsAreBounded() async throws {
        try await withStorage { storage, clock async throws in
            let names = (0..<Limits.maxSampleNames + 5).map { timing("n\($0)", 1, at: clock.now) }
            let receipt = try await storage.record(names)
            #expect(receipt.accepted == Limits.maxSampleNames + 5)
            #expect(receipt.foldedCount == 5)
            #expect(receipt.foldedNames == (0..<5).map { "n\(Limits.maxSampleNames + $0)" })
            // Known names still go where they belong, and other kinds have names of their own.
            #expect(try await storage.record([timing("n3", 1, at: clock.now)]).foldedCount == 0)
            let gauge = Sample(name: "g", measurement: .gauge(value: 1, unit: nil), recordedAt: clock.now)
            #expect(try await storage.record([gauge]).foldedCount == 0)
            let span = query(clock.now, clock.now.advanced(milliseconds: 1), name: Sample.otherName)
            #expect(try await storage.measure(span).items.first?.total.count == 5)
            let variants = (0..<Limits.maxSampleVariants + 2).map {
                timing("n1", 1, at: clock.now, variant: "v\($0)")
            }
            #expect(try await storage.record(variants).foldedCount == 2)
        }
    }

    /// Two spellings of one text are two texts, as in SQLite, whether they come with one request or with two.
    @Test(arguments: [true, false])
    func spellingsAreToldApart(isOneRequest: Bool) async throws {
        let (composed, decomposed) = ("caf\u{E9}", "cafe\u{301}")
        try await withStorage { storage, clock async throws in
            let samples = [(composed, 1.0), (decomposed, 2), (composed, 4), (decomposed, 8)].flatMap { text, seconds in
                [
                    timing(text, seconds, at: clock.now),
                    timing("t", seconds, at: clock.now, variant: text, session: "s"),
                    Sample(
                        name: text, measurement: .memory(rssBytes: Int64(seconds), vmsBytes: 1, percent: 1),
                        recordedAt: clock.now),
                ]
            }
            if isOneRequest {
                _ = try await storage.record(samples)
            } else {
                for sample in samples { _ = try await storage.record([sample]) }
            }
            for isRolledUp in [false, true] {
                if isRolledUp { try await storage.rollUpSamples() }
                let (since, until) = (clock.now, clock.now.advanced(milliseconds: 1))
                let found = try await storage.measure(query(since, until, grouping: .variant))
                // In the order of their bytes.
                let names = found.items.map { ExactText("\($0.name) \($0.group ?? "")") }
                let texts = ["\(decomposed) ", "\(composed) ", "t \(decomposed)", "t \(composed)"]
                #expect(names == texts.map(ExactText.init))
                #expect(found.items.map(\.total.sum) == [10, 5, 10, 5])
                #expect(found.ungrouped.map(\.total.sum) == [10, 5, 15])
                let memory = query(since, until, kind: .memory, metric: .residentBytes)
                #expect(try await storage.measure(memory).items.map(\.total.sum) == [10, 5])
                let one = try await storage.measure(query(since, until, name: composed))
                #expect(one.items.map(\.total.sum) == [5])
            }
        }
    }

    @Test func spellingsCountAsNamesOfTheirOwn() async throws {
        let (composed, decomposed) = ("caf\u{E9}", "cafe\u{301}")
        try await withStorage { storage, clock async throws in
            let names = (1..<Limits.maxSampleNames).map { "n\($0)" } + [composed, decomposed, "\u{E9}", "e\u{301}"]
            let receipt = try await storage.record(names.map { timing($0, 1, at: clock.now) })
            #expect(receipt.foldedCount == 3)
            #expect(receipt.foldedNames.map(ExactText.init) == names.suffix(3).map(ExactText.init))
            let variants = (1..<Limits.maxSampleVariants).map { "v\($0)" } + [composed, decomposed]
            let folded = try await storage.record(variants.map { timing("n1", 1, at: clock.now, variant: $0) })
            #expect(folded.foldedCount == 1)
        }
    }

    // MARK: Rolling up

    /// The latest by its own clock, whenever it arrived; of two at one instant, the one that arrived later.
    @Test func aLateSampleIsNotTheLastOfItsRollUp() async throws {
        try await withStorage { storage, clock async throws in
            let start = clock.now.rounded(downTo: 6 * hour)
            let arrivals: [(Int64, Double, Double)] = [
                (1000, 1, 1), (500, 2, 1), (1000, 3, 3), (999, 4, 3), (1001, 5, 5),
            ]
            for (milliseconds, value, last) in arrivals {
                _ = try await storage.record([timing("t", value, at: start.advanced(milliseconds: milliseconds))])
                try await storage.rollUpSamples()
                let kept = try await storage.writer.perform { connection in
                    try connection.all("SELECT last FROM sample_rollups ORDER BY period_seconds") { $0.real(0) }
                }
                #expect(kept == [last, last, last])
            }
            let latest = try await storage.writer.perform { connection in
                try connection.all("SELECT DISTINCT last_at_ms FROM sample_rollups") { $0.instant(0) }
            }
            #expect(latest == [start.advanced(milliseconds: 1001)])
        }
    }

    /// A sample counts from the moment it is recorded, and once: before, between and after roll-ups, also of one that
    /// comes late.
    @Test func everySampleIsCountedOnce() async throws {
        try await withStorage { storage, clock async throws in
            let since = clock.now.advanced(milliseconds: -30 * hour)
            let until = clock.now.advanced(milliseconds: 1)
            for round in 0..<4 {
                let samples = (0..<700).map { number in
                    timing("t", Double(number + 1), at: clock.now.advanced(milliseconds: -Int64(number) * 150_000))
                }
                _ = try await storage.record(samples)
                for range in [query(since, until), query(since, until, step: hour)] {
                    let item = try #require(try await storage.measure(range).items.first)
                    #expect(item.total.count == 700 * (round + 1))
                    #expect(item.total.sum == 245_350 * Double(round + 1))
                    if range.stepMilliseconds != nil {
                        #expect(item.steps.values.reduce(0) { $0 + $1.count } == 700 * (round + 1))
                    }
                }
                if round % 2 == 0 { #expect(try await storage.rollUpSamples() == 700 * (round == 0 ? 1 : 2)) }
            }
            #expect(try await storage.rollUpSamples() == 700)
            #expect(try await storage.rollUpSamples() == 0)
            let counts = try await storage.writer.perform { connection in
                try connection.all(
                    "SELECT period_seconds, sum(count) FROM sample_rollups GROUP BY period_seconds ORDER BY 1"
                ) { [$0.int(0), $0.int(1)] }
            }
            #expect(counts == [[60, 2800], [3600, 2800], [21600, 2800]])
        }
    }

    /// The roll-up stops after any of its steps, as in a crash, and another process goes on.
    @Test func aRollUpThatIsCutOffGoesOnWhereItStood() async throws {
        let folder = TemporaryFolder()
        let clock = ManualClock()
        for round in 0..<3 {
            let storage = try makeStorage(in: folder, clock: clock)
            if round == 0 {
                for _ in 0..<3 {
                    _ = try await storage.record((0..<1000).map { timing("t", Double($0 % 7), at: clock.now) })
                }
            }
            _ = try await storage.writer.perform { connection in
                try SampleTransaction(connection, source: .app).rollUp(limit: 400)
            }
            // Undone half-way.
            let undone = await code {
                try await storage.writer.perform { connection in
                    _ = try SampleTransaction(connection, source: .app).rollUp(limit: 400)
                    throw Failure.overloaded("cut off")
                }
            }
            #expect(undone == .overloaded)
            let span = query(clock.now.advanced(milliseconds: -1), clock.now.advanced(milliseconds: 1))
            #expect(try await storage.measure(span).items.first?.total.count == 3000)
            if round == 2 { #expect(try await storage.rollUpSamples() == 1800) }
            await storage.close()
        }
        let storage = try makeStorage(in: folder, clock: clock)
        let sums = try await storage.writer.perform { connection in
            try connection.all("SELECT sum(count) FROM sample_rollup_buckets GROUP BY period_seconds") { $0.int(0) }
        }
        #expect(sums == [3000, 3000, 3000])
        // Numbers of samples never come again, even when all are removed.
        clock.advance(milliseconds: 8 * 24 * hour)
        _ = try await storage.perform(.sampleRetention, isDryRun: false)
        await storage.close()
        let reopened = try makeStorage(in: folder, clock: clock)
        _ = try await reopened.record([timing("t", 1, at: clock.now)])
        #expect(try await reopened.rollUpSamples() == 1)
        await reopened.close()
    }

    @Test func racingRecordersAndRollUpsLoseNothing() async throws {
        try await withStorage { storage, clock async throws in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for task in 0..<8 {
                    group.addTask {
                        for round in 0..<20 {
                            let instant = clock.now.advanced(milliseconds: -Int64(round) * 61_000)
                            let samples = (0..<25).map { self.timing("t\(task % 3)", Double($0), at: instant) }
                            _ = try await storage.record(samples)
                        }
                    }
                }
                for _ in 0..<2 { group.addTask { for _ in 0..<20 { try await storage.rollUpSamples() } } }
                try await group.waitForAll()
            }
            try await storage.rollUpSamples()
            let all = query(clock.now.advanced(milliseconds: -2 * hour), clock.now.advanced(milliseconds: 1))
            let items = try await storage.measure(all).items
            #expect(items.map(\.name) == ["t0", "t1", "t2"])
            #expect(items.reduce(0) { $0 + $1.total.count } == 4000)
        }
    }

    // MARK: Resolutions

    @Test func theFinestResolutionThatCoversIsUsed() async throws {
        try await withStorage { storage, clock async throws in
            // Whose sums are exact in whatever order.
            let values = (1...500).map { Double($0) / 128 }
            _ = try await storage.record(
                values.enumerated().map { timing("t", $1, at: clock.now.advanced(milliseconds: -Int64($0))) })
            try await storage.rollUpSamples()
            let start = clock.now.advanced(milliseconds: -hour)
            let end = clock.now.advanced(milliseconds: 1)
            let raw = try await storage.measure(query(start, end))
            #expect(raw.resolution == .raw)
            #expect(raw.items[0].total.ordered.quantile(0.5) == 250.5 / 128)
            // Ten days later nothing is left but roll-ups.
            clock.advance(milliseconds: 10 * 24 * hour)
            #expect(try await storage.perform(.sampleRetention, isDryRun: true).removed == 500)
            #expect(try await storage.perform(.sampleRetention, isDryRun: false).removed == 500)
            let spans = [
                (start, end, MetricResolution.minute), (start, start.advanced(milliseconds: 3 * 24 * hour), .hour),
                (clock.now.advanced(milliseconds: -11 * 24 * hour), clock.now, .sixHours),
            ]
            for (since, until, resolution) in spans {
                let rolled = try await storage.measure(query(since, until))
                #expect(rolled.resolution == resolution)
                let total = try #require(rolled.items.first).total
                #expect(total.count == 500)
                #expect(total.sum == values.reduce(0, +))
                #expect((total.min, total.max) == (1.0 / 128, 500.0 / 128))
                for fraction in [0.5, 0.9, 0.99] {
                    let expected = raw.items[0].total.ordered.quantile(fraction)!
                    #expect(abs(total.ordered.quantile(fraction)! - expected) <= 0.01 * expected)
                }
            }
        }
    }

    @Test func groupsAreToldApart() async throws {
        try await withStorage { storage, clock async throws in
            _ = try await storage.record([
                timing("t", 1, at: clock.now, cache: .hit, variant: "a", session: "s1"),
                timing("t", 2, at: clock.now, cache: .miss, variant: "a", session: "s2"),
                timing("t", 3, at: clock.now, cache: .miss, variant: "b", outcome: .error),
            ])
            for isRolledUp in [false, true] {
                if isRolledUp { try await storage.rollUpSamples() }
                let (since, until) = (clock.now, clock.now.advanced(milliseconds: 1))
                let all = try await storage.measure(query(since, until)).items[0].total
                #expect(all.cacheHitRatio == 1.0 / 3)
                #expect(all.errorCount == 1)
                let variants = try await storage.measure(query(since, until, grouping: .variant))
                #expect(variants.items.map(\.group) == ["a", "b"])
                #expect(variants.items.map(\.total.sum) == [3, 3])
                #expect(variants.ungrouped.map(\.total.count) == [3])
                let sessions = try await storage.measure(query(since, until, grouping: .session))
                #expect(sessions.items.map(\.group) == [nil, "s1", "s2"])
                let caches = try await storage.measure(query(since, until, grouping: .cache))
                #expect(caches.items.map(\.total.count) == [1, 2])
            }
        }
    }

    @Test func memoryHasThreeFigures() async throws {
        try await withStorage { storage, clock async throws in
            for (number, instant) in [0, -90_000, -200_000].enumerated() {
                let memory = Sample.Measurement.memory(
                    rssBytes: Int64(100 + number), vmsBytes: Int64(200 + number), percent: Double(number))
                _ = try await storage.record([
                    Sample(
                        name: "app", measurement: memory, recordedAt: clock.now.advanced(milliseconds: Int64(instant)))
                ])
            }
            for isRolledUp in [false, true] {
                if isRolledUp {
                    clock.advance(milliseconds: 9 * 24 * hour)
                    _ = try await storage.perform(.sampleRetention, isDryRun: false)
                }
                let since = clock.now.advanced(milliseconds: -10 * 24 * hour)
                for (metric, first) in [(SampleMetric.residentBytes, 100.0), (.virtualBytes, 200), (.percent, 0)] {
                    let span = query(since, clock.now.advanced(milliseconds: 1), kind: .memory, metric: metric)
                    let total = try #require(try await storage.measure(span).items.first).total
                    #expect(total.count == 3)
                    #expect((total.min, total.max, total.last) == (first, first + 2, first))
                }
            }
        }
    }

    /// What is rolled up of the last hours, and what came late, for ten days ago, and is not.
    @Test func memoryThatCameLateIsCountedBesideRollUps() async throws {
        try await withStorage { storage, clock async throws in
            func memory(_ hours: Int64) -> Sample {
                Sample(
                    name: "app", measurement: .memory(rssBytes: hours, vmsBytes: 2 * hours, percent: 3),
                    recordedAt: clock.now.advanced(milliseconds: -hours * hour))
            }
            _ = try await storage.record([memory(200), memory(100), memory(1)])
            try await storage.rollUpSamples()
            _ = try await storage.record([memory(240)])
            let span = (clock.now.advanced(milliseconds: -241 * hour), clock.now.advanced(milliseconds: 1))
            for (metric, sum) in [(SampleMetric.residentBytes, 541.0), (.virtualBytes, 1082), (.percent, 12)] {
                let found = try await storage.measure(query(span.0, span.1, kind: .memory, metric: metric))
                #expect(found.resolution == .sixHours)
                #expect(found.items.map(\.total.sum) == [sum])
            }
        }
    }

    @Test func theServicesOwnTimingsAreRollUpsFromTheStart() async throws {
        try await withStorage { storage, clock async throws in
            let timing = ServiceTiming(
                name: "GET /v1/cache", errorCount: 1, sumSeconds: 0.3, minSeconds: 0.1, maxSeconds: 0.2,
                buckets: [0.1, 0.2].map { Distribution.BucketCount(bucket: SketchBucket.index(of: $0), count: 1) })
            try await storage.record([timing, timing], at: clock.now)
            let span = MetricRange(
                since: clock.now.advanced(milliseconds: -1000), until: clock.now.advanced(milliseconds: 1))
            let found = try await storage.measure(
                MetricQuery(kind: .timing, metric: .duration, source: .service, range: span))
            #expect(found.resolution == .minute)
            #expect(found.items.map(\.name) == ["GET /v1/cache"])
            #expect(found.items[0].total.count == 4)
            #expect(found.items[0].total.errorCount == 2)
            #expect(try await storage.measure(MetricQuery(kind: .timing, metric: .duration, range: span)).items == [])
        }
    }

    // MARK: Keeping it bounded

    @Test func oldRollUpsAndTheirSeriesGo() async throws {
        try await withStorage { storage, clock async throws in
            _ = try await storage.record([timing("old", 1, at: clock.now)])
            try await storage.rollUpSamples()
            clock.advance(milliseconds: 91 * 24 * hour)
            _ = try await storage.record([timing("new", 1, at: clock.now)])
            let preview = try await storage.perform(.sampleRetention, isDryRun: true)
            // The sample and its three roll-ups.
            #expect(preview.removed == 4)
            #expect(try await storage.perform(.sampleRetention, isDryRun: false) == preview)
            let names = try await storage.writer.perform { connection in
                try connection.all("SELECT name FROM sample_series") { $0.text(0) }
            }
            #expect(names == ["new"])
        }
    }

    // MARK: Views

    @Test(arguments: [false, true])
    func viewsAgreeWithTheAnswers(isRolledUp: Bool) async throws {
        try await withStorage { storage, clock async throws in
            let values = (1...2000).map { Double($0 * $0 % 9973) / 1000 + 0.001 }
            for start in stride(from: 0, to: 2000, by: 500) {
                _ = try await storage.record(
                    values[start..<start + 500].enumerated().map { number, value in
                        timing(
                            "t\(number % 2)", value, at: clock.now.advanced(milliseconds: -Int64(number)),
                            cache: number % 4 < 2 ? .hit : .miss)
                    })
            }
            if isRolledUp { try await storage.rollUpSamples() }
            let span = query(clock.now.advanced(milliseconds: -hour), clock.now.advanced(milliseconds: 1))
            let items = try await storage.measure(span).items
            let rows = try await storage.writer.perform { connection in
                try connection.all(
                    """
                    SELECT name, count, min_seconds, max_seconds, mean_seconds, p50_seconds, p95_seconds,
                        cache_hit_ratio
                    FROM operation_stats ORDER BY name
                    """
                ) { row in (row.text(0), row.int(1), (2..<8).map { row.real($0) }) }
            }
            #expect(rows.map(\.0) == ["t0", "t1"])
            for (row, item) in zip(rows, items) {
                let total = item.total
                #expect(row.1 == total.count)
                let expected = [
                    total.min, total.max, total.mean!, total.ordered.quantile(0.5)!, total.ordered.quantile(0.95)!,
                    total.cacheHitRatio!,
                ]
                for (value, expected) in zip(row.2, expected) { #expect(abs(value - expected) <= 0.01 * expected) }
            }
        }
    }
}
