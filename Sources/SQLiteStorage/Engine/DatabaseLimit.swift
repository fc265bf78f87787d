// The setting max_database_bytes: how it is divided between the database and its log. docs/design/full-disk.md.

import Domain

/// What the database's file and its log may take together.
struct DatabaseLimit: Sendable, Equatable {
    /// Both files, in bytes.
    let bytes: Int

    /// - Parameter setting: the value of `max_database_bytes`.
    /// - Returns: nil without a limit.
    init?(setting: Int) {
        guard setting > 0 else { return nil }
        bytes = setting
    }

    /// The log's part: it must take the largest write, beside what is written back every
    /// ``StorageLimits/checkpointPages``.
    var logBytes: Int { max(bytes / 8, StorageLimits.leastLimitedLogBytes) }

    /// The rest, in pages of the database's file.
    var pages: Int { (bytes - logBytes) / Connection.pageBytes }

    /// What growing writes may use of it, so that those that remove something always have some.
    var growingPages: Int { pages - StorageLimits.spareLimitedPages }

    /// The largest value that could be stored if there were nothing else.
    var mostValueBytes: Int { growingPages * Connection.pageBytes / 16 * 15 }

    /// An upper bound of what writes with so many bytes of values take in the log: each changes pages of indexes.
    static func logBytes(of operations: Int, bytes: Int) -> Int {
        bytes + bytes / 16 + operations * Connection.pageBytes + StorageLimits.checkpointPages * Connection.pageBytes
    }

    /// An upper bound of the pages by which they make the database larger.
    static func pages(of operations: Int, bytes: Int) -> Int {
        (bytes + bytes / 16) / Connection.pageBytes + 2 * operations + 16
    }
}

extension DatabaseLimit {
    /// Why a write does not fit.
    enum Obstacle: Equatable {
        /// What is stored takes all there is, and none of it may be evicted.
        case data(DatabaseLimit)
        /// The log takes its part, and cannot be written back.
        case log(DatabaseLimit)

        var limit: DatabaseLimit {
            switch self {
            case .data(let limit), .log(let limit): limit
            }
        }

        /// For the log of the service.
        var summary: String {
            switch self {
            case .data: "the database has reached max_database_bytes, and the cache is empty: most writes are refused"
            case .log:
                "the write-ahead log has reached its part of max_database_bytes, and a long read or another program "
                    + "keeps it from being written back: most writes are refused"
            }
        }

        var failure: Failure {
            switch self {
            case .data(let limit):
                Failure(
                    .storageFull,
                    "The database has reached max_database_bytes, \(limit.bytes) bytes, of which \(limit.logBytes) are "
                        + "for the log: nothing was stored. Delete sessions or history, shorten "
                        + "sample_retention_seconds, or raise max_database_bytes.")
            case .log(let limit):
                Failure(
                    .storageFull,
                    "With this write, the write-ahead log could exceed its part of max_database_bytes, "
                        + "\(limit.logBytes) of \(limit.bytes) bytes, and a long read or another program keeps it from "
                        + "being written back: nothing was stored. End the program that holds a read transaction open "
                        + "('fuser' names it), or try again later.")
            }
        }
    }
}
