// The forms of the Authorization field.

import Domain
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

    @Test func lengthsAreBounded() {
        let long = String(repeating: "a", count: Limits.maxTokenBytes * 2)
        #expect(Credentials(field: "Bearer \(long)") == .unreadable)
        #expect(Credentials(field: "Bearer rpr_\(long)") == .unreadable)
    }

    @Test(arguments: [("", ""), (" \t", ""), (" a b\t", "a b"), ("a", "a"), (" é ", "é")])
    func blanksAroundTextAreCutOff(text: String, trimmed: String) { #expect(text.trimmed == trimmed) }
}
