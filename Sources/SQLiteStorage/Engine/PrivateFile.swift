// Files and folders that only the user of the service may read: the database holds what others must not see.

import Glibc

/// Creates what the service keeps on disk: files with mode 0600 and folders with mode 0700, whatever the umask is. What
/// root creates belongs to the owner of the folder it is in, because the user of the service could not use it
/// otherwise. What exists is left as its owner set it.
enum PrivateFile {
    static let mode: mode_t = 0o600
    static let folderMode: mode_t = 0o700

    /// Creates an empty file if there is none.
    static func createIfMissing(_ path: String) throws(FileError) {
        guard let descriptor = try create(path) else { return }
        close(descriptor)
    }

    /// Creates an empty file.
    /// - Parameter isOfService: false for a file that belongs to whoever runs the command, wherever it is.
    /// - Returns: its descriptor, for reading and writing; nil if there is a file with this name.
    static func create(_ path: String, isOfService: Bool = true) throws(FileError) -> Int32? {
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard descriptor >= 0 else {
            if errno == EEXIST { return nil }
            throw FileError("create the file \(path)")
        }
        // A umask can only take permissions away, even the owner's.
        fchmod(descriptor, mode)
        if isOfService { give(descriptor, toOwnerOf: FileSystem.folder(of: path)) }
        return descriptor
    }

    /// By descriptor, because the owner of the folder could have put something else under the name by now.
    private static func give(_ descriptor: Int32, toOwnerOf folder: String) {
        var status = stat()
        guard geteuid() == 0, stat(folder, &status) == 0, status.st_uid != 0 else { return }
        fchown(descriptor, status.st_uid, status.st_gid)
    }

    /// Creates a folder and those it is in, if they are missing. They survive a power cut from then on.
    static func createFolder(_ path: String) throws(FileError) {
        var folder = ""
        for part in path.split(separator: "/", omittingEmptySubsequences: false) {
            let parent = folder.isEmpty ? "." : folder
            folder += part + "/"
            if mkdir(folder, folderMode) == 0 {
                let descriptor = open(String(folder.dropLast()), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                if descriptor >= 0 {
                    fchmod(descriptor, folderMode)
                    give(descriptor, toOwnerOf: parent)
                    close(descriptor)
                }
                // As far as the file system can.
                try? FileSystem.syncFolder(parent)
            } else if errno != EEXIST, errno != EISDIR {
                throw FileError("create the folder \(folder)")
            }
        }
    }
}

/// A private file that is written from its beginning. What was there under its name is gone.
final class NewFile: Sendable {
    let path: String
    private let descriptor: Int32

    /// - Parameter isOfService: as in ``PrivateFile/create(_:isOfService:)``.
    init(_ path: String, isOfService: Bool = true) throws(FileError) {
        self.path = path
        unlink(path)
        guard let descriptor = try PrivateFile.create(path, isOfService: isOfService) else {
            throw FileError(EEXIST, "create the file \(path)")
        }
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    func write(_ bytes: UnsafeRawBufferPointer) throws(FileError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw FileError("write \(path)") }
            rest = rest.dropFirst(count)
        }
    }

    /// Returns once everything written so far is on disk.
    func sync() throws(FileError) {
        guard fsync(descriptor) == 0 else { throw FileError("sync \(path)") }
    }
}

/// What is asked of file systems.
enum FileSystem {
    /// The size of a file in bytes; nil if there is none, or if it is not a regular file.
    static func size(of path: String) -> Int? {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG ? Int(status.st_size) : nil
    }

    /// The path of the folder that a file is in.
    static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Makes durable what was created, renamed or removed in a folder.
    static func syncFolder(_ path: String) throws(FileError) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError("open the folder \(path)") }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw FileError("sync the folder \(path)") }
    }
}

/// A call on a file that failed.
struct FileError: Error, CustomStringConvertible {
    /// `errno`.
    let number: Int32
    /// What could not be done, with the path.
    let what: String

    init(_ number: Int32, _ what: String) {
        self.number = number
        self.what = what
    }

    /// For the call that has just failed.
    init(_ what: @autoclosure () -> String) {
        number = errno
        self.what = what()
    }

    var description: String { "cannot \(what): \(String(cString: strerror(number)))" }
}
