// How much room the disk has.

import Glibc

enum FreeSpace {
    /// Bytes that this process may still write to the file system of a folder; nil if that is not known.
    static func bytes(at folder: String) -> Int? { figures(at: folder).free }

    /// The same, and all bytes of the file system.
    static func figures(at path: String) -> (free: Int?, all: Int?) {
        var figures = statvfs()
        // Some file systems report no size at all.
        guard statvfs(path, &figures) == 0, figures.f_blocks > 0 else { return (nil, nil) }
        func bytes(_ blocks: UInt) -> Int {
            let (bytes, isTooMuch) = UInt(blocks).multipliedReportingOverflow(by: UInt(figures.f_frsize))
            // Half of what fits, so that sums fit too.
            return isTooMuch ? Int.max / 2 : min(Int(clamping: bytes), Int.max / 2)
        }
        return (bytes(UInt(figures.f_bavail)), bytes(UInt(figures.f_blocks)))
    }
}
