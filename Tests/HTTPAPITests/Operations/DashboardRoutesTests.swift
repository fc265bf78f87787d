// The dashboard's files as they are served. What the page does in a browser: Tests/EndToEnd/test_dashboard.py.

import Domain
import HTTPTypes
import HummingbirdTesting
import NIOCore
import Testing

@Suite struct DashboardRoutesTests {
    private static let files = [
        ("/dashboard/", "text/html; charset=utf-8"), ("/dashboard/style.css", "text/css; charset=utf-8"),
        ("/dashboard/script.js", "text/javascript; charset=utf-8"),
    ]

    @Test(arguments: files)
    func servesAFile(path: String, contentType: String) async throws {
        try await withAPI { api in
            let answer = try await api.send(.get, path)
            #expect(answer.status == .ok)
            #expect(answer.headers[.contentType] == contentType)
            #expect(answer.headers[.cacheControl] == "no-cache")
            #expect(answer[header: "X-Content-Type-Options"] == "nosniff")
            #expect(answer[header: "Referrer-Policy"] == "no-referrer")
            let policy = try #require(answer.headers[.contentSecurityPolicy]).split(separator: "; ")
            for rule in [
                "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:",
                "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
            ] {
                #expect(policy.contains { $0 == rule }, "\(rule)")
            }
            #expect(policy.count == 8)

            let tag = try #require(answer.headers[.eTag])
            #expect(tag.hasPrefix("\"") && tag.hasSuffix("\"") && tag.count > 30)
            for sent in [tag, "W/\(tag)", "\"x\", \(tag)", "*"] {
                let again = try await api.send(.get, path, headers: [.ifNoneMatch: sent])
                #expect(again.status == .notModified, "\(sent)")
                #expect(again.headers[.eTag] == tag)
                #expect(again.headers[.cacheControl] == "no-cache")
                #expect(again.headers[.contentLength] == nil)
                #expect(again.body.readableBytes == 0)
            }
            #expect(try await api.send(.get, path, headers: [.ifNoneMatch: "\"x\""]).status == .ok)

            let head = try await api.send(.head, path)
            #expect(head.status == .ok)
            #expect(head.headers[.contentLength] == String(answer.body.readableBytes))
            #expect(head.headers[.eTag] == tag)
            #expect(head.body.readableBytes == 0)
        }
    }

    @Test func sendsOnToTheSlash() async throws {
        try await withAPI { api in
            for method in [HTTPRequest.Method.get, .head] {
                let answer = try await api.send(method, "/dashboard")
                #expect(answer.status == .permanentRedirect)
                #expect(answer.headers[.location] == "dashboard/")
            }
        }
    }

    @Test func answersOtherRequestsWithProblems() async throws {
        try await withAPI { api in
            for path in ["//dashboard/", "/dashboard//", "/dashboard/style.css/", "/dashboard/nothing.js"] {
                try await api.send(.get, path).expectProblem(.notFound, status: 404)
            }
            for path in ["/dashboard", "/dashboard/", "/dashboard/script.js"] {
                let answer = try await api.send(.post, path, "x")
                try answer.expectProblem(.methodNotAllowed, status: 405)
                #expect(answer.headers[.allow] == "GET, HEAD")
                // The page ignores a query that came with a shared link.
                #expect(try await api.send(.get, path + "?x=1").status == api.send(.get, path).status)
            }
        }
    }

    @Test func isLightAndAsksNobodyElse() async throws {
        try await withAPI { api in
            var bytes = 0
            for (path, _) in Self.files {
                let text = try await api.send(.get, path).text
                bytes += text.utf8.count
                // The name of an XML namespace is not an address to request.
                let links = text.replacing("http://www.w3.org/2000/svg", with: "")
                for host in ["http:", "https:", "\"//", "'//", "(//"] {
                    #expect(!links.contains(host), "\(path): \(host)")
                }
            }
            #expect(bytes < 100_000)
        }
    }

    /// Texts from the service become text on the page: nothing that turns text into markup or code is used at all.
    @Test func makesNoMarkupOfText() async throws {
        try await withAPI { api in
            let script = try await api.send(.get, "/dashboard/script.js").text
            for word in [
                "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "setHTML", "eval(",
                "Function(", "createContextualFragment",
            ] {
                #expect(!script.contains(word), "\(word)")
            }
            let page = try await api.send(.get, "/dashboard/").text
            for word in [" style=", "<style", " onclick=", "<script>"] { #expect(!page.contains(word), "\(word)") }
        }
    }
}
