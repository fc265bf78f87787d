// Which name is suggested for a mistyped one, and when none is.

import Testing

@testable import Domain

struct SuggestionTests {
    @Test(arguments: [
        ("prot", "port"), ("ports", "port"), ("cache_ttl_second", "cache_ttl_seconds"), ("hosT", "host"),
        ("log-level", "log_level"), ("max_histori_itemz", "max_history_items"),
    ])
    func aNearNameIsSuggested(typed: String, meant: String) {
        #expect(Suggestion.text(for: typed, among: Setting.all.map(\.name)) == " Did you mean '\(meant)'?")
    }

    @Test(arguments: ["", "p", "xy", "ttl_seconds", "colour", String(repeating: "port", count: 100_000), "日本語"])
    func nothingFarIsSuggested(typed: String) {
        #expect(Suggestion.text(for: typed, among: Setting.all.map(\.name)) == "")
    }

    @Test func theNearestIsSuggested() {
        #expect(Suggestion.nearest(to: "keys", among: ["kays", "keyss", "key", "abcd"]) == "kays")
        #expect(Suggestion.nearest(to: "valuse", among: ["values", "value"]) == "value")
        #expect(Suggestion.nearest(to: "same", among: ["same"]) == nil)
    }
}
