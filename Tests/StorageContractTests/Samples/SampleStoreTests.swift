// The contract of SampleStore, run over every storage engine: all kept or none, counted once, rolled up without loss.

import Domain
import TestSupport
import Testing

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

    @Test(arguments: Engine.allCases)
    func newSamplesWaitForTheirRollup(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            #expect(!store.backlog().waiting.contains(.sampleRollup))
            _ = try await store.record([timing("load", 1.5, at: clock.now), timing("load", 2, at: clock.now)])
            #expect(store.backlog().waiting.contains(.sampleRollup))
            #expect(await store.operationalFigures().newSamples == 2)
            _ = try await store.perform(.sampleRollup, isDryRun: false)
            #expect(!store.backlog().waiting.contains(.sampleRollup))
            #expect(await store.operationalFigures().newSamples == 0)
        }
    }

    @Test(arguments: Engine.allCases)
    func samplesComeBackAsTheyWere(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
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
            #expect(try await store.record(sent) == SampleReceipt(accepted: 3))
            #expect(try await store.samples(SampleFilter(), after: nil, limit: 10).items == sent)
            #expect(try await store.samples(SampleFilter(kind: .memory), after: nil, limit: 10).items == [sent[1]])
            #expect(try await store.samples(SampleFilter(name: "load"), after: nil, limit: 10).items == [sent[0]])
            let session = SampleFilter(sessionID: Name(stored: "s"), variant: "original")
            #expect(try await store.samples(session, after: nil, limit: 10).items == [sent[0]])
            let span = SampleFilter(since: sent[1].recordedAt, until: sent[0].recordedAt)
            #expect(try await store.samples(span, after: nil, limit: 10).items == [sent[1]])
        }
    }

    @Test(arguments: Engine.allCases)
    func pagesStayRightWhileSamplesCome(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            for number in 0..<25 { _ = try await store.record([timing("t", Double(number), at: clock.now)]) }
            var (seen, position) = ([Double](), CollectionPosition?.none)
            repeat {
                let page = try await store.samples(SampleFilter(), after: position, limit: 10)
                seen += page.items.map {
                    if case .timing(let seconds, _, _, _) = $0.measurement { seconds } else { -1 }
                }
                position = page.next
                clock.advance(milliseconds: 1)
                _ = try await store.record([timing("t", 99, at: clock.now)])
            } while position != nil
            #expect(seen == (0..<25).reversed().map(Double.init))
        }
    }

    @Test(arguments: Engine.allCases)
    func namesAndVariantsAreBounded(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            let names = (0..<Limits.maxSampleNames + 5).map { timing("n\($0)", 1, at: clock.now) }
            let receipt = try await store.record(names)
            #expect(receipt.accepted == Limits.maxSampleNames + 5)
            #expect(receipt.foldedCount == 5)
            #expect(receipt.foldedNames == (0..<5).map { "n\(Limits.maxSampleNames + $0)" })
            // Known names still have their own series, and other kinds have their own names.
            #expect(try await store.record([timing("n3", 1, at: clock.now)]).foldedCount == 0)
            let gauge = Sample(name: "g", measurement: .gauge(value: 1, unit: nil), recordedAt: clock.now)
            #expect(try await store.record([gauge]).foldedCount == 0)
            let span = query(clock.now, clock.now.advanced(milliseconds: 1), name: Sample.otherName)
            #expect(try await store.measure(span).items.first?.total.count == 5)
            let variants = (0..<Limits.maxSampleVariants + 2).map {
                timing("n1", 1, at: clock.now, variant: "v\($0)")
            }
            #expect(try await store.record(variants).foldedCount == 2)
        }
    }

    /// Two spellings of one text are two texts, as in SQLite, whether they arrive in one request or in two.
    @Test(arguments: Engine.allCases, [true, false])
    func spellingsAreToldApart(engine: Engine, isOneRequest: Bool) async throws {
        let (composed, decomposed) = ("caf\u{E9}", "cafe\u{301}")
        try await engine.run { store, clock async throws in
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
                _ = try await store.record(samples)
            } else {
                for sample in samples { _ = try await store.record([sample]) }
            }
            for isRolledUp in [false, true] {
                if isRolledUp { try await store.rollUpSamples() }
                let (since, until) = (clock.now, clock.now.advanced(milliseconds: 1))
                let found = try await store.measure(query(since, until, grouping: .variant))
                // In byte order.
                let names = found.items.map { ExactText("\($0.name) \($0.group ?? "")") }
                let texts = ["\(decomposed) ", "\(composed) ", "t \(decomposed)", "t \(composed)"]
                #expect(names == texts.map(ExactText.init))
                #expect(found.items.map(\.total.sum) == [10, 5, 10, 5])
                #expect(found.ungrouped.map(\.total.sum) == [10, 5, 15])
                let memory = query(since, until, kind: .memory, metric: .residentBytes)
                #expect(try await store.measure(memory).items.map(\.total.sum) == [10, 5])
                let one = try await store.measure(query(since, until, name: composed))
                #expect(one.items.map(\.total.sum) == [5])
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func spellingsCountAsNamesOfTheirOwn(engine: Engine) async throws {
        let (composed, decomposed) = ("caf\u{E9}", "cafe\u{301}")
        try await engine.run { store, clock async throws in
            let names = (1..<Limits.maxSampleNames).map { "n\($0)" } + [composed, decomposed, "\u{E9}", "e\u{301}"]
            let receipt = try await store.record(names.map { timing($0, 1, at: clock.now) })
            #expect(receipt.foldedCount == 3)
            #expect(receipt.foldedNames.map(ExactText.init) == names.suffix(3).map(ExactText.init))
            let variants = (1..<Limits.maxSampleVariants).map { "v\($0)" } + [composed, decomposed]
            let folded = try await store.record(variants.map { timing("n1", 1, at: clock.now, variant: $0) })
            #expect(folded.foldedCount == 1)
        }
    }

    // MARK: Rolling up

    /// A sample counts from the moment it is recorded, and exactly once: before, between and after roll-ups, even if it
    /// arrives late.
    @Test(arguments: Engine.allCases)
    func everySampleIsCountedOnce(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            let since = clock.now.advanced(milliseconds: -30 * hour)
            let until = clock.now.advanced(milliseconds: 1)
            for round in 0..<4 {
                let samples = (0..<700).map { number in
                    timing("t", Double(number + 1), at: clock.now.advanced(milliseconds: -Int64(number) * 150_000))
                }
                _ = try await store.record(samples)
                for range in [query(since, until), query(since, until, step: hour)] {
                    let item = try #require(try await store.measure(range).items.first)
                    #expect(item.total.count == 700 * (round + 1))
                    #expect(item.total.sum == 245_350 * Double(round + 1))
                    if range.stepMilliseconds != nil {
                        #expect(item.steps.values.reduce(0) { $0 + $1.count } == 700 * (round + 1))
                    }
                }
                if round % 2 == 0 { #expect(try await store.rollUpSamples() == 700 * (round == 0 ? 1 : 2)) }
            }
            #expect(try await store.rollUpSamples() == 700)
            #expect(try await store.rollUpSamples() == 0)
        }
    }

    @Test(arguments: Engine.allCases)
    func racingRecordersAndRollUpsLoseNothing(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for task in 0..<8 {
                    group.addTask {
                        for round in 0..<20 {
                            let instant = clock.now.advanced(milliseconds: -Int64(round) * 61_000)
                            let samples = (0..<25).map { self.timing("t\(task % 3)", Double($0), at: instant) }
                            _ = try await store.record(samples)
                        }
                    }
                }
                for _ in 0..<2 { group.addTask { for _ in 0..<20 { try await store.rollUpSamples() } } }
                try await group.waitForAll()
            }
            try await store.rollUpSamples()
            let all = query(clock.now.advanced(milliseconds: -2 * hour), clock.now.advanced(milliseconds: 1))
            let items = try await store.measure(all).items
            #expect(items.map(\.name) == ["t0", "t1", "t2"])
            #expect(items.reduce(0) { $0 + $1.total.count } == 4000)
        }
    }

    // MARK: Resolutions

    @Test(arguments: Engine.allCases)
    func theFinestResolutionThatCoversIsUsed(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            // With sums that are exact in any order.
            let values = (1...500).map { Double($0) / 128 }
            _ = try await store.record(
                values.enumerated().map { timing("t", $1, at: clock.now.advanced(milliseconds: -Int64($0))) })
            try await store.rollUpSamples()
            let start = clock.now.advanced(milliseconds: -hour)
            let end = clock.now.advanced(milliseconds: 1)
            let raw = try await store.measure(query(start, end))
            #expect(raw.resolution == .raw)
            #expect(raw.items[0].total.ordered.quantile(0.5) == 250.5 / 128)
            // Ten days later nothing is left but roll-ups.
            clock.advance(milliseconds: 10 * 24 * hour)
            #expect(try await store.perform(.sampleRetention, isDryRun: true).removed == 500)
            #expect(try await store.perform(.sampleRetention, isDryRun: false).removed == 500)
            let spans = [
                (start, end, MetricResolution.minute), (start, start.advanced(milliseconds: 3 * 24 * hour), .hour),
                (clock.now.advanced(milliseconds: -11 * 24 * hour), clock.now, .sixHours),
            ]
            for (since, until, resolution) in spans {
                let rolled = try await store.measure(query(since, until))
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

    @Test(arguments: Engine.allCases)
    func groupsAreToldApart(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            _ = try await store.record([
                timing("t", 1, at: clock.now, cache: .hit, variant: "a", session: "s1"),
                timing("t", 2, at: clock.now, cache: .miss, variant: "a", session: "s2"),
                timing("t", 3, at: clock.now, cache: .miss, variant: "b", outcome: .error),
            ])
            for isRolledUp in [false, true] {
                if isRolledUp { try await store.rollUpSamples() }
                let (since, until) = (clock.now, clock.now.advanced(milliseconds: 1))
                let all = try await store.measure(query(since, until)).items[0].total
                #expect(all.cacheHitRatio == 1.0 / 3)
                #expect(all.errorCount == 1)
                let variants = try await store.measure(query(since, until, grouping: .variant))
                #expect(variants.items.map(\.group) == ["a", "b"])
                #expect(variants.items.map(\.total.sum) == [3, 3])
                #expect(variants.ungrouped.map(\.total.count) == [3])
                let sessions = try await store.measure(query(since, until, grouping: .session))
                #expect(sessions.items.map(\.group) == [nil, "s1", "s2"])
                let caches = try await store.measure(query(since, until, grouping: .cache))
                #expect(caches.items.map(\.total.count) == [1, 2])
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func memoryHasThreeFigures(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            for (number, instant) in [0, -90_000, -200_000].enumerated() {
                let memory = Sample.Measurement.memory(
                    rssBytes: Int64(100 + number), vmsBytes: Int64(200 + number), percent: Double(number))
                _ = try await store.record([
                    Sample(
                        name: "app", measurement: memory, recordedAt: clock.now.advanced(milliseconds: Int64(instant)))
                ])
            }
            for isRolledUp in [false, true] {
                if isRolledUp {
                    clock.advance(milliseconds: 9 * 24 * hour)
                    _ = try await store.perform(.sampleRetention, isDryRun: false)
                }
                let since = clock.now.advanced(milliseconds: -10 * 24 * hour)
                for (metric, first) in [(SampleMetric.residentBytes, 100.0), (.virtualBytes, 200), (.percent, 0)] {
                    let span = query(since, clock.now.advanced(milliseconds: 1), kind: .memory, metric: metric)
                    let total = try #require(try await store.measure(span).items.first).total
                    #expect(total.count == 3)
                    #expect((total.min, total.max, total.last) == (first, first + 2, first))
                }
            }
        }
    }

    /// Samples of the last hours, which are rolled up, and late ones from ten days ago, which are not.
    @Test(arguments: Engine.allCases)
    func memoryThatCameLateIsCountedBesideRollUps(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            func memory(_ hours: Int64) -> Sample {
                Sample(
                    name: "app", measurement: .memory(rssBytes: hours, vmsBytes: 2 * hours, percent: 3),
                    recordedAt: clock.now.advanced(milliseconds: -hours * hour))
            }
            _ = try await store.record([memory(200), memory(100), memory(1)])
            try await store.rollUpSamples()
            _ = try await store.record([memory(240)])
            let span = (clock.now.advanced(milliseconds: -241 * hour), clock.now.advanced(milliseconds: 1))
            for (metric, sum) in [(SampleMetric.residentBytes, 541.0), (.virtualBytes, 1082), (.percent, 12)] {
                let found = try await store.measure(query(span.0, span.1, kind: .memory, metric: metric))
                #expect(found.resolution == .sixHours)
                #expect(found.items.map(\.total.sum) == [sum])
            }
        }
    }

    @Test(arguments: Engine.allCases)
    func theServicesOwnTimingsAreRollUpsFromTheStart(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            let timing = ServiceTiming(
                name: "GET /v1/cache", errorCount: 1, sumSeconds: 0.3, minSeconds: 0.1, maxSeconds: 0.2,
                buckets: [0.1, 0.2].map { Distribution.BucketCount(bucket: SketchBucket.index(of: $0), count: 1) })
            try await store.record([timing, timing], at: clock.now)
            let span = MetricRange(
                since: clock.now.advanced(milliseconds: -1000), until: clock.now.advanced(milliseconds: 1))
            let found = try await store.measure(
                MetricQuery(kind: .timing, metric: .duration, source: .service, range: span))
            #expect(found.resolution == .minute)
            #expect(found.items.map(\.name) == ["GET /v1/cache"])
            #expect(found.items[0].total.count == 4)
            #expect(found.items[0].total.errorCount == 2)
            #expect(try await store.measure(MetricQuery(kind: .timing, metric: .duration, range: span)).items == [])
        }
    }

    // MARK: Views
}

extension MaintenanceStore where Self: OperationalStore {
    /// Adds recorded samples to their roll-ups.
    /// - Returns: the number of samples, if none is recorded in the meantime.
    @discardableResult
    fileprivate func rollUpSamples() async throws -> Int {
        let waiting = await operationalFigures().newSamples
        _ = try await perform(.sampleRollup, isDryRun: false)
        return waiting - (await operationalFigures().newSamples)
    }
}
