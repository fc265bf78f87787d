// The dashboard's files, as they were when the program was built.

import CEmbeddedFiles
import Crypto

/// A file of the dashboard. DashboardRoutes.swift in HTTPAPI serves them.
public struct DashboardFile: Sendable {
    /// Below `/dashboard/`; empty for the page itself.
    public let path: String
    public let contentType: String
    public let bytes: [UInt8]
    /// Without quotes; changes whenever the bytes do.
    public let entityTag: String

    private init(_ path: String, _ contentType: String, _ start: UnsafePointer<UInt8>, _ length: Int) {
        self.path = path
        self.contentType = contentType
        bytes = Array(UnsafeBufferPointer(start: start, count: length))
        let digest = SHA256.hash(data: bytes).prefix(16)
        entityTag = digest.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }

    public static let all = [
        DashboardFile(
            "", "text/html; charset=utf-8", reprise_dashboard_html_start(), reprise_dashboard_html_length),
        DashboardFile(
            "style.css", "text/css; charset=utf-8", reprise_dashboard_css_start(), reprise_dashboard_css_length),
        DashboardFile(
            "script.js", "text/javascript; charset=utf-8", reprise_dashboard_js_start(), reprise_dashboard_js_length),
    ]
}
