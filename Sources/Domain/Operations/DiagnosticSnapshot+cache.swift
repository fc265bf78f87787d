// The rules about the cache: which namespaces miss, why, and which setting would help.

extension Finding.Code {
    public static let cacheMissesExpired = Self(rawValue: "cache_misses_expired")
    public static let cacheMissesEvicted = Self(rawValue: "cache_misses_evicted")
    public static let cacheMissesDeleted = Self(rawValue: "cache_misses_deleted")
    public static let cacheMissesCleared = Self(rawValue: "cache_misses_cleared")
    public static let cacheMissesAbsent = Self(rawValue: "cache_misses_absent")
    public static let cacheHitRatioLow = Self(rawValue: "cache_hit_ratio_low")
    public static let cacheOverCap = Self(rawValue: "cache_over_cap")
    public static let namespacesNearlyFull = Self(rawValue: "namespaces_nearly_full")
}

// What can be known about misses, and what cannot
//
// A miss after a removal says how late it came: the time from the removal to the look-up (``MissDelays``). An entry
// that had lived longer by that delay would have been a hit, so the delay that covers most misses, added to the
// lifetime, is the lifetime that would have helped. What is not known is the lifetime that a caller gave a single
// entry, because its row is gone; so the proposal is for the namespace, and says by how much callers must raise their
// own.
//
// A cap that would have helped is estimated in the same way. Entries leave in an order, so an entry that is asked for d
// seconds after its eviction would still have been there if the namespace had had room for what was evicted in those d
// seconds: the rate of evictions times d. This is exact for `fifo` and close for `lru`; for `lfu` it is a hint.
//
// A key that was never stored says nothing about itself. Many of them, and few hits, mean that the cache is filling or
// that its keys never repeat.

extension DiagnosticSnapshot {
    private typealias Thresholds = DiagnosticThresholds
    private typealias Namespace = DiagnosticFigures.Namespace

    var cache: [Finding] {
        let namespaces = (figures.stored?.namespaces ?? [])
            .sorted { ($0.activity.missCount, $1.name.rawValue) > ($1.activity.missCount, $0.name.rawValue) }
        var findings: [Finding.Code: [Finding]] = [:]
        for namespace in namespaces {
            for finding in misses(of: namespace) + overCap(namespace) {
                findings[finding.code, default: []].append(finding)
            }
        }
        return findings.keys.sorted { $0.rawValue < $1.rawValue }.flatMap { Self.bounded(findings[$0]!) }
    }

    /// Those of the first namespaces, which have the most misses, with a word about the others.
    private static func bounded(_ findings: [Finding]) -> [Finding] {
        var shown = Array(findings.prefix(Thresholds.maxNamespacesPerCode))
        let left = findings.count - shown.count
        if left > 0 {
            shown[shown.count - 1].detail += " The same is true of \(left) more namespaces with fewer misses."
        }
        return shown
    }

    private func misses(of namespace: Namespace) -> [Finding] {
        let activity = namespace.activity
        guard activity.lookups >= Thresholds.minLookups else { return [] }
        var findings: [Finding] = []
        for reason in MissReason.allCases {
            let share = Double(activity.misses[reason] ?? 0) / Double(activity.lookups)
            let least = reason == .absent ? Thresholds.absentMissShare : Thresholds.avoidableMissShare
            if share >= least { findings.append(finding(about: reason, share: share, in: namespace)) }
        }
        if findings.isEmpty, let ratio = activity.hitRatio, ratio < Thresholds.hitRatio {
            findings.append(
                Finding(
                    .info, .cacheHitRatioLow,
                    "Namespace '\(namespace.name)' answers \(Text.percent(ratio)) of its "
                        + "look-ups",
                    detail: "No single reason accounts for the misses of the last hour.",
                    evidence: evidence(namespace),
                    remedy: "GET /v1/metrics/cache has the misses by reason. Look at the largest first: a longer TTL "
                        + "for expired, higher caps for evicted, fewer removals for deleted and cleared."))
        }
        return findings
    }

