// The forms of the Authorization field.

import Crypto
import Domain
import HTTPTypes
import Testing

@testable import HTTPAPI

struct CredentialsTests {
    @Test(arguments: [
        ("Bearer rpr_abc", "rpr_abc"), ("bearer rpr_abc", "rpr_abc"), ("BEARER   abc \t", "abc"),
        ("Bearer with blanks inside", "with blanks inside"), ("Basic OmFiYw==", "abc"),
        ("basic dXNlcjphYmM=", "abc"), ("Basic dXNlcjphOmI=", "a:b"),
    ])
    func tokens(field: String, token: String) { #expect(Credentials(field: field) == .token(token)) }

    @Test(arguments: [
        "", "Bearer", "Bearer ", "Bearer  \t", "rpr_abc", "Digest abc", "Basic", "Basic !", "Basic dXNlcg==",
        "Basic dXNlcjo=", "Basic /w==",
    ])
    func others(field: String) { #expect(Credentials(field: field) == .unreadable) }

    @Test func twoFieldsAreNone() {
        var request = HTTPRequest(method: .get, scheme: nil, authority: nil, path: "/")
        #expect(Credentials(request) == .none)
        request.headerFields.append(HTTPField(name: .authorization, value: "Bearer rpr_abc"))
        #expect(Credentials(request) == .token("rpr_abc"))
        request.headerFields.append(HTTPField(name: .authorization, value: "Bearer rpr_abc"))
        #expect(Credentials(request) == .unreadable)
    }

    @Test func digestsAreEqualInEveryByteOrNot() {
        let digest = SHA256.hash(data: Array("rpr_abc".utf8))
        #expect(digest.equals(Array(digest)))
        for index in 0..<SHA256.byteCount {
            var other = Array(digest)
            other[index] ^= 1
            #expect(!digest.equals(other))
        }
        #expect(!digest.equals([]))
        #expect(!digest.equals(digest.dropLast()))
        #expect(!digest.equals(digest + [0]))
    }

    @Test func lengthsAreBounded() {
        let long = String(repeating: "a", count: Limits.maxTokenBytes * 2)
        #expect(Credentials(field: "Bearer \(long)") == .unreadable)
        #expect(Credentials(field: "Bearer rpr_\(long)") == .unreadable)
    }

    @Test(arguments: [("", ""), (" \t", ""), (" a b\t", "a b"), ("a", "a"), (" é ", "é")])
    func blanksAroundTextAreCutOff(text: String, trimmed: String) { #expect(text.trimmed == trimmed) }
}
