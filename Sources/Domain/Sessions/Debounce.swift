// Debouncing: of many calls in quick succession the first is allowed. Decided here, kept by the storage.

/// The answer to a call of a debounce.
public struct DebounceDecision: Sendable, Equatable {
    public var isAllowed: Bool
    /// Time until a call with the same delay is allowed; 0 if this one is.
    public var retryAfterMilliseconds: Int64
    /// When this call was made, if it is allowed; otherwise when the last allowed one was.
    public var lastAllowedAt: Instant

    /// Decides on the leading edge: allowed unless another call was allowed less than the delay ago.
    ///
    /// A clock set back by less than the delay counts as no time passed, so that it does not allow a second call; if it
    /// is set back by more, the call is allowed, because callers must not be locked out until it has caught up.
    /// - Parameters:
    ///   - delayMilliseconds: this call's own delay; 0 allows every call.
    ///   - lastAllowedAt: when a call was allowed last, with any delay; nil if none is remembered.
    public init(delayMilliseconds: Int64, lastAllowedAt: Instant?, now: Instant) {
        if let lastAllowedAt {
            let elapsed = now.milliseconds(since: lastAllowedAt)
            if elapsed < delayMilliseconds, elapsed > -delayMilliseconds {
                isAllowed = false
                retryAfterMilliseconds = delayMilliseconds - elapsed
                self.lastAllowedAt = lastAllowedAt
                return
            }
        }
        isAllowed = true
        retryAfterMilliseconds = 0
        self.lastAllowedAt = now
    }

    /// When an allowed call is forgotten: after its delay, and not before ``Limits/debounceMemoryMilliseconds``.
    public static func expiry(ofCallAt now: Instant, delayMilliseconds: Int64) -> Instant {
        now.advanced(milliseconds: max(delayMilliseconds, Limits.debounceMemoryMilliseconds))
    }
}