    private func evidence(_ namespace: Namespace, _ more: [JSON.Member] = []) -> JSON {
        let activity = namespace.activity
        return .object(
            [
                .init(name: "lookups", value: .integer(activity.lookups)),
                .init(name: "hit_ratio", value: .decimal(((activity.hitRatio ?? 0) * 10_000).rounded() / 10_000)),
            ]
                + MissReason.allCases.map {
                    .init(name: "\($0.rawValue)_misses", value: .integer(activity.misses[$0] ?? 0))
                } + more)
    }

    private func finding(about reason: MissReason, share: Double, in namespace: Namespace) -> Finding {
        let name = namespace.name
        let count = namespace.activity.misses[reason] ?? 0
        let seen =
            "In the last hour, \(count) of \(namespace.activity.lookups) look-ups (\(Text.percent(share))) "
            + "missed"
        switch reason {
        case .expired: return expired(namespace, seen)
        case .evicted: return evicted(namespace, seen)
        case .deleted:
            return Finding(
                .info, .cacheMissesDeleted, "Namespace '\(name)': entries are deleted before they are asked for again",
                detail: "\(seen) because the entry had been deleted by its key.", evidence: evidence(namespace),
                remedy: "If the application deletes entries in order to replace them, let it store the new value with "
                    + "PUT instead: readers then get the old value until the new one is there.")
        case .cleared:
            return Finding(
                .info, .cacheMissesCleared, "Namespace '\(name)': entries are cleared before they are asked for again",
                detail: "\(seen) because the entry had been cleared together with others.",
                evidence: evidence(namespace),
                remedy: "Clear less at a time: give entries tags of what they depend on, and remove by tag or prefix "
                    + "instead of clearing the namespace.")
        case .absent:
            let ratio = namespace.activity.hitRatio ?? 0
            let isUseless =
                ratio < Thresholds.uselessHitRatio && namespace.activity.lookups >= Thresholds.uselessLookups
            return Finding(
                isUseless ? .warning : .info, .cacheMissesAbsent,
                "Namespace '\(name)': most keys that are asked for were never stored",
                detail: "\(seen) because nothing was ever stored under the key, or more than a day ago. A cache that "
                    + "is filling looks like this for a while; one whose keys never repeat always does.",
                evidence: evidence(namespace, [.init(name: "entry_count", value: .integer(namespace.entryCount))]),
                remedy: "Compare the keys of GET /v1/cache/\(name)/entries?sort=-updated_at with those asked for. "
                    + "Derive keys from the content of all arguments: not from object identities such as id(), nor "
                    + "from times, counters, random numbers or the order of dictionaries. Store and read in the same "
                    + "namespace, and store a result whenever it had to be computed.")
        }
    }

    // MARK: Expired

    private func expired(_ namespace: Namespace, _ seen: String) -> Finding {
        let name = namespace.name
        let own = namespace.policy.timeToLive
        let seconds = (own ?? .finite(milliseconds: settings.milliseconds(.cacheTTL))).milliseconds
            .map { Double($0) / 1000 }
        var members: [JSON.Member] = [.init(name: "ttl_seconds", value: .optional(seconds, JSON.decimal))]
        if seconds == nil { members = [] }
        let ttl =
            seconds.map { "The namespace's TTL is \(JSON.decimal($0).text) s\(own == nil ? ", the default" : "")." }
            ?? "The namespace's own TTL is unlimited, so callers give their entries shorter ones."
        let delays = namespace.delays[.expired] ?? MissDelays()
        guard delays.count >= Thresholds.minDelays, let half = delays.seconds(covering: 0.5),
            let most = delays.seconds(covering: Thresholds.coveredShare)
        else {
            return Finding(
                .warning, .cacheMissesExpired, "Namespace '\(name)': entries expire before they are asked for again",
                detail: "\(seen) because the entry had expired. \(ttl) How long after the expiry callers ask is not "
                    + "known yet.",
                evidence: evidence(namespace, members),
                remedy: seconds.map {
                    "If values may be older than that, double the TTL and look again: "
                        + request(namespace, ttlSeconds: $0 * 2)
                } ?? "If values may be older than that, let callers send a longer Reprise-TTL.")
        }
        members += [
            .init(name: "measured_misses", value: .integer(delays.count)),
            .init(name: "delay_p50_seconds", value: .decimal(half)),
            .init(name: "delay_p80_seconds", value: .decimal(most)),
        ]
        var remedy = ""
        if let seconds {
            let proposed = min(seconds + most, Double(Limits.maxLifetimeMilliseconds / 1000))
            members.append(.init(name: "helpful_ttl_seconds", value: .decimal(proposed)))
            remedy =
                "If values may be that old: \(request(namespace, ttlSeconds: proposed)). Callers that send a TTL of "
                + "their own must raise it by \(JSON.decimal(most).text) s."
        } else {
            remedy =
                "If values may be that old, let callers raise the Reprise-TTL they send by "
                + "\(JSON.decimal(most).text) s."
        }
        return Finding(
            .warning, .cacheMissesExpired, "Namespace '\(name)': entries expire before they are asked for again",
            detail: "\(seen) because the entry had expired. Of the latest such misses, half came within "
                + "\(JSON.decimal(half).text) s of the expiry, and \(Text.percent(Thresholds.coveredShare)) within "
                + "\(JSON.decimal(most).text) s. \(ttl)",
            evidence: evidence(namespace, members), remedy: remedy)
    }

