// Where the settings have the server listen. `serve` listens there; the other commands look for it there.

import Domain
import HTTPAPI

/// The addresses that the settings ask for.
struct ListenSettings: Equatable {
    /// The two files of a certificate.
    struct CertificateFiles: Equatable {
        let certificate: String
        let key: String
    }

    let host: String
    /// For plain HTTP.
    let httpPort: Int?
    let httpsPort: Int?
    let unixSocket: String?
    let certificate: CertificateFiles?

    /// - Throws: ``ExitMessage`` with the remedy if half of what belongs together is missing.
    init(_ settings: Settings) throws(ExitMessage) {
        host = settings.text(.host)
        unixSocket = settings.optionalText(.unixSocket)
        let port = settings.integer(.port)
        let tlsPort = settings.optionalInteger(.tlsPort)
        switch (settings.optionalText(.tlsCertificate), settings.optionalText(.tlsKey)) {
        case (let certificate?, let key?):
            self.certificate = CertificateFiles(certificate: certificate, key: key)
            httpPort = tlsPort == nil ? nil : port
            httpsPort = tlsPort ?? port
            guard httpPort == nil || httpPort != httpsPort || port == 0 else {
                throw Self.wrong("port and tls_port are both \(port). Give HTTPS another port, or leave out tls_port.")
            }
        case (nil, nil):
            guard tlsPort == nil else {
                throw Self.wrong("tls_port needs a certificate: set tls_certificate_file and tls_key_file as well.")
            }
            certificate = nil
            httpPort = port
            httpsPort = nil
        case (nil, _?):
            throw Self.wrong("tls_key_file is set, but tls_certificate_file is not. Set both for HTTPS.")
        case (_?, nil):
            throw Self.wrong("tls_certificate_file is set, but tls_key_file is not. Set both for HTTPS.")
        }
    }

    /// Reads the files of the certificate; nil without any.
    /// - Throws: ``ExitMessage`` naming the file that is wrong.
    func loadCertificate() throws(ExitMessage) -> ServerCertificate? {
        guard let files = certificate else { return nil }
        do {
            return try ServerCertificate(certificateFile: files.certificate, keyFile: files.key)
        } catch {
            throw Self.wrong("\(error)")
        }
    }

    /// - Parameter certificate: the one of ``certificate``, loaded.
    func listeners(_ certificate: ServerCertificate?) -> [Listener] {
        var listeners: [Listener] = []
        if let httpPort { listeners.append(Listener(.tcp(host: host, port: httpPort))) }
        if let httpsPort { listeners.append(Listener(.tcp(host: host, port: httpsPort), certificate: certificate)) }
        if let unixSocket { listeners.append(Listener(.unix(path: unixSocket))) }
        return listeners
    }

    private static func wrong(_ message: String) -> ExitMessage {
        ExitMessage(message: message, code: ExitMessage.wrongConfiguration)
    }
}
