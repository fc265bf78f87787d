// The program's version.

/// What `reprise --version` prints. Semantic versioning over the wire contract; CHANGELOG.md has the history.
public enum Version {
    public static let current = "0.1.0"
}
