// reprise doctor: what is wrong with a database and its server, and what to do about it.

import ArgumentParser
import Domain
import Glibc
import NIOCore
import NIOHTTP1
import SQLiteStorage

extension Finding.Code {
    static let serverNotAsked = Self(rawValue: "server_not_asked")
}

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Examines the database and the set-up, and says what to do about what it finds.",
        discussion: """
            Without a running server it reads the file, changes nothing and keeps servers from starting meanwhile. It \
            also checks the settings and whether a server could listen. Beside a running server it asks the server, \
            which knows more: GET /v1/diagnostics.

            With --deep it also checks the structure of the file, every value against its SHA-256, and every counter \
            against its rows. This reads all of the file; a server may run meanwhile.

            Exit codes: 0 healthy, or with notes only; 1 with warnings; 2 with critical findings; 64 wrong usage.
            """)

    @Flag(help: "Checks all of the file.") var deep = false
    @Flag(help: "Prints JSON, as GET /v1/diagnostics answers it.") var json = false
    @OptionGroup var options: SettingsOptions
    @OptionGroup var server: ServerOptions

    /// The exit code for each status.
    static func exitCode(of status: Diagnosis.Status) -> Int32 {
        switch status {
        case .ok: 0
        case .warning: 1
        case .critical: 2
        }
    }

    func run() async throws {
        let (source, diagnosis) = await examine()
        if json {
            announce(diagnosis.json.text + "\n")
        } else {
            let report = DoctorReport(
                source: source, diagnosis: diagnosis, isDeep: deep, isColoured: DoctorReport.wantsColours)
            announce(report.text)
        }
        Glibc.exit(Self.exitCode(of: diagnosis.status))
    }

    /// - Returns: what was examined, for a person, and what was found.
    private func examine() async -> (source: String, diagnosis: Diagnosis) {
        let settings: Settings
        let path: String
        do throws(ExitMessage) {
            settings = try await options.load()
            path = try StorageSelection(settings).path
        } catch {
            return ("the settings", Diagnosis([SetupChecks.invalid(error)]))
        }
        // Another machine's file cannot be read.
        if server.namesServer { return ("the server", Diagnosis(await ask(settings).findings)) }
        let claim = FileClaim(path: path)
        let bar = TerminalProgress()
        let doctor = DatabaseDoctor(
            path: path, backupDirectory: settings.text(.backupDirectory), claim: claim, now: WallClock.system.now())
        let figures = doctor.examine(isDeep: deep) { bar.report($0.text) }
        bar.end()
        var snapshot = DiagnosticSnapshot(settings: settings, figures: figures)
        let place = "\(path)\(deep ? ", all of it," : ",") read"
        guard claim.isServed else {
            snapshot.process = Self.ownLimits
            return (
                place,
                Diagnosis(
                    snapshot.diagnosis.findings
                        + SetupChecks.findings(settings, path: path, hasTokens: figures.hasTokens)))
        }
        // The server knows more about what both have found.
        let (findings, isComplete) = await ask(settings)
        let known = Set(findings.map(\.code))
        let own = snapshot.diagnosis.findings.filter { !known.contains($0.code) }
        let name = "the server\(claim.server.map { " (process \($0))" } ?? "")"
        return ("\(place) beside \(name)\(isComplete ? ", which was asked too" : "")", Diagnosis(findings + own))
    }

    /// What the server says about itself, and whether it could be asked.
    private func ask(_ settings: Settings) async -> (findings: [Finding], isComplete: Bool) {
        do throws(ExitMessage) {
            let client = try ServerClient(server, settings: settings)
            let answer = try await client.request(.GET, "/v1/diagnostics", within: .seconds(30))
            guard answer.status == 200, let diagnosis = answer.json.flatMap(Diagnosis.init(json:)) else {
                throw ExitMessage(
                    message: "\(client.description): \(answer.explanation)", code: ExitMessage.failed)
            }
            return (diagnosis.findings, true)
        } catch {
            let finding = Finding(
                server.namesServer ? .critical : .info, .serverNotAsked, "The server could not be asked",
                detail: error.message,
                remedy: "Give this command the same settings as the server, its --port above all, or its --url; if it "
                    + "wants a token, one with the scope admin in REPRISE_TOKEN or --token-file.")
            return ([finding], false)
        }
    }

    /// Of this process only the limits: its memory says nothing about the server's.
    private static var ownLimits: ProcessFigures? {
        ProcessFigures.current.map { own in
            var limits = own
            (limits.residentBytes, limits.memoryPercent, limits.openDescriptors) = (0, 0, 0)
            return limits
        }
    }
}

extension ExaminationProgress {
    /// "checking values 12 %".
    fileprivate var text: String {
        guard let total, total > 0 else { return "checking \(what) …" }
        return "checking \(what) \(min(done * 100 / total, 100)) %"
    }
}
