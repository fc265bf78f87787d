// The rules for request heads and chunks, without a connection.

import Domain
import NIOHTTP1
import Testing

@testable import HTTPAPI

struct FramingTests {
    private static func head(
        _ version: HTTPVersion = .http1_1, _ method: HTTPMethod = .GET, _ headers: HTTPHeaders
    ) -> HTTPRequestHead {
        HTTPRequestHead(version: version, method: method, uri: "/", headers: headers)
    }

    @Test(arguments: [
        head(["Host": "t"]), head(["Host": ""]), head(.http1_0, [:]), head(.http1_0, ["host": "t"]),
        head(["Host": "t", "Content-Length": "9223372036854775807"]),
        head(.http1_1, .RAW(value: "BREW"), ["Host": "t"]),
    ])
    func whatIsRightPasses(head: HTTPRequestHead) {
        #expect(RequestHeadRules.refusal(of: head) == nil)
    }

    @Test(arguments: [
        (head([:]), Failure.Code.malformedRequest), (head([("Host", "t"), ("HOST", "t")]), .malformedRequest),
        (head(.http1_0, ["Transfer-Encoding": "chunked"]), .malformedRequest),
        (head(["Host": "t", "Content-Length": "9223372036854775808"]), .malformedRequest),
        (head(HTTPVersion(major: 1, minor: 2), ["Host": "t"]), .httpVersionNotSupported),
        (head(HTTPVersion(major: 2, minor: 0), ["Host": "t"]), .httpVersionNotSupported),
        (head(.http1_1, .RAW(value: "GE T"), ["Host": "t"]), .notSupported),
    ])
    func whatIsWrongIsNamed(head: HTTPRequestHead, code: Failure.Code) {
        #expect(RequestHeadRules.refusal(of: head)?.code == code)
    }

    @Test func aChunkMayHaveExtensionsInProportion() {
        var overhead = ChunkOverhead()
        overhead.received(1_000_000)
        #expect(!overhead.isTooMuch, "outside a body")
        overhead.bodyBegins()
        for _ in 0..<10_000 {
            overhead.received(3 * 1024 + 16)
            overhead.delivered(1024)
        }
        #expect(!overhead.isTooMuch)
        overhead.received(Limits.maxChunkOverheadBytes)
        #expect(!overhead.isTooMuch)
        overhead.received(1)
        #expect(overhead.isTooMuch)
        overhead.bodyEnds()
        #expect(!overhead.isTooMuch)
        overhead.bodyBegins()
        #expect(!overhead.isTooMuch)
    }
}

extension FramingTests {
    private static func head(_ headers: HTTPHeaders) -> HTTPRequestHead { head(.http1_1, .GET, headers) }
    private static func head(_ version: HTTPVersion, _ headers: HTTPHeaders) -> HTTPRequestHead {
        head(version, .GET, headers)
    }
    private static func head(_ headers: [(String, String)]) -> HTTPRequestHead { head(HTTPHeaders(headers)) }
}
