// What the kernel says about the process the tests run in.

import Domain
import FoundationEssentials
import Testing

@testable import reprise

struct ProcessFiguresTests {
    @Test(.enabled(if: FileManager.default.fileExists(atPath: "/proc/self/statm")))
    func theKernelsFiguresAreRead() throws {
        let figures = try #require(ProcessFigures.current)
        #expect(figures.residentBytes > 1_000_000 && figures.residentBytes < figures.virtualBytes)
        #expect(figures.memoryPercent > 0 && figures.memoryPercent <= 100)
        #expect(figures.cpuSeconds > 0)
        #expect(figures.openDescriptors > 2 && figures.openDescriptors <= figures.maxDescriptors)
        // After 2020.
        #expect(figures.startedAt > 1_577_836_800)
    }
}
