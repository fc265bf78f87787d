// How large the parts of large values are while many are being sent.

import Domain
import Testing

@testable import HTTPAPI

struct DownloadsTests {
    @Test func partsShrinkSoThatTheirSumIsBounded() {
        #expect(Downloads.partBytes(beside: 1) == Limits.chunkBytes)
        #expect(Downloads.partBytes(beside: Limits.fewDownloads + 1) == Limits.chunkBytes / 4)
        #expect(Downloads.partBytes(beside: Limits.manyDownloads + 1) == Limits.chunkBytes / 16)
        // Each holds three parts of the size at which it stopped.
        let held = (1...Limits.maxConnections).reduce(0) { $0 + 3 * Downloads.partBytes(beside: $1) }
        #expect(held < 100 << 20)
    }

    @Test func whoeverIsSentAPartCounts() async throws {
        let downloads = Downloads()
        try await withThrowingTaskGroup { group in
            let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
            for _ in 0..<Limits.manyDownloads + 1 {
                group.addTask {
                    await downloads.counting {
                        continuation.yield()
                        try? await Task.sleep(for: .seconds(600))
                    }
                }
            }
            var begun = stream.makeAsyncIterator()
            for _ in 0..<Limits.manyDownloads + 1 { await begun.next() }
            #expect(downloads.partBytes == Limits.chunkBytes / 16)
            group.cancelAll()
            try await group.waitForAll()
        }
        #expect(downloads.partBytes == Limits.chunkBytes)
    }
}
