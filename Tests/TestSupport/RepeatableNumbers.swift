// Random numbers that repeat, so that a generated input that fails can be found again.

import Glibc

/// The same numbers on every run, different ones for each seed (SplitMix64; Steele, Lea, Flood: "Fast Splittable
/// Pseudorandom Number Generators", OOPSLA 2014).
package struct RepeatableNumbers: RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64 = 0) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// Above 0 and at most 1.
    package mutating func uniform() -> Double { Double((next() >> 11) + 1) * 0x1p-53 }

    /// Of a standard normal distribution (Box and Muller, 1958).
    package mutating func normal() -> Double { (-2 * log(uniform())).squareRoot() * cos(2 * .pi * uniform()) }

    /// Eight bytes of each number: tests want millions, without optimisation.
    package mutating func bytes(_ count: Int) -> [UInt8] {
        var numbers: [UInt64] = []
        for _ in stride(from: 0, to: count, by: 8) { numbers.append(next().littleEndian) }
        return numbers.withUnsafeBytes { Array($0.prefix(count)) }
    }
}

/// Bytes without a pattern a mixture could hide in; other for each seed.
package func noise(_ count: Int, seed: Int = 0) -> [UInt8] {
    var numbers = RepeatableNumbers(seed: UInt64(truncatingIfNeeded: seed))
    return numbers.bytes(count)
}

/// Changes some bytes of a text: overwritten, removed, inserted, doubled.
package func mutated(_ bytes: [UInt8], using numbers: inout RepeatableNumbers) -> [UInt8] {
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
