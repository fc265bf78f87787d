// A file that contains a secret, as containers get them.

import Domain
import Glibc

enum SecretFile {
    /// Reads a file of one line, without the line break that editors put at the end.
    /// - Parameter origin: what named the file, for messages: `--token-file`.
    /// - Throws: ``ExitMessage`` with the reason, and never with the contents.
    static func read(_ path: String, namedBy origin: String) throws(ExitMessage) -> String {
        func wrong(_ reason: String) -> ExitMessage {
            ExitMessage(message: "\(origin): \(path) \(reason)", code: ExitMessage.wrongConfiguration)
        }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw wrong("cannot be read: \(String(cString: strerror(errno))).") }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: Limits.maxSecretFileBytes + 1)
        var count = 0
        while count < bytes.count {
            let read = bytes.withUnsafeMutableBytes {
                Glibc.read(descriptor, $0.baseAddress! + count, $0.count - count)
            }
            if read < 0, errno == EINTR { continue }
            guard read >= 0 else { throw wrong("cannot be read: \(String(cString: strerror(errno))).") }
            if read == 0 { break }
            count += read
        }
        guard count <= Limits.maxSecretFileBytes else {
            throw wrong("is longer than \(Limits.maxSecretFileBytes) bytes.")
        }
        guard var text = String(validating: bytes.prefix(count), as: UTF8.self) else { throw wrong("is not text.") }
        while let last = text.last, last.isNewline { text.removeLast() }
        guard !text.isEmpty else { throw wrong("is empty.") }
        guard !text.contains(where: \.isNewline) else {
            throw wrong("has several lines. It must contain the secret and nothing else.")
        }
        return text
    }
}
