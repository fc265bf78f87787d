// Who gives way when there are too many connections.

import Domain
import NIOCore
import NIOEmbedded
import Synchronization
import Testing

@testable import HTTPAPI

struct ConnectionGateTests {
    private let gate = ConnectionGate(limit: 4)
    private let loop = EmbeddedEventLoop()

    /// A connection that was opened now.
    private func connection() throws -> (channel: EmbeddedChannel, activity: ConnectionActivity) {
        let channel = EmbeddedChannel(loop: loop)
        try channel.connect(to: SocketAddress(ipAddress: "192.0.2.1", port: 1)).wait()
        return (channel, gate.opened(channel))
    }

    private func makeRoom(now: NIODeadline) -> Int {
        let count = gate.makeRoom(now: now)
        loop.run()
        return count
    }

    private func later(_ seconds: Double) -> NIODeadline { .now() + .milliseconds(Int64(seconds * 1000)) }

    @Test func aConnectionIsCountedUntilItCloses() throws {
        let first = try connection()
        _ = gate.opened(first.channel)
        let second = try connection()
        #expect(gate.count == 2)
        first.channel.close(promise: nil)
        loop.run()
        #expect(gate.count == 1)
        second.channel.close(promise: nil)
        loop.run()
        #expect(gate.count == 0)
    }

    @Test func theIdleGiveWayAfterAWhile() throws {
        let idle = try connection()
        let busy = try connection()
        busy.activity.requestBegan()
        #expect(makeRoom(now: later(Limits.minIdleSeconds - 0.5)) == 0)
        #expect(makeRoom(now: later(Limits.minIdleSeconds + 0.5)) == 1)
        #expect(!idle.channel.isActive && busy.channel.isActive)
        busy.activity.requestEnded()
        #expect(makeRoom(now: later(Limits.minIdleSeconds + 0.5)) == 1)
        #expect(gate.count == 0)
    }

    @Test func thoseIdleLongestGoFirstAndNotAll() throws {
        var connections: [(channel: EmbeddedChannel, activity: ConnectionActivity)] = []
        for index in 0..<(2 * Limits.connectionsThatGiveWay) {
            let made = try connection()
            made.activity.requestBegan()
            made.activity.requestEnded(now: .now() - .seconds(Int64(index)))
            connections.append(made)
        }
        #expect(makeRoom(now: later(10)) == Limits.connectionsThatGiveWay)
        let kept = connections.map(\.channel.isActive)
        #expect(kept == (0..<kept.count).map { $0 < Limits.connectionsThatGiveWay })
    }

    @Test func aTricklingBodyGivesWayAndASteadyOneDoesNot() throws {
        let trickling = try connection()
        let steady = try connection()
        for (_, activity) in [trickling, steady] {
            activity.requestBegan()
            activity.bodyBegan()
        }
        trickling.activity.bodyArrived(100)
        steady.activity.bodyArrived(Limits.minStreamedBytesPerSecond * 10)
        #expect(makeRoom(now: later(Limits.minSlowBodySeconds - 0.5)) == 0)
        #expect(makeRoom(now: later(Limits.minSlowBodySeconds + 1)) == 1)
        #expect(!trickling.channel.isActive && steady.channel.isActive)
        steady.activity.bodyEnded()
        #expect(makeRoom(now: later(1000)) == 0)
    }

    @Test func aReaderThatStopsGivesWay() throws {
        let reader = try connection()
        reader.activity.requestBegan()
        reader.activity.stalled(since: .now())
        #expect(makeRoom(now: later(Limits.minStalledSeconds - 1)) == 0)
        reader.activity.stalled(since: nil)
        #expect(makeRoom(now: later(Limits.minStalledSeconds + 1)) == 0)
        reader.activity.stalled(since: .now())
        #expect(makeRoom(now: later(Limits.minStalledSeconds + 1)) == 1)
    }

    @Test func theIdleGoBeforeTheSlow() throws {
        let slow = try connection()
        slow.activity.requestBegan()
        slow.activity.bodyBegan(now: .now() - .seconds(1000))
        var idle: [EmbeddedChannel] = []
        for _ in 0..<Limits.connectionsThatGiveWay { idle.append(try connection().channel) }
        #expect(makeRoom(now: later(5)) == Limits.connectionsThatGiveWay)
        #expect(slow.channel.isActive && idle.allSatisfy { !$0.isActive })
    }

    @Test func noMoreGoBeforeThoseHaveGone() throws {
        for _ in 0..<(2 * Limits.connectionsThatGiveWay) { _ = try connection() }
        for _ in 0..<3 { #expect(gate.makeRoom(now: later(10)) == Limits.connectionsThatGiveWay) }
        loop.run()
        #expect(gate.count == Limits.connectionsThatGiveWay)
    }

    @Test func incompleteHeadsAreBoundedTogether() throws {
        let count = Limits.maxHeldHeadBytes / Limits.maxHeaderBytes
        let others = try connection()
        let holders = try (0...count).map { _ in try connection() }
        for (place, holder) in holders.prefix(count).enumerated() {
            gate.head(Limits.maxHeaderBytes, of: holder.activity, now: later(Double(place)))
        }
        // The first is complete, and begins another.
        gate.head(0, of: holders[0].activity)
        gate.head(Limits.maxHeaderBytes, of: holders[0].activity, now: later(5000))
        loop.run()
        #expect(gate.count == count + 2)
        gate.head(1, of: holders[count].activity, now: later(5001))
        loop.run()
        // The oldest go until a quarter is free.
        let dropped = count / 4 + 1
        #expect(gate.count == count + 2 - dropped)
        #expect(holders[1...dropped].allSatisfy { !$0.channel.isActive })
        #expect(others.channel.isActive && holders[0].channel.isActive && holders[dropped + 1].channel.isActive)
        // What they held is free for others.
        for holder in holders[1...dropped] { gate.head(Limits.maxHeaderBytes, of: holder.activity) }
        #expect(gate.count == count + 2 - dropped)
    }

    @Test func theEndOfABurstIsToldOnce() throws {
        let ends = Atomic(0)
        let gate = ConnectionGate(limit: 1000) { ends.wrappingAdd(1, ordering: .relaxed) }
        func burst(_ count: Int) throws {
            let channels = try (0..<count).map { _ in
                let channel = EmbeddedChannel(loop: loop)
                try channel.connect(to: SocketAddress(ipAddress: "192.0.2.1", port: 1)).wait()
                gate.opened(channel)
                return channel
            }
            for channel in channels { channel.close(promise: nil) }
            loop.run()
            #expect(gate.count == 0)
        }
        try burst(Limits.burstConnections - 1)
        #expect(ends.load(ordering: .relaxed) == 0)
        for number in 1...2 {
            try burst(Limits.burstConnections)
            #expect(ends.load(ordering: .relaxed) == number)
        }
    }

    @Test func streamsAreBoundedOnAllConnectionsTogether() throws {
        let streams = try (0..<4).map { _ in
            let stream = try connection().channel
            try gate.opened(stream: stream)
            return stream
        }
        #expect(throws: TooManyStreams.self) { try gate.opened(stream: try connection().channel) }
        streams[0].close(promise: nil)
        loop.run()
        try gate.opened(stream: try connection().channel)
    }
}
