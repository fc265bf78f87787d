// Debouncing: of many calls in quick succession the first is allowed. Decided here, kept by the storage.

/// What a call of a debounce is told.
public struct DebounceDecision: Sendable, Equatable {
    public var isAllowed: Bool
    /// Until a call with the same delay is allowed; 0 when this one is.
    public var retryAfterMilliseconds: Int64
    /// This call's instant when it is allowed, else that of the one that was.
    public var lastAllowedAt: Instant

    /// Decides on the leading edge: allowed unless another call was allowed less than the delay ago.
    ///
    /// A clock set back by less than the delay counts as no time passed, so that it does not allow a second call; set
    /// back by more it must not lock callers out until it has caught up, and the call is allowed.
    /// - Parameters:
    ///   - delayMilliseconds: this call's own delay; 0 allows every call.
    ///   - lastAllowedAt: when a call was allowed last, with whatever delay; nil if none is remembered.
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
