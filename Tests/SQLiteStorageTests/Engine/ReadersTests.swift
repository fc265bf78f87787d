// Lanes of reads: none waits for another, each is bounded, and all end when told to.

import Domain
import TestSupport
import Testing

@testable import SQLiteStorage

@Suite(.timeLimit(.minutes(5))) struct ReadersTests {
    private static let endless = """
        WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c
        """

    /// Runs `body` while all threads of a lane are held and `waiting` more reads of it wait.
    private func whileHolding(
        _ lane: ReadLane, of storage: SQLiteStorage, waiting: Int = 3, _ body: () async throws -> Void
    ) async throws {
        let gate = Gate()
        let (starts, started) = AsyncStream<Void>.makeStream()
        try await withThrowingTaskGroup { group in
            for _ in 0..<lane.bounds.threads + waiting {
                group.addTask {
                    try await storage.readers.pooled(lane) { _ in
                        started.yield()
                        gate.wait()
                    }
                }
            }
            var held = 0
            for await _ in starts {
                held += 1
                if held == lane.bounds.threads { break }
            }
            let result: Result<Void, any Error>
            do { result = .success(try await body()) } catch { result = .failure(error) }
            for _ in 0..<lane.bounds.threads + waiting { gate.open() }
            try await group.waitForAll()
            try result.get()
        }
    }

    // MARK: Independence

    @Test(arguments: ReadLane.allCases) func aHeldLaneDelaysNoOther(held: ReadLane) async throws {
        try await withStorage { storage, _ in
            try await whileHolding(held, of: storage) {
                for lane in ReadLane.allCases where lane != held {
                    let one = try await storage.readers.pooled(lane) { try $0.first("SELECT 1") { $0.int(0) } }
                    #expect(one == 1)
                }
            }
        }
    }

    @Test func aggregatesDelayNoDownloadListOrScrape() async throws {
        try await withStorage { storage, clock in
            let value = noise(4 * Limits.chunkBytes)
            try await storage.upload("large", value)
            try await whileHolding(.aggregates, of: storage) {
                #expect(try await storage.bytes("large") == value)
                #expect(try await storage.keys() == ["large"])
                #expect(try await storage.namespace(.n).entryCount == 1)
                _ = await storage.operationalFigures()
                _ = try await storage.perform(.cacheExpiry, isDryRun: true)
            }
            try await whileHolding(.lists, of: storage) {
                #expect(try await storage.bytes("large") == value)
                let range = MetricRange(since: clock.now.advanced(milliseconds: -1000), until: clock.now)
                _ = try await storage.measure([MetricQuery(kind: .timing, metric: .duration, range: range)])
            }
        }
    }

    // MARK: Bounds

    @Test func whatMayNotWaitIsRefused() async throws {
        try await withStorage { storage, _ in
            var reads: [Task<Failure.Code?, Never>] = []
            let (refusals, refused) = AsyncStream<Void>.makeStream()
            try await whileHolding(.aggregates, of: storage, waiting: 0) {
                for _ in 0...ReadLane.aggregates.bounds.maxQueued {
                    reads.append(
                        Task {
                            let code = await code { try await storage.readers.pooled(.aggregates) { _ in } }
                            if code == .overloaded { refused.yield() }
                            return code
                        })
                }
                // Any one of them exceeds the bound; it is refused while the others wait.
                for await _ in refusals { break }
            }
            var codes: [Failure.Code?] = []
            for read in reads { codes.append(await read.value) }
            #expect(codes.count { $0 == .overloaded } == 1)
            #expect(codes.count { $0 == nil } == ReadLane.aggregates.bounds.maxQueued)
        }
    }

    /// Refusing a chunk would abort a download.
    @Test func eachConnectionMayWaitForAChunk() {
        #expect(StorageLimits.chunkReads.maxQueued >= Limits.maxConnections)
    }

    // MARK: Ending

    /// The signal alone interrupts running reads and waiting ones.
    @Test func aggregatesEndWhenTold() async throws {
        try await withStorage { storage, _ in
            let gate = Gate()
            let (starts, started) = AsyncStream<Void>.makeStream()
            let count = ReadLane.aggregates.bounds.threads + 2
            try await withThrowingTaskGroup { group in
                for _ in 0..<count {
                    group.addTask {
                        let code = await code {
                            try await storage.readers.pooled(.aggregates) { connection in
                                started.yield()
                                gate.wait()
                                try connection.execute(Self.endless)
                            }
                        }
                        #expect(code == .shuttingDown)
                    }
                }
                for await _ in starts { break }
                storage.endLongReads()
                for _ in 0..<count { gate.open() }
                try await group.waitForAll()
            }
            // The rest continues.
            try await storage.put("key")
            #expect(try await storage.keys() == ["key"])
            #expect(await code { try await storage.answer(SQLQuery("SELECT 1")) } == .shuttingDown)
        }
    }

    @Test func closingEndsEveryLane() async throws {
        let folder = TemporaryFolder()
        let storage = try makeStorage(in: folder, clock: ManualClock())
        let (starts, started) = AsyncStream<Void>.makeStream()
        let gate = Gate()
        await withTaskGroup { group in
            for lane in ReadLane.allCases {
                group.addTask {
                    let code = await code {
                        try await storage.readers.pooled(lane) { connection in
                            started.yield()
                            gate.wait()
                            try connection.execute(Self.endless)
                        }
                    }
                    #expect(code == .shuttingDown)
                }
            }
            var count = 0
            for await _ in starts {
                count += 1
                if count == ReadLane.allCases.count { break }
            }
            group.addTask { await storage.close() }
            for _ in ReadLane.allCases { gate.open() }
        }
    }

    /// The signal lasts: it cannot come too early.
    @Test func aSignalBeforeTheStatementEndsItToo() throws {
        let folder = TemporaryFolder()
        let signal = StopSignal()
        let connection = try Connection(path: folder.file("t.db"), mode: .writer, watch: Watch(signal: signal))
        signal.raise()
        #expect(throws: SQLiteError.self) { try connection.execute(Self.endless) }
    }
}
