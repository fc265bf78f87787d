-- What the cache and the background tasks did over time, in rows of a minute (period_seconds 60) and, once that is a day
-- old, of an hour (3600). Each event is counted in one row only. docs/design/counters.md explains how they are kept.

CREATE TABLE cache_activity (
    period_seconds  INTEGER NOT NULL,
    start_ms        INTEGER NOT NULL,
    namespace_id    INTEGER NOT NULL,            -- 0: namespaces that are no longer told apart; others may be gone
    hits            INTEGER NOT NULL DEFAULT 0,
    misses_absent   INTEGER NOT NULL DEFAULT 0,  -- one column for each reason the API gives
    misses_expired  INTEGER NOT NULL DEFAULT 0,
    misses_evicted  INTEGER NOT NULL DEFAULT 0,
    misses_deleted  INTEGER NOT NULL DEFAULT 0,
    misses_cleared  INTEGER NOT NULL DEFAULT 0,
    expirations     INTEGER NOT NULL DEFAULT 0,
    evictions       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (period_seconds, start_ms, namespace_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE maintenance_activity (
    period_seconds  INTEGER NOT NULL,
    start_ms        INTEGER NOT NULL,
    task            TEXT    NOT NULL,
    runs            INTEGER NOT NULL,
    failures        INTEGER NOT NULL,
    rows_removed    INTEGER NOT NULL,
    bytes_freed     INTEGER NOT NULL,
    PRIMARY KEY (period_seconds, start_ms, task)
) STRICT, WITHOUT ROWID;
