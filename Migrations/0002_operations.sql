-- What the background service did, and settings changed while it ran. Instants and durations as their names say.

CREATE TABLE maintenance_runs (
    run_id            INTEGER PRIMARY KEY AUTOINCREMENT,
    task              TEXT    NOT NULL,
    trigger           TEXT    NOT NULL,   -- what made it run: startup, interval, deadline, backlog, demand
    started_at_ms     INTEGER NOT NULL,
    duration_seconds  REAL    NOT NULL,
    rows_removed      INTEGER NOT NULL,
    bytes_freed       INTEGER NOT NULL,
    error             TEXT                -- NULL: it went through
) STRICT;

-- Values given through PATCH /v1/config. They go before flag, environment, file and default.
CREATE TABLE runtime_settings (
    name           TEXT    PRIMARY KEY,
    value          TEXT    NOT NULL,
    changed_at_ms  INTEGER NOT NULL
) STRICT;

-- Counts the changes, so that of two at once the later one wins in memory too.
CREATE TABLE runtime_settings_version (
    only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
    version   INTEGER NOT NULL
) STRICT;
INSERT INTO runtime_settings_version VALUES (1, 0);
