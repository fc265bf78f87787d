// What is left after a power cut: docs/design/faults.md.

import Domain
import FoundationEssentials
import TestSupport
import Testing

@testable import SQLiteStorage

/// Two variables of the environment explore other schedules than those of `make test`: `REPRISE_POWER_CUT_SEED`, the
/// first seed, and `REPRISE_POWER_CUT_SCHEDULES`, how many each test runs. A failure names its seed.
@Suite struct PowerCutTests {
    private static func number(_ variable: String) -> Int? {
        ProcessInfo.processInfo.environment[variable].flatMap { Int($0) }
    }

    private static let firstSeed = number("REPRISE_POWER_CUT_SEED") ?? 1
    private static let schedules = number("REPRISE_POWER_CUT_SCHEDULES") ?? 50
    /// Tests of the same kind that run at the same time.
    private static let parts = 0..<4

    private static func run(part: Int, isDurable: Bool) async throws {
        var total = Schedule.Report()
        for index in stride(from: part, to: schedules, by: parts.count) {
            let schedule = Schedule(seed: UInt64(firstSeed + index), isDurable: isDurable)
            do {
                total += try await schedule.run()
            } catch {
                Issue.record("\(error)")
            }
        }
        if number("REPRISE_POWER_CUT_SCHEDULES") != nil {
            print("durable \(isDurable), part \(part): \(total)")
        }
        #expect(total.cuts > 0 || schedules < parts.count)
    }

    @Test(arguments: parts) func acknowledgedWritesSurvive(part: Int) async throws {
        try await Self.run(part: part, isDurable: true)
    }

    /// The last operations may be gone, the file may not: what is left is the state after one of them.
    @Test(arguments: parts) func withoutDurabilityThereIsAPrefix(part: Int) async throws {
        try await Self.run(part: part, isDurable: false)
    }

    /// The tests above would be worth nothing if they passed on a disk that syncs nothing.
    @Test func aDiskThatLiesIsNoticed() async throws {
        var noticed = 0
        for seed in 1...20 {
            do {
                _ = try await Schedule(seed: UInt64(seed), diskLies: true).run()
            } catch is Damage {
                noticed += 1
            }
        }
        #expect(noticed > 10)
    }

    /// The same seed makes the same changes and leaves the same behind.
    @Test func aDiskRepeats() throws {
        func contents(_ seed: UInt64, _ kind: SimulatedDisk.Kind) throws -> [UInt8] {
            let (folder, left) = (TemporaryFolder(), TemporaryFolder())
            let disk = try SimulatedDisk(folder: folder.path)
            do {
                let connection = try Connection(path: folder.file("t.db"), mode: .writer)
                try connection.execute("PRAGMA synchronous = OFF; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
            }
            disk.cut()
            try disk.write(kind, seed: seed, to: left.path)
            return left.contents("t.db") ?? []
        }
        #expect(try contents(1, .losesAll).isEmpty)
        #expect(try contents(1, .keepsAll).count == 8192)
        #expect(try contents(1, .tears) == contents(1, .tears))
        #expect(try (1...20).contains { try contents($0, .tears) != contents(1, .tears) })
    }
}
