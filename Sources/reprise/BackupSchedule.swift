// When a backup is due: decided here, without making it.

import Domain

/// Decides once a second whether to make a backup.
///
/// One is due when `backup_interval_seconds` has passed since the latest, whoever asked for that one, and also where it
/// was made before the last restart. After a failure the next is tried after a pause that doubles from a minute up to
/// an hour.
struct BackupSchedule {
    private var lastSuccess: Instant?
    private var failures = 0
    private var retryAt: Instant?

    /// - Parameters:
    ///   - intervalMilliseconds: 0 for never.
    ///   - latest: when the latest backup was made; nil if there is none.
    mutating func isDue(now: Instant, intervalMilliseconds: Int64, latest: Instant?) -> Bool {
        guard intervalMilliseconds > 0 else {
            failures = 0
            retryAt = nil
            return false
        }
        // The clock may have been set back. Waiting for it to catch up could take long, and what is dated later than
        // now says nothing about when it was made.
        if let last = lastSuccess, now < last { lastSuccess = now }
        if let latest, latest <= now, latest > lastSuccess ?? Instant(milliseconds: .min) { lastSuccess = latest }
        if let at = retryAt, now < at, at.milliseconds(since: now) <= Limits.maxBackupRetryMilliseconds {
            return false
        }
        guard let lastSuccess else { return true }
        return now.milliseconds(since: lastSuccess) >= intervalMilliseconds
    }

    mutating func succeeded(at now: Instant) {
        lastSuccess = now
        failures = 0
        retryAt = nil
    }

    mutating func failed(at now: Instant) {
        let pause = min(
            Limits.backupRetryMilliseconds << Int64(min(failures, 10)), Limits.maxBackupRetryMilliseconds)
        failures += 1
        retryAt = now.advanced(milliseconds: pause)
    }
}
