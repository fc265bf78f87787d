// The contract of TokenStore, run over every storage engine.

import Domain
import TestSupport
import Testing

struct TokenStoreTests {
    private static func token(
        _ id: String, at milliseconds: Int64 = 1000, namespaces: [NamespacePattern]? = nil, expiresAt: Int64? = nil
    ) -> AccessToken {
        AccessToken(
            id: id, name: "Größe \(id)", scopes: [.read, .write], namespaces: namespaces,
            createdAt: Instant(milliseconds: milliseconds),
            expiresAt: expiresAt.map { Instant(milliseconds: $0) }, digest: Array(0..<32))
    }

    @Test(arguments: Engine.allCases)
    func tokensAreKept(engine: Engine) async throws {
        let limited = Self.token(
            "b", namespaces: ["quality", "models*"].map { NamespacePattern(stored: $0) }, expiresAt: 9000)
        try await engine.run { store, _ async throws in
            #expect(!store.accessTokens.hasTokens)
            try await store.accessTokens.addToken(limited)
            try await store.accessTokens.addToken(Self.token("a"))
            try await store.accessTokens.addToken(Self.token("c", at: 2000))
            #expect(store.accessTokens.hasTokens)
            #expect(store.accessTokens.tokens.map(\.id) == ["c", "a", "b"])
        } reopened: { store, _ async throws in
            #expect(store.accessTokens.hasTokens)
            #expect(store.accessTokens.tokens.map(\.id) == ["c", "a", "b"])
            #expect(store.accessTokens.token("b") == limited)
            #expect(store.accessTokens.token("d") == nil)
        }
    }

    @Test(arguments: Engine.allCases)
    func removedTokensAreGone(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            try await store.accessTokens.addToken(Self.token("a"))
            try await store.accessTokens.addToken(Self.token("b"))
            try await store.accessTokens.removeToken("a")
            #expect(store.accessTokens.token("a") == nil)
            await #expect(throws: Failure(.tokenNotFound, "There is no token with this id.")) {
                try await store.accessTokens.removeToken("a")
            }
        } reopened: { store, _ async throws in
            #expect(store.accessTokens.tokens.map(\.id) == ["b"])
        }
    }

    @Test(arguments: Engine.allCases)
    func usesAreKeptWithoutAWriteForEach(engine: Engine) async throws {
        try await engine.run { store, clock async throws in
            try await store.accessTokens.addToken(Self.token("a"))
            let writes = await store.operationalFigures().writes
            for second in 1...90 {
                store.accessTokens.noteUse(ofToken: "a", at: Instant(milliseconds: Int64(second) * 1000))
                try await store.flushCounters()
            }
            // A use before the last one changes nothing.
            store.accessTokens.noteUse(ofToken: "a", at: Instant(milliseconds: 5))
            #expect(store.accessTokens.token("a")?.lastUsedAt == Instant(milliseconds: 90_000))
            #expect(await store.operationalFigures().writes - writes <= 2)
        } reopened: { store, _ async throws in
            #expect(store.accessTokens.token("a")?.lastUsedAt == Instant(milliseconds: 90_000))
        }
    }

    /// Of racing callers, as many get in as there is room.
    @Test(arguments: Engine.allCases)
    func theMaximumHoldsUnderRaces(engine: Engine) async throws {
        try await engine.run { store, _ async throws in
            let added = await withTaskGroup(of: Int.self) { group in
                for number in 0..<Limits.maxTokens + 20 {
                    group.addTask {
                        do {
                            try await store.accessTokens.addToken(Self.token("\(number)"))
                            return 1
                        } catch let failure as Failure {
                            #expect(failure.code == .tooManyTokens)
                            return 0
                        } catch {
                            Issue.record(error)
                            return 0
                        }
                    }
                }
                return await group.reduce(0, +)
            }
            #expect(added == Limits.maxTokens)
            #expect(store.accessTokens.tokens.count == Limits.maxTokens)
        }
    }
}
