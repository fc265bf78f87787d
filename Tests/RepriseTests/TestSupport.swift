// What the tests of the executable share: files that go away.

import Domain
import FoundationEssentials
import Glibc

@testable import reprise

/// A folder of its own under the system's temporary folder, removed with the last reference.
final class TemporaryFolder: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/reprise-tests-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Writes a file.
    /// - Returns: its path.
    func write(_ text: String, to name: String) throws -> String {
        let file = "\(path)/\(name)"
        try Data(text.utf8).write(to: URL(filePath: file))
        return file
    }
}

/// What the program would say before it ends; nil if `body` succeeds.
func exitMessage(_ body: () async throws -> some Any) async -> ExitMessage? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error as? ExitMessage
    }
}
