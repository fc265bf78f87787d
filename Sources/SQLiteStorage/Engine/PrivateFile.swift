// Files and folders that only the user of the service may read: the database holds what others must not see.

import Glibc

/// Creates what the service keeps on disk: files with mode 0600 and folders with mode 0700, whatever the umask is.
/// What exists is left as its owner set it.
enum PrivateFile {
    static let mode: mode_t = 0o600
    static let folderMode: mode_t = 0o700

    /// A failed call, with the path and the reason.
    struct CreationError: Error, CustomStringConvertible {
        let description: String
        /// `errno`.
        let number: Int32

        fileprivate init(_ what: String, _ path: String) {
            number = errno
            description = "cannot create \(what) \(path): \(String(cString: strerror(number)))"
        }
    }

    /// Creates an empty file if there is none.
    static func createIfMissing(_ path: String) throws(CreationError) {
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard descriptor >= 0 else {
            if errno == EEXIST { return }
            throw CreationError("the file", path)
        }
        // A umask can only take permissions away, even the owner's.
        fchmod(descriptor, mode)
        close(descriptor)
    }

    /// Creates a folder and those it is in, if they are missing. They survive a power cut from then on.
    static func createFolder(_ path: String) throws(CreationError) {
        var folder = ""
        for part in path.split(separator: "/", omittingEmptySubsequences: false) {
            let parent = folder.isEmpty ? "." : folder
            folder += part + "/"
            if mkdir(folder, folderMode) == 0 {
                chmod(folder, folderMode)
                sync(parent)
            } else if errno != EEXIST, errno != EISDIR {
                throw CreationError("the folder", folder)
            }
        }
    }

    /// Makes what was created in a folder durable, as far as the file system can.
    private static func sync(_ folder: String) {
        let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        fsync(descriptor)
        close(descriptor)
    }
}
