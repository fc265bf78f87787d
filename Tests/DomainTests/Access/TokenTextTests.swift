// The texts of tokens, and what they are limited to.

import Domain
import Testing

struct TokenTextTests {
    @Test func aNewTokenHasTheFormThatScannersLookFor() throws {
        var texts: Set<String> = []
        for _ in 1...100 {
            let form = TokenText.random()
            let isWhole = form.text.wholeMatch(of: #/rpr_[0-9a-f]{16}_[0-9a-f]{64}/#) != nil
            #expect(isWhole)
            #expect(form.text.hasPrefix("rpr_\(form.id)_"))
            #expect(TokenText(form.text) == form)
            texts.insert(form.text)
        }
        #expect(texts.count == 100)
    }

    @Test func everythingElseIsNoToken() {
        let text = TokenText.random().text
        for other in [
            "", "rpr_", "x" + text, text + "0", String(text.dropLast()), text.uppercased(),
            text.replacing("rpr_", with: "rpx_"), String(text.dropLast()) + "g",
            text.replacing("_", with: "-"), String(text.dropLast(2)) + "é",
        ] { #expect(TokenText(other) == nil) }
    }

    @Test func scopesIncludeThoseBelow() {
        let clock = Instant(milliseconds: 0)
        func token(_ scopes: Scope...) -> AccessToken {
            AccessToken(
                id: "", name: "", scopes: Set(scopes), namespaces: nil, createdAt: clock, expiresAt: nil, digest: [])
        }
        func included(_ token: AccessToken) -> [Scope] { Scope.allCases.filter { token.includes($0) } }
        #expect(included(token(.read)) == [.read])
        #expect(included(token(.write)) == [.read, .write])
        #expect(included(token(.admin)) == [.read, .write, .admin])
        #expect(included(token(.read, .admin)) == [.read, .write, .admin])
        #expect(included(token()).isEmpty)
    }

    @Test func patternsMatchWholeNamesOrBeginnings() throws {
        func matches(_ pattern: String, _ name: String) throws -> Bool {
            try NamespacePattern(pattern, field: "x").matches(name)
        }
        #expect(try matches("models", "models"))
        #expect(try !matches("models", "models2"))
        #expect(try !matches("models", "model"))
        #expect(try matches("models*", "models"))
        #expect(try matches("models*", "models-2"))
        #expect(try !matches("models*", "model"))
        #expect(try matches("*", "anything"))
        #expect(try matches(".*", ".hidden"))
        for wrong in ["", ".", "..", "a*b", "**", "a/b", "a b", "é", String(repeating: "a", count: 129)] {
            #expect(throws: Failure.self) { try NamespacePattern(wrong, field: "x") }
        }
    }
}
