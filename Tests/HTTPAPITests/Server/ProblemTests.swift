// What the manual says about errors.

import Domain
import FoundationEssentials
import HTTPTypes
import TestSupport
import Testing

@testable import HTTPAPI

struct ProblemTests {
    @Test func theManualListsEveryCodeWithItsStatus() throws {
        let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(4).joined(separator: "/")
        let manual = String(
            decoding: try #require(FileManager.default.contents(atPath: root + "/docs/operations.md")), as: UTF8.self)
        let section = try #require(manual.split(separator: "## ").first { $0.hasPrefix("Error codes\n") })
        let rows = section.matches(of: /\n\| `([a-z_]+)` \| (\d{3}) \| \S/).map { "\($0.1) \($0.2)" }
        let codes = Failure.Code.allCases.map { "\($0.rawValue) \(Problem.kind(of: $0).status.code)" }
        #expect(rows.sorted() == codes.sorted())
    }
}
