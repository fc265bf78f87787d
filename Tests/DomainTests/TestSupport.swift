// What the tests of the domain share: a clock that is moved by hand, chance that repeats itself.

import Domain
import Synchronization

/// A clock that stands until it is moved.
final class ManualClock: Sendable {
    private let milliseconds: Atomic<Int64>

    init(_ start: Instant = Instant(milliseconds: 1_800_000_000_000)) {
        milliseconds = Atomic(start.milliseconds)
    }

    var now: Instant { Instant(milliseconds: milliseconds.load(ordering: .sequentiallyConsistent)) }
    var wallClock: WallClock { WallClock { self.now } }

    func advance(milliseconds step: Int64) {
        milliseconds.wrappingAdd(step, ordering: .sequentiallyConsistent)
    }
}

/// The same numbers on every run (SplitMix64), so that a generated input that fails can be found again.
struct RepeatableNumbers: RandomNumberGenerator {
    var state: UInt64 = 0

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

/// Changes some bytes of a text: overwritten, removed, inserted, doubled.
func mutated(_ bytes: [UInt8], using numbers: inout RepeatableNumbers) -> [UInt8] {
    var bytes = bytes
    for _ in 0...Int.random(in: 0..<4, using: &numbers) {
        guard let index = bytes.indices.randomElement(using: &numbers) else { return bytes }
        switch Int.random(in: 0..<5, using: &numbers) {
        case 0: bytes[index] = .random(in: 0...255, using: &numbers)
        case 1: bytes.remove(at: index)
        case 2: bytes.insert(.random(in: 0...255, using: &numbers), at: index)
        case 3: bytes.insert(bytes.randomElement(using: &numbers)!, at: index)
        default: bytes.insert(contentsOf: bytes[index...].prefix(8), at: index)
        }
    }
    return bytes
}

/// The fields a `validation_failed` names; nil when `body` ends otherwise.
func invalidFields(_ body: () throws -> Void) -> [String]? {
    do {
        try body()
        return nil
    } catch let failure as Failure where failure.code == .validationFailed {
        return failure.errors.map(\.field)
    } catch {
        return nil
    }
}
