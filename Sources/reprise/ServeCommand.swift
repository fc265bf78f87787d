// reprise serve: reads the settings, wires everything, runs until told to stop.

import ArgumentParser
import CAllocator
import Domain
import Glibc
import HTTPAPI
import Hummingbird
import Logging
import NIOCore
import ServiceLifecycle
import UnixSignals

struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Runs the server until SIGTERM or SIGINT.",
        discussion: """
            When it accepts connections, it prints one line to standard output:

                listening on http://HOST:PORT

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
    let logger = StructuredLogHandler.bootstrap(settings)
    let storage = try openStorage(settings, logger: logger)
    try await applyOverrides(of: storage.settingsStore, to: settings, logger: logger)
    let values = settings.current
    let maintenance = MaintenanceService(
        store: storage.maintenance, settings: settings, clock: .system, logger: logger)
    let host = values.text(.host)
    let services = Services(
        storage: storage, settings: settings, clock: .system, process: { ProcessFigures.current })
    let sampler = SelfSampler(
        samples: storage.samples, sessions: storage.sessions, operations: storage.operations, meter: services.meter,
        settings: settings, clock: .system, logger: logger)
    let application = buildApplication(
        services: services, host: host, port: values.integer(.port), logger: logger
    ) { port in
        announce("listening on http://\(host.contains(":") ? "[\(host)]" : host):\(port)\n")
    }
    // Stopped in reverse: long reads, then the server, whose requests then finish soon, then the background work.
    var configuration = ServiceGroupConfiguration(
        services: [maintenance, sampler, application, LongReadEnder(storage: storage)],
        gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
    configuration.maximumGracefulShutdownDuration = .milliseconds(values.milliseconds(.shutdownTimeout))
    do {
        try await ServiceGroup(configuration: configuration).run()
    } catch let error as IOError {
        await storage.close()
        throw ExitMessage(
            message:
                "cannot listen on \(host):\(values.integer(.port)): \(String(cString: strerror(error.errnoCode))). "
                + "Is another program using the port? Choose another --port, or 0 for a free one.",
            code: ExitMessage.failed)
    } catch is CancellationError {
        logger.notice("requests in progress were cut off after shutdown_timeout_seconds")
    } catch {
        await storage.close()
        throw ExitMessage(message: "the server failed: \(error)", code: ExitMessage.failed)
    }
    await storage.close()
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
