// reprise serve: reads the settings, wires everything, runs until told to stop.

import ArgumentParser
import CAllocator
import Domain
import Glibc
import HTTPAPI
import Logging
import ServiceLifecycle
import UnixSignals

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Runs the server until SIGTERM or SIGINT.",
        discussion: """
            When it accepts connections, it prints a line for each address to standard output:

                listening on http://HOST:PORT
                listening on https://HOST:PORT
                listening on unix:PATH

            With tls_certificate_file and tls_key_file, it serves HTTPS: at port, or at tls_port while port keeps \
            speaking HTTP. The files are read again on SIGHUP and when they change.

            Logs go to standard error. On SIGTERM or SIGINT, requests in progress finish, counters are written, the \
            database is closed and the exit code is 0.

            Precedence: flag, environment, file, default.

            \(SettingsHelp.table)
            """)

    @OptionGroup var options: SettingsOptions

    func run() async throws {
        reprise_limit_malloc()
        do {
            let settings = try await options.load()
            try await serve(LiveSettings(settings))
        } catch let error as ExitMessage {
            error.exit()
        }
    }
}

/// Runs the service until it is told to stop.
/// - Throws: ``ExitMessage``.
func serve(_ settings: LiveSettings) async throws {
    let started = ContinuousClock.now
    let logger = StructuredLogHandler.bootstrap(settings)
    // Wrong files are reported before anything is opened.
    let addresses = try ListenSettings(settings.current)
    let certificate = try addresses.loadCertificate()
    let storage = try openStorage(settings, for: .server, logger: logger)
    try await applyOverrides(of: storage.settingsStore, to: settings, logger: logger)
    let values = settings.current
    let maintenance = MaintenanceService(
        store: storage.maintenance, settings: settings, clock: .system, logger: logger)
    let services = Services(
        storage: storage, settings: settings, clock: .system, process: { ProcessFigures.current })
    do throws(ExitMessage) {
        try checkAdminToken(values.text(.adminToken), logger)
        try requireFirstToken(services.access, values)
        if services.access.isOpenToNetwork {
            logger.warning("whoever can connect may do everything, because authentication is none")
        }
    } catch {
        await storage.close()
        throw error
    }
    let sampler = SelfSampler(
        samples: storage.samples, sessions: storage.sessions, operations: storage.operations, meter: services.meter,
        settings: settings, clock: .system, logger: logger)
    let server = buildApplication(
        services: services, listeners: addresses.listeners(certificate),
        maxConnections: DescriptorLimit.connections(
            open: ProcessFigures.current?.openDescriptors ?? 0, logger: logger),
        afterBurst: returnMemory, logger: logger
    ) { urls in
        services.startup.set(seconds: (ContinuousClock.now - started).seconds)
        announce(urls.map { "listening on \($0)\n" }.joined())
    }
    // Stopped in reverse: long reads, then the server, whose requests then finish soon, then the background work.
    var running: [any Service] = [maintenance, sampler, server, LongReadEnder(storage: storage)]
    if let backups = storage.backups {
        running.insert(BackupService(store: backups, settings: settings, clock: .system), at: 0)
    }
    if let certificate { running.append(CertificateReloader(certificate: certificate, logger: logger)) }
    var configuration = ServiceGroupConfiguration(
        services: running, gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
    configuration.maximumGracefulShutdownDuration = .milliseconds(values.milliseconds(.shutdownTimeout))
    do {
        try await ServiceGroup(configuration: configuration).run()
    } catch let error as ListenError {
        await storage.close()
        throw ExitMessage(message: error.description, code: ExitMessage.failed)
    } catch is CancellationError {
        logger.notice("requests in progress were cut off after shutdown_timeout_seconds")
    } catch {
        await storage.close()
        throw ExitMessage(message: "the server failed: \(error)", code: ExitMessage.failed)
    }
    await storage.close()
}

/// Warns of a token that can be guessed.
/// - Throws: ``ExitMessage`` for one that no request could send.
private func checkAdminToken(_ token: String, _ logger: Logger) throws(ExitMessage) {
    guard token.utf8.count <= Limits.maxTokenBytes else {
        throw ExitMessage(
            message: "admin_token is longer than \(Limits.maxTokenBytes) bytes. Choose a shorter one.",
            code: ExitMessage.wrongConfiguration)
    }
    if (1..<Limits.minGoodTokenBytes).contains(token.utf8.count) {
        logger.warning(
            "admin_token is short enough to be guessed: choose a longer one, such as that of openssl rand -hex 32")
    }
}

/// - Throws: ``ExitMessage`` for a server that nobody could use, and everybody can reach.
private func requireFirstToken(_ access: AccessControl, _ values: Settings) throws(ExitMessage) {
    guard access.lacksFirstToken else { return }
    throw ExitMessage(
        message: """
            other machines can connect to \(values.text(.host)), and no token exists. Do one of the following:
              - run 'reprise token create NAME --scope admin' with the same settings, and start again;
              - set REPRISE_ADMIN_TOKEN_FILE to the path of a file that contains a token of your own;
              - set --host 127.0.0.1, so that only this machine can connect;
              - set authentication to none, if everybody who can connect may do everything.
            """, code: ExitMessage.wrongConfiguration)
}

/// Returns memory to the system a second from now, when what belonged to the last connection is freed.
@Sendable private func returnMemory() {
    Task.detached {
        try? await Task.sleep(for: .seconds(1))
        reprise_trim_malloc()
    }
}

/// Ends long reads when the service begins to stop.
private struct LongReadEnder: Service {
    let storage: any StorageEngine

    func run() async throws {
        // Until the service stops or is cancelled.
        try? await gracefulShutdown()
        storage.endLongReads()
    }
}

/// Applies the settings changed at run time before the last stop.
/// - Throws: ``ExitMessage``.
private func applyOverrides(
    of store: any SettingsStore, to settings: LiveSettings, logger: Logger
) async throws(ExitMessage) {
    do {
        for name in settings.apply(try await store.settingOverrides()) {
            logger.warning(
                "ignoring a setting changed at run time that is no longer valid", metadata: ["name": "\(name)"])
        }
    } catch {
        throw ExitMessage(
            message: "cannot read the settings changed at run time: \(error)", code: ExitMessage.failed)
    }
}

/// Writes a line that a supervisor waits for, unbuffered.
func announce(_ line: String) {
    _ = line.withCString { write(STDOUT_FILENO, $0, strlen($0)) }
}
