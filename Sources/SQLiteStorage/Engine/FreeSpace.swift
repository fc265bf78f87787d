// How much room the disk has.

import Glibc

enum FreeSpace {
    /// Bytes that this process may still write to the file system of a folder; nil if that is not known.
    static func bytes(at folder: String) -> Int? {
        var figures = statvfs()
        // Some file systems report no size at all.
        guard statvfs(folder, &figures) == 0, figures.f_blocks > 0 else { return nil }
        return Int(figures.f_bavail) * Int(figures.f_frsize)
    }
}