    // MARK: Evicted

    private func evicted(_ namespace: Namespace, _ seen: String) -> Finding {
        let name = namespace.name
        let policy = namespace.policy
        var members: [JSON.Member] = [
            .init(name: "evictions", value: .integer(namespace.activity.evictions)),
            .init(name: "entry_count", value: .integer(namespace.entryCount)),
            .init(name: "size_bytes", value: .integer(namespace.sizeBytes)),
        ]
        if let cap = policy.maxEntries { members.append(.init(name: "max_entries", value: .integer(cap))) }
        if let cap = policy.maxBytes { members.append(.init(name: "max_bytes", value: .integer(cap))) }
        let title = "Namespace '\(name)': entries are evicted before they are asked for again"
        let delays = namespace.delays[.evicted] ?? MissDelays()
        guard policy.isCapped else {
            return Finding(
                .info, .cacheMissesEvicted, title,
                detail: "\(seen) because the entry had been evicted. The namespace has no caps any more, so this will "
                    + "end.",
                evidence: evidence(namespace, members), remedy: "Nothing: wait until the cache has filled again.")
        }
        guard delays.count >= Thresholds.minDelays, let most = delays.seconds(covering: Thresholds.coveredShare) else {
            return Finding(
                .warning, .cacheMissesEvicted, title,
                detail: "\(seen) because the entry had been evicted. How long after the eviction callers ask is not "
                    + "known yet.",
                evidence: evidence(namespace, members),
                remedy: "Double the caps and look again: "
                    + request(
                        namespace, entries: policy.maxEntries.map { doubled($0) },
                        bytes: policy.maxBytes.map { doubled($0) }))
        }
        let windowSeconds = Double(Thresholds.windowMilliseconds) / 1000
        let more = Double(namespace.activity.evictions) / windowSeconds * most
        let meanBytes = Double(namespace.sizeBytes) / Double(max(namespace.entryCount, 1))
        let entries = policy.maxEntries.map { Self.roundedUp(Double($0) + more) }
        let bytes = policy.maxBytes.map { Self.roundedUp(Double($0) + more * meanBytes) }
        members += [
            .init(name: "measured_misses", value: .integer(delays.count)),
            .init(name: "delay_p80_seconds", value: .decimal(most)),
        ]
        if let entries { members.append(.init(name: "helpful_max_entries", value: .integer(entries))) }
        if let bytes { members.append(.init(name: "helpful_max_bytes", value: .integer(bytes))) }
        return Finding(
            .warning, .cacheMissesEvicted, title,
            detail: "\(seen) because the entry had made room for others. \(Text.percent(Thresholds.coveredShare)) of "
                + "the latest such misses came within \(JSON.decimal(most).text) s of the eviction, and in that time "
                + "about \(Int(more.rounded(.up))) entries are evicted.",
            evidence: evidence(namespace, members),
            remedy: request(namespace, entries: entries, bytes: bytes)
                + ". This is an estimate: look again after an hour.")
    }

