// The server's TLS certificate: read from two files, and again when they change.

import Domain
import Glibc
import Logging
import NIOSSL
import Synchronization

/// The certificate and key in force. New connections use the newest pair that fits; open ones keep theirs.
///
/// The files are replaced one after the other, and perhaps while they are read. So a pair is used only if the key
/// belongs to the certificate; until the second file has arrived, the old pair stays in force.
public final class ServerCertificate: Sendable {
    /// What tells that a file was written or replaced.
    private struct Fingerprint: Equatable {
        let device: dev_t
        let inode: ino_t
        let size: off_t
        /// The bytes of its time, which are only compared.
        let modified: [UInt8]

        init?(_ path: String) {
            var status = stat()
            guard stat(path, &status) == 0 else { return nil }
            device = status.st_dev
            inode = status.st_ino
            size = status.st_size
            modified = withUnsafeBytes(of: status.st_mtim) { Array($0) }
        }
    }

    private struct State {
        var context: NIOSSLContext
        var fingerprints: [Fingerprint?]
    }

    private let certificateFile: String
    private let keyFile: String
    private let state: Mutex<State>

    /// - Throws: ``ListenError`` naming the file that is wrong.
    public init(certificateFile: String, keyFile: String) throws {
        self.certificateFile = certificateFile
        self.keyFile = keyFile
        let fingerprints = Self.fingerprints(certificateFile, keyFile)
        state = Mutex(
            State(context: try Self.load(certificateFile, keyFile), fingerprints: fingerprints))
    }

    /// For the next connection.
    var context: NIOSSLContext { state.withLock { $0.context } }

    /// Reads the files again if one of them has changed since they were last read, or if `force` says so.
    ///
    /// A pair that cannot be used is logged once and changes nothing.
    public func reload(force: Bool = false, logger: Logger) {
        let fingerprints = Self.fingerprints(certificateFile, keyFile)
        guard force || fingerprints != state.withLock({ $0.fingerprints }) else { return }
        do {
            let context = try Self.load(certificateFile, keyFile)
            state.withLock { $0 = State(context: context, fingerprints: fingerprints) }
            logger.notice("read the TLS certificate again", metadata: ["file": "\(certificateFile)"])
        } catch {
            state.withLock { $0.fingerprints = fingerprints }
            logger.error("the changed TLS certificate is not used, the old one is", metadata: ["reason": "\(error)"])
        }
    }

    private static func fingerprints(_ files: String...) -> [Fingerprint?] { files.map { Fingerprint($0) } }

    private static func load(_ certificateFile: String, _ keyFile: String) throws -> NIOSSLContext {
        let chain: [NIOSSLCertificate]
        do {
            chain = try NIOSSLCertificate.fromPEMBytes(try read(certificateFile))
        } catch let error as ListenError {
            throw error
        } catch {
            throw ListenError("tls_certificate_file: \(certificateFile) is not a certificate in PEM format.")
        }
        guard !chain.isEmpty else {
            throw ListenError("tls_certificate_file: \(certificateFile) contains no certificate in PEM format.")
        }
        let key: NIOSSLPrivateKey
        do {
            key = try NIOSSLPrivateKey(bytes: try read(keyFile), format: .pem)
        } catch let error as ListenError {
            throw error
        } catch {
            throw ListenError("tls_key_file: \(keyFile) is not a private key in PEM format without a passphrase.")
        }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        configuration.minimumTLSVersion = .tlsv12
        configuration.applicationProtocols = ["h2", "http/1.1"]
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw ListenError(
                "tls_key_file: \(keyFile) is not the key of the first certificate in \(certificateFile).")
        }
    }

    /// The contents of a file.
    private static func read(_ path: String) throws -> [UInt8] {
        guard let file = fopen(path, "re") else {
            throw ListenError("\(path) cannot be read: \(String(cString: strerror(errno)))")
        }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: Limits.maxCertificateFileBytes + 1)
        let count = fread(&bytes, 1, bytes.count, file)
        guard ferror(file) == 0 else { throw ListenError("\(path) cannot be read.") }
        guard count <= Limits.maxCertificateFileBytes else {
            throw ListenError("\(path) is larger than \(Limits.maxCertificateFileBytes) bytes: is it a PEM file?")
        }
        return Array(bytes.prefix(count))
    }
}
