// What a caller may do.

/// What a token allows. Each scope includes the ones before it.
public enum Scope: String, Sendable, CaseIterable, Comparable {
    /// Every GET and HEAD of data, the metrics, and what the dashboard shows.
    case read
    /// What changes data.
    case write
    /// Settings, maintenance, backups, SQL, tokens and diagnostics.
    case admin

    public static func < (a: Self, b: Self) -> Bool {
        allCases.firstIndex(of: a)! < allCases.firstIndex(of: b)!
    }
}

/// What a route asks of its callers.
public enum RouteScope: Sendable, Hashable {
    /// Nothing: a probe, or a file of the dashboard, which contains no data.
    case open
    /// Any valid token, even one that is limited to namespaces.
    case anyToken
    case read, write, admin

    /// The scope that a caller's token must include; nil for none.
    public var required: Scope? {
        switch self {
        case .open, .anyToken: nil
        case .read: .read
        case .write: .write
        case .admin: .admin
        }
    }
}
