-- What the background service did, and when. Instants and durations as their names say.

CREATE TABLE maintenance_runs (
    run_id            INTEGER PRIMARY KEY AUTOINCREMENT,
    task              TEXT    NOT NULL,
    trigger           TEXT    NOT NULL,   -- what made it run: startup, interval, deadline, backlog
    started_at_ms     INTEGER NOT NULL,
    duration_seconds  REAL    NOT NULL,
    rows_removed      INTEGER NOT NULL,
    bytes_freed       INTEGER NOT NULL,
    error             TEXT                -- NULL: it went through
) STRICT;
