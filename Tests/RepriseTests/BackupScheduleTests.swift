// When a backup is due.

import Domain
import Testing

@testable import reprise

struct BackupScheduleTests {
    private static let start = Instant(milliseconds: 1_800_000_000_000)
    private static let interval: Int64 = 86_400_000
    private var schedule = BackupSchedule()

    private static func after(_ seconds: Int64) -> Instant { start.advanced(milliseconds: seconds * 1000) }

    /// Seconds after the start.
    private mutating func isDue(_ now: Int64, latest: Int64? = nil, interval: Int64 = interval) -> Bool {
        schedule.isDue(
            now: Self.after(now), intervalMilliseconds: interval, latest: latest.map(Self.after))
    }

    @Test mutating func withoutAnIntervalItNeverIs() {
        #expect(!isDue(0, interval: 0) && !isDue(1_000_000, latest: 0, interval: 0))
    }

    @Test mutating func theFirstIsDueAtOnceAndTheNextAfterTheInterval() {
        #expect(isDue(0))
        schedule.succeeded(at: Self.after(10))
        #expect(!isDue(11, latest: 0) && !isDue(86_409, latest: 0))
        #expect(isDue(86_410, latest: 0))
    }

    @Test mutating func oneMadeBeforeARestartCounts() {
        #expect(!isDue(0, latest: -86_399))
        schedule = BackupSchedule()
        #expect(isDue(0, latest: -86_400))
    }

    @Test mutating func oneThatSomebodyAskedForCounts() {
        schedule.succeeded(at: Self.after(0))
        #expect(!isDue(86_400, latest: 50_000))
        #expect(isDue(136_400, latest: 50_000))
    }

    @Test mutating func afterFailuresThePauseDoublesUpToAnHour() {
        var now: Int64 = 0
        for pause: Int64 in [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600] {
            #expect(isDue(now))
            schedule.failed(at: Self.after(now))
            #expect(!isDue(now + pause - 1))
            now += pause
        }
        #expect(isDue(now))
        schedule.succeeded(at: Self.after(now))
        schedule.failed(at: Self.after(now + 86_400))
        #expect(isDue(now + 86_460))
    }

    @Test mutating func aClockThatIsSetBackDelaysItByOneIntervalAtMost() {
        schedule.succeeded(at: Self.after(31_536_000))
        #expect(!isDue(0, latest: 31_536_000))
        #expect(isDue(86_400, latest: 31_536_000))
        schedule.succeeded(at: Self.after(86_400))
        // The one that is dated in the future does not make others due each second.
        #expect(!isDue(86_401, latest: 31_536_000))
        schedule.failed(at: Self.after(31_536_000))
        #expect(isDue(172_800, latest: 31_536_000))
    }
}
