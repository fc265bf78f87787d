// Whether the files that were opened are still those under the database's name.

import Domain
import Glibc

/// The database and its log as they were opened. What is written to a file after its name was removed or given to
/// another is lost with the process that has it open, so nothing may be acknowledged then.
struct DatabaseFiles: Sendable {
    private let files: [(path: String, identity: Identity?)]

    private struct Identity: Equatable {
        let device: dev_t
        let number: ino_t

        /// - Returns: nil if there is no such file.
        init?(_ path: String) {
            var status = stat()
            guard stat(path, &status) == 0 else { return nil }
            (device, number) = (status.st_dev, status.st_ino)
        }
    }

    /// - Parameter database: the path of a database that is open and has a log.
    init(database: String) {
        files = [database, database + "-wal"].map { ($0, Identity($0)) }
    }

    /// Asks the file system.
    var areInPlace: Bool { files.allSatisfy { Identity($0.path) == $0.identity } }
}

extension Failure {
    static let databaseReplaced = Failure(
        .databaseReplaced,
        "The database's file was removed, moved or replaced while the server was running, so nothing is stored. "
            + "Put the file and its log back, or stop the server and start it on the right file. What was stored "
            + "before can still be read.")
}
