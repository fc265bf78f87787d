// Text in header fields.

extension StringProtocol {
    /// Without leading and trailing spaces and tabs.
    var trimmed: String {
        // Looks at the ends only: a token or a list of types can be long.
        let isText = { (c: Character) in c != " " && c != "\t" }
        guard let first = firstIndex(where: isText), let last = lastIndex(where: isText) else { return "" }
        return String(self[first...last])
    }
}
