// Counting into fixed bounds.

import Domain
import Testing

struct HistogramTests {
    @Test func boundsBelongToTheirBucket() {
        var histogram = Histogram(bounds: [1, 2.5])
        for value in [-1, 0, 1, 1.0.nextUp, 2.5, 2.5.nextUp, 1e300] { histogram.add(value) }
        #expect(histogram.counts == [3, 2, 2])
        #expect(histogram.count == 7)
    }

    @Test func sumsWhatItIsGiven() {
        var histogram = Histogram(bounds: [])
        for _ in 0..<4 { histogram.add(0.25) }
        #expect(histogram.sum == 1)
        #expect(histogram.counts == [4])
    }

    @Test func durationsAreSeconds() {
        #expect(Duration.milliseconds(1500).seconds == 1.5)
        #expect(Duration.zero.seconds == 0)
        #expect(Duration.seconds(86_400 * 365).seconds == 31_536_000)
    }
}
