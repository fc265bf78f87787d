// A disk whose power can be cut, as the tests use it.

import PowerCutVFS
import TestSupport

@testable import SQLiteStorage

/// Records what happens to the files of a folder, until the power is cut.
///
/// Not `Sendable`, but what it records comes from all threads: the recorder has a lock.
final class SimulatedDisk {
    enum Kind: UInt32, CaseIterable {
        case losesAll, keepsAll, keepsFirst, reorders, tears, scrambles
    }

    struct CannotRecord: Error {}

    private let disk: OpaquePointer

    /// SQLite must be configured before a file system is registered, and the first connection does that.
    private static let install: Void = {
        _ = try? Connection(path: ":memory:", mode: .writer)
        precondition(power_cut_install() == 0, "SQLite did not accept the file system")
    }()

    /// - Parameter afterChanges: how many changes the disk makes before the power is cut.
    init(folder: String, afterChanges: Int = .max) throws {
        Self.install
        guard let disk = power_cut_begin(folder, UInt64(afterChanges)) else { throw CannotRecord() }
        self.disk = disk
    }

    deinit { power_cut_end(disk) }

    var isOff: Bool { power_cut_is_off(disk) != 0 }
    var changes: Int { Int(power_cut_changes(disk)) }

    func cut() { power_cut_now(disk) }
    func ignoreSyncs() { power_cut_ignore_syncs(disk) }

    /// Writes what is left after the cut into an empty folder. The same seed leaves the same.
    func write(_ kind: Kind, seed: UInt64, to folder: String) throws {
        guard power_cut_write(disk, power_cut_kind(kind.rawValue), seed, folder) == 0 else { throw CannotRecord() }
    }
}
