// Keeps the TLS certificate current: on SIGHUP, and when its files change.

import Domain
import HTTPAPI
import Logging
import ServiceLifecycle
import UnixSignals

struct CertificateReloader: Service {
    let certificate: ServerCertificate
    let logger: Logger

    func run() async throws {
        // Before the first wait: a SIGHUP would end the process.
        let hangUps = await UnixSignalsSequence(trapping: .sighup)
        await cancelWhenGracefulShutdown {
            await withDiscardingTaskGroup { group in
                group.addTask {
                    for await _ in hangUps { certificate.reload(force: true, logger: logger) }
                }
                group.addTask {
                    while (try? await Task.sleep(for: .seconds(Limits.certificateCheckSeconds))) != nil {
                        certificate.reload(logger: logger)
                    }
                }
            }
        }
    }
}
