// The house rules that can be checked automatically, from the text of the repository.

import FoundationEssentials
import Testing

struct TidyTests {
    private struct SourceFile: CustomTestStringConvertible {
        /// From the repository's root.
        let path: String
        let text: String

        var testDescription: String { path }
        var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }
        var name: Substring { path.split(separator: "/").last! }
        /// `Domain` of `Sources/Domain/Values/JSON.swift`.
        var target: Substring { path.split(separator: "/").dropFirst().first ?? "" }

        /// The imported modules; for `@testable import struct A.B`, that is A.
        var imports: [Substring] {
            let kinds: Set<Substring> = ["struct", "class", "enum", "protocol", "func", "var", "let", "typealias"]
            let access: Set<Substring> = ["public", "package", "internal", "fileprivate", "private"]
            return lines.compactMap { line in
                var words = line.split { $0 == " " || $0 == ";" }[...]
                words = words.drop { $0.hasPrefix("@") || access.contains($0) }
                guard words.popFirst() == "import" else { return nil }
                return words.drop { kinds.contains($0) }.first?.split(separator: ".").first
            }
        }
    }

    private static let root: String = {
        // Tests/DomainTests/TidyTests.swift
        let parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        return parts.dropLast(3).joined(separator: "/")
    }()

    private static let files = files([".swift"])

    private static func files(_ suffixes: [String]) -> [SourceFile] {
        var files: [SourceFile] = []
        func walk(_ folder: String) {
            for name in (try? FileManager.default.contentsOfDirectory(atPath: "\(root)/\(folder)"))?.sorted() ?? [] {
                guard !name.hasPrefix(".") else { continue }
                let path = folder.isEmpty ? name : "\(folder)/\(name)"
                if suffixes.contains(where: name.hasSuffix),
                    let data = FileManager.default.contents(atPath: "\(root)/\(path)")
                {
                    files.append(SourceFile(path: path, text: String(decoding: data, as: UTF8.self)))
                } else {
                    walk(path)
                }
            }
        }
        walk("")
        return files
    }

    private static func sources(of target: String) -> [SourceFile] {
        files.filter { $0.path.hasPrefix("Sources/\(target)/") }
    }

    @Test func theRepositoryWasFound() {
        #expect(Self.files.contains { $0.path == "Package.swift" })
        #expect(!Self.sources(of: "Domain").isEmpty)
        #expect(!Self.sources(of: "SQLiteStorage").isEmpty)
    }

    /// Because of its size, its start-up time and ICU's 40 MB: docs/design/dependencies.md.
    @Test func onlyFoundationEssentialsIsImported() {
        for file in Self.files { #expect(!file.imports.contains("Foundation"), "\(file.path)") }
    }

    @Test func linesAreAtMost120Characters() {
        let long = Self.files.flatMap { file in
            file.lines.enumerated().filter { $0.element.count > 120 }.map { "\(file.path):\($0.offset + 1)" }
        }
        #expect(long == [])
    }

    @Test func theDashboardsFilesAreTidyToo() {
        let files = Self.files([".html", ".css", ".js"]).filter { $0.path.hasPrefix("Sources/Dashboard/") }
        #expect(files.count == 3)
        for file in files {
            // The document type must come first on a page.
            let first = file.lines.dropFirst(file.name.hasSuffix(".html") ? 1 : 0).first ?? ""
            #expect(["// ", "/* ", "<!-- "].contains { first.hasPrefix($0) }, "\(file.path)")
            #expect(file.lines.allSatisfy { $0.count <= 120 }, "\(file.path)")
        }
    }

    @Test func nothingIsLeftForLater() {
        for file in Self.files {
            for word in ["TO" + "DO", "FIX" + "ME"] {
                #expect(!file.text.contains(word), "\(file.path): \(word)")
            }
        }
    }

    @Test func theFirstLineSaysWhatAFileIsFor() {
        for file in Self.files where file.lines.contains(where: { !$0.isEmpty && !$0.hasPrefix("import ") }) {
            // The tools version must come first in a manifest.
            let first = file.lines.dropFirst(file.name == "Package.swift" ? 1 : 0).first ?? ""
            #expect(first.hasPrefix("// ") && first.count > 10, "\(file.path)")
        }
    }

    @Test func thereAreNoBanners() {
        for file in Self.files {
            for line in file.lines {
                let text = line.drop { $0 == " " }
                #expect(
                    !["//--", "// --", "//==", "// ==", "// **", "////"].contains { text.hasPrefix($0) },
                    "\(file.path): \(line)")
            }
        }
    }

    @Test(arguments: [
        (
            "Domain",
            [
                "Dashboard", "Migrations", "SQLiteStorage", "HTTPAPI", "reprise", "CAllocator", "CEmbeddedFiles",
                "CSQLite", "CSQLiteSupport", "CYAML",
            ]
        ),
        (
            "Dashboard",
            [
                "Domain", "Migrations", "SQLiteStorage", "HTTPAPI", "reprise", "CAllocator", "CSQLite",
                "CSQLiteSupport", "CYAML", "Hummingbird",
            ]
        ),
        ("SQLiteStorage", ["Dashboard", "HTTPAPI", "reprise", "CEmbeddedFiles", "CYAML"]),
        (
            "HTTPAPI",
            ["SQLiteStorage", "CAllocator", "CSQLite", "CSQLiteSupport", "Migrations", "reprise", "CYAML"]
        ),
    ])
    func dependenciesPointOneWay(target: String, forbidden: [Substring]) {
        for file in Self.sources(of: target) {
            #expect(Set(forbidden).isDisjoint(with: file.imports), "\(file.path)")
        }
    }

    /// Shared test code depends on no engine, no route and no internals, so that every test target can use it.
    @Test func whatTestsShareKnowsTheDomainOnly() {
        let own = ["Dashboard", "Migrations", "SQLiteStorage", "HTTPAPI", "reprise", "CSQLite", "CSQLiteSupport"]
        let shared = Self.files.filter { $0.path.hasPrefix("Tests/TestSupport/") }
        #expect(!shared.isEmpty)
        for file in shared {
            #expect(Set(own.map { $0[...] }).isDisjoint(with: file.imports), "\(file.path)")
            #expect(!file.text.contains("@testable"), "\(file.path)")
        }
        for file in Self.files where file.path.hasPrefix("Sources/") {
            #expect(!file.imports.contains("TestSupport"), "\(file.path)")
        }
    }

    /// The contract of the stores is the same for every engine: only the file that opens engines depends on one.
    @Test func theContractOfTheStoresKnowsNoEngine() {
        let contract = Self.files.filter { $0.path.hasPrefix("Tests/StorageContractTests/") }
        #expect(contract.count > 10)
        for file in contract where file.name != "Engine.swift" {
            #expect(Set(["SQLiteStorage", "CSQLite"]).isDisjoint(with: file.imports), "\(file.path)")
        }
        for file in contract { #expect(!file.text.contains("@testable"), "\(file.path)") }
    }

    @Test func onlyTheWrapperTouchesSQLite() {
        for file in Self.files where file.path.hasPrefix("Sources/") {
            guard !Set(["CSQLite", "CSQLiteSupport"]).isDisjoint(with: file.imports) else { continue }
            #expect(["Connection.swift", "Statement.swift", "SQLiteError.swift"].contains(file.name), "\(file.path)")
        }
    }

    /// The files in CONTRIBUTING.md's table: paths, and file names without a folder.
    private static let guide: [Substring] = {
        let text = String(
            decoding: FileManager.default.contents(atPath: "\(root)/CONTRIBUTING.md") ?? Data(), as: UTF8.self)
        let rows = text.split(separator: "\n").filter { $0.hasPrefix("| ") }
        let named = rows.flatMap { row in
            row.split(separator: "`", omittingEmptySubsequences: false).enumerated().filter { $0.offset % 2 == 1 }
                .map(\.element)
        }
        return named.filter { name in
            name.hasSuffix("/") || [".swift", ".md", ".yaml", ".json"].contains { name.hasSuffix($0) }
        }
    }()

    /// Whether a name or path in the guide matches a file: `<Area>` is any name, and a folder means all its files.
    private static func means(_ named: Substring, _ path: String) -> Bool {
        guard named.contains("/") else { return path == named || path.hasSuffix("/\(named)") }
        let wanted = named.split(separator: "/")
        let parts = path.split(separator: "/")
        guard named.hasSuffix("/") ? parts.count > wanted.count : parts.count == wanted.count else { return false }
        return zip(wanted, parts).allSatisfy { wanted, part in
            guard let area = wanted.firstRange(of: "<Area>") else { return wanted == part }
            return part.hasPrefix(wanted[..<area.lowerBound]) && part.hasSuffix(wanted[area.upperBound...])
        }
    }

    @Test func everyFileTheGuideNamesIsThere() {
        let files = Self.files([".swift", ".md", ".yaml", ".json", ".js", ".c", ".h", ".py", ".sql"]).map(\.path)
        #expect(Self.guide.count > 60)
        for named in Self.guide {
            let meant = files.filter { Self.means(named, $0) }
            #expect(!meant.isEmpty, "CONTRIBUTING.md names \(named), which is not there")
            // A file at the root needs no folder to be unique.
            let isClear = named.contains("/") || meant.count == 1 || meant.contains { $0 == named }
            #expect(isClear, "CONTRIBUTING.md: \(named) could be any of \(meant)")
        }
    }

    @Test func everySourceFileIsFoundFromTheGuide() {
        for file in Self.files([".swift", ".c"]) where file.path.hasPrefix("Sources/") && file.lines.count > 60 {
            #expect(
                Self.guide.contains { Self.means($0, file.path) }, "CONTRIBUTING.md has no row for \(file.path)")
        }
    }

    @Test func sendingUncheckedIsAnExceptionThatStaysOne() {
        let uses = Self.files.filter { $0.path.hasPrefix("Sources/") }
            .reduce(0) {
                $0 + $1.text.split(separator: "@unchecked Sendable", omittingEmptySubsequences: false).count - 1
            }
        #expect(uses <= 1)
    }
}
