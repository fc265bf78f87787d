// What a mistyped name was probably meant to be.

/// Looks among the names there are for the one a caller meant.
public enum Suggestion {
    /// Edits between a name and its suggestion; a short name gets fewer, because any two of them are alike.
    private static let maxEdits = 2

    /// The end of a message about a name that is not known: ` Did you mean 'port'?`, or nothing if no name is near.
    public static func text(for name: String, among names: some Sequence<String>) -> String {
        nearest(to: name, among: names).map { " Did you mean '\($0)'?" } ?? ""
    }

    /// The nearest name that is at most two edits away, the first one of several.
    static func nearest(to name: String, among names: some Sequence<String>) -> String? {
        let typed = Array(name.utf8.prefix(Limits.maxNameBytes + 1))
        let allowed = min(maxEdits, typed.count / 2)
        var nearest: (name: String, edits: Int)?
        for candidate in names where abs(candidate.utf8.count - typed.count) <= allowed && candidate != name {
            let edits = distance(typed, Array(candidate.utf8))
            if edits <= allowed, edits < nearest?.edits ?? .max { nearest = (candidate, edits) }
        }
        return nearest?.name
    }

    /// The least number of bytes to insert, remove or replace (Levenshtein), row by row of the usual table.
    private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        var row = Array(0...b.count)
        for (i, x) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                let replaced = diagonal + (x == y ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(replaced, diagonal + 1, row[j] + 1)
            }
        }
        return row[b.count]
    }
}