    private func doubled(_ cap: Int) -> Int { cap > Int.max / 2 ? Int.max : cap * 2 }

    /// The request that changes a namespace's policy: all of it, because what is not sent is dropped.
    private func request(
        _ namespace: Namespace, ttlSeconds: Double? = nil, entries: Int? = nil, bytes: Int? = nil
    ) -> String {
        let policy = namespace.policy
        var members: [JSON.Member] = []
        let ttl =
            ttlSeconds.map(JSON.decimal)
            ?? policy.timeToLive.map { .optional($0.milliseconds) { .seconds(milliseconds: $0) } }
        if let ttl { members.append(.init(name: "ttl_seconds", value: ttl)) }
        for (name, value) in [
            ("max_entries", entries ?? policy.maxEntries), ("max_bytes", bytes ?? policy.maxBytes),
            ("max_entry_bytes", policy.maxEntryBytes),
        ] {
            if let value { members.append(.init(name: name, value: .integer(value))) }
        }
        if policy.eviction != .leastRecentlyUsed {
            members.append(.init(name: "eviction", value: .string(policy.eviction.rawValue)))
        }
        return "PUT /v1/cache/\(namespace.name) with \(JSON.object(members).text)"
    }

    /// To two significant digits, because more would claim a precision that an estimate does not have.
    static func roundedUp(_ value: Double) -> Int {
        var unit = 1.0
        while value / unit >= 100 { unit *= 10 }
        let rounded = (value / unit).rounded(.up) * unit
        return rounded < Double(Int.max) ? Int(rounded) : .max
    }

    // MARK: Caps and names

    private func overCap(_ namespace: Namespace) -> [Finding] {
        let policy = namespace.policy
        func exceeds(_ value: Int, _ cap: Int?) -> Bool {
            cap.map { Double(value) > Double($0) * (1 + Thresholds.overCapShare) } ?? false
        }
        let name = namespace.name
        guard exceeds(namespace.entryCount, policy.maxEntries) || exceeds(namespace.sizeBytes, policy.maxBytes) else {
            return []
        }
        var members: [JSON.Member] = [
            .init(name: "entry_count", value: .integer(namespace.entryCount)),
            .init(name: "size_bytes", value: .integer(namespace.sizeBytes)),
        ]
        if let cap = policy.maxEntries { members.append(.init(name: "max_entries", value: .integer(cap))) }
        if let cap = policy.maxBytes { members.append(.init(name: "max_bytes", value: .integer(cap))) }
        return [
            Finding(
                .warning, .cacheOverCap, "Namespace '\(name)' is over its caps",
                detail: "It holds \(namespace.entryCount) entries with \(Text.bytes(namespace.sizeBytes)). For a "
                    + "moment after caps were lowered this is usual; if it lasts, eviction does not keep up.",
                evidence: .object(members),
                remedy: "POST /v1/maintenance/cleanup with {\"tasks\": [\"cache_caps\"]}, which reports an error if "
                    + "there is one.")
        ]
    }

    var namespaceCount: [Finding] {
        guard let count = figures.stored?.namespaces.count,
            Double(count) >= Thresholds.namespaceShare * Double(Limits.maxNamespaces)
        else { return [] }
        let isFull = count >= Limits.maxNamespaces
        return [
            Finding(
                isFull ? .critical : .warning, .namespacesNearlyFull,
                isFull ? "No further namespace can be created" : "Most of the permitted namespaces are in use",
                detail: "There are \(count) of \(Limits.maxNamespaces). Writes to a new one are refused with "
                    + "too_many_namespaces beyond that.",
                evidence: ["namespace_count": .integer(count), "max_namespaces": .integer(Limits.maxNamespaces)],
                remedy: "Put ids of users, models or days into keys, not into the names of namespaces. GET /v1/cache "
                    + "lists them; DELETE /v1/cache/{namespace} removes one. An empty one without a policy goes by "
                    + "itself after a day without use.")
        ]
    }
}
