// What JSON bodies may take of memory, together and by caller.

import Domain
import NIOCore
import Testing

@testable import HTTPAPI

struct BodyBudgetTests {
    let budget = BodyBudget(short: 120, long: 1200)

    @Test func aCallerAloneGetsAHalf() throws {
        let first = BodyReservation(budget.long, for: .v4(1))
        let second = BodyReservation(budget.long, for: .v4(1))
        try first.take(400)
        try second.take(200)
        let third = BodyReservation(budget.long, for: .v4(1))
        try expectFailure(.overloaded) { try third.take(1) }
        #expect(budget.long.heldBytes == 600)
    }

    /// However many have taken what they can, the next one finds room.
    @Test func whoComesNextFindsRoom() throws {
        var held: [BodyReservation] = []
        var free = 1200
        for caller in 0..<8 {
            let body = BodyReservation(budget.long, for: .v4(UInt32(caller)))
            var taken = 0
            while (try? body.take(1)) != nil { taken += 1 }
            #expect(taken == free / 2, "caller \(caller)")
            free -= taken
            held.append(body)
        }
        #expect(free > 0)
        #expect(budget.long.heldBytes == 1200 - free)
    }

    @Test func longBodiesLeaveShortOnesTheirs() throws {
        let long = BodyReservation(budget.long, for: .v4(1))
        try long.take(600)
        let short = BodyReservation(budget.short, for: .v4(1))
        try short.take(60)
        #expect(budget.short.heldBytes == 60)
    }

    @Test func givesBackWhatIsReleasedAndWhatEnds() throws {
        do {
            let body = BodyReservation(budget.long, for: .v4(1))
            try body.take(600)
            body.release(500)
            #expect(budget.long.heldBytes == 100)
            try body.take(500)
        }
        #expect(budget.long.heldBytes == 0)
        try BodyReservation(budget.long, for: .v4(1)).take(600)
    }

    /// To try again would not help it.
    @Test func refusesABodyThatNeverFits() throws {
        let body = BodyReservation(budget.long, for: .v4(1))
        try body.take(600)
        try expectFailure(.payloadTooLarge) { try body.take(1) }
    }

    @Test func callersAreAddressesAndNetworks() throws {
        func caller(_ address: String) throws -> Caller {
            Caller(try SocketAddress(ipAddress: address, port: 1))
        }
        #expect(try caller("192.0.2.1") == caller("192.0.2.1"))
        #expect(try caller("192.0.2.1") != caller("192.0.2.2"))
        #expect(try caller("192.0.2.1") == caller("::ffff:192.0.2.1"))
        #expect(try caller("2001:db8::1") == caller("2001:db8::2"))
        #expect(try caller("2001:db8::1") != caller("2001:db8:0:1::1"))
        #expect(try Caller(SocketAddress(unixDomainSocketPath: "/a")) == Caller(nil))
    }

    private func expectFailure(_ code: Failure.Code, _ body: () throws -> Void) throws {
        let failure = #expect(throws: Failure.self) { try body() }
        #expect(failure?.code == code)
    }
}
