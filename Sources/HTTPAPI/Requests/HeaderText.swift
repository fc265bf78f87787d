// Texts in header fields.

extension StringProtocol {
    /// Without blanks and tabs at its ends.
    var trimmed: String {
        let isBlank = { (c: Character) in c == " " || c == "\t" }
        return String(drop(while: isBlank).reversed().drop(while: isBlank).reversed())
    }
}
