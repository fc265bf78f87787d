-- Performance samples: as they came, and rolled up by minute, hour and six hours into distributions that can be merged.
-- docs/design/samples.md explains the buckets, docs/sql.md the views.

-- What is measured: one row for each name and what it is told apart by. Their number is bounded.
CREATE TABLE sample_series (
    series_id           INTEGER PRIMARY KEY,
    kind                TEXT    NOT NULL CHECK (kind IN ('timing', 'memory', 'gauge')),
    name                TEXT    NOT NULL,
    metric              TEXT    NOT NULL,             -- duration_seconds; rss_bytes, vms_bytes, percent; value
    variant             TEXT    NOT NULL DEFAULT '',  -- '' for none
    cache               TEXT    NOT NULL DEFAULT '',  -- hit, miss; '' where it was not said
    source              TEXT    NOT NULL DEFAULT 'app' CHECK (source IN ('app', 'service')),
    unit                TEXT,
    last_recorded_at_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX sample_series_key ON sample_series (kind, name, metric, variant, cache, source);

-- Samples as they came, kept for sample_retention_seconds.
CREATE TABLE samples (
    sample_id      INTEGER PRIMARY KEY,            -- in the order of commits
    series_id      INTEGER NOT NULL,               -- of a memory sample, that of its rss_bytes
    recorded_at_ms INTEGER NOT NULL,
    value          REAL    NOT NULL,               -- seconds, resident bytes or the gauge's value
    is_error       INTEGER NOT NULL DEFAULT 0,
    vms_bytes      INTEGER,                        -- of memory samples only, as percent is
    percent        REAL,
    session_id     TEXT,
    labels         TEXT                            -- a JSON object of strings
) STRICT;
CREATE INDEX samples_recorded ON samples (recorded_at_ms);
CREATE INDEX samples_series ON samples (series_id, recorded_at_ms);
CREATE INDEX samples_session ON samples (session_id, recorded_at_ms) WHERE session_id IS NOT NULL;

-- How far the roll-up came: samples up to this one are in the roll-ups. Of samples recorded before raw_since_ms some
-- were removed. One row.
CREATE TABLE sample_progress (
    progress_id  INTEGER PRIMARY KEY CHECK (progress_id = 1),
    rolled_up_to INTEGER NOT NULL,
    raw_since_ms INTEGER NOT NULL
) STRICT;
INSERT INTO sample_progress VALUES (1, 0, 0);

-- Figures of a series in one minute (60), hour (3600) or six hours (21600), kept for sample_rollup_retention_seconds.
CREATE TABLE sample_rollups (
    period_seconds INTEGER NOT NULL,
    start_ms       INTEGER NOT NULL,
    series_id      INTEGER NOT NULL,
    count          INTEGER NOT NULL,
    error_count    INTEGER NOT NULL,
    sum            REAL    NOT NULL,
    min            REAL    NOT NULL,
    max            REAL    NOT NULL,
    last           REAL    NOT NULL,
    last_at_ms     INTEGER NOT NULL,
    PRIMARY KEY (period_seconds, start_ms, series_id)
) STRICT, WITHOUT ROWID;

-- Their distribution: how many values lie in each logarithmic bucket. Merging distributions is adding counts.
CREATE TABLE sample_rollup_buckets (
    period_seconds INTEGER NOT NULL,
    start_ms       INTEGER NOT NULL,
    series_id      INTEGER NOT NULL,
    bucket         INTEGER NOT NULL,
    count          INTEGER NOT NULL,
    PRIMARY KEY (period_seconds, start_ms, series_id, bucket)
) STRICT, WITHOUT ROWID;

-- The value that stands for all in a bucket, within 0.75 % of each of them. Filled as buckets come into use, so that
-- views need no logarithms, which not every build of SQLite has.
CREATE TABLE sample_buckets (
    bucket INTEGER PRIMARY KEY,
    value  REAL NOT NULL
) STRICT;

-- Every timing that is kept, by name and hour: rolled-up ones by the hour's buckets, the newest as they came.
CREATE VIEW timing_values AS
SELECT s.name, s.variant, s.cache, s.source, b.start_ms AS hour_ms, v.value, b.count
FROM sample_series s JOIN sample_rollup_buckets b USING (series_id) JOIN sample_buckets v USING (bucket)
WHERE s.kind = 'timing' AND b.period_seconds = 3600
UNION ALL
SELECT s.name, s.variant, s.cache, s.source, p.recorded_at_ms / 3600000 * 3600000, p.value, 1
FROM samples p JOIN sample_series s USING (series_id)
WHERE s.kind = 'timing' AND p.sample_id > (SELECT rolled_up_to FROM sample_progress);

-- Counts, errors and extremes of the same.
CREATE VIEW timing_figures AS
SELECT s.name, s.variant, s.cache, s.source, r.start_ms AS hour_ms, r.count, r.error_count, r.sum, r.min, r.max,
    r.last_at_ms
FROM sample_series s JOIN sample_rollups r USING (series_id)
WHERE s.kind = 'timing' AND r.period_seconds = 3600
UNION ALL
SELECT s.name, s.variant, s.cache, s.source, p.recorded_at_ms / 3600000 * 3600000, 1, p.is_error, p.value, p.value,
    p.value, p.recorded_at_ms
FROM samples p JOIN sample_series s USING (series_id)
WHERE s.kind = 'timing' AND p.sample_id > (SELECT rolled_up_to FROM sample_progress);

-- Each operation the callers timed, over everything that is kept. A percentile lies between the values of the two
-- samples next to it, as it does in the answers of /v1/metrics.
CREATE VIEW operation_stats AS
WITH counted AS (
    SELECT name, value, sum(count) AS count FROM timing_values WHERE source = 'app' GROUP BY name, value
), ranked AS (
    SELECT name, value, sum(count) OVER (PARTITION BY name ORDER BY value) AS up_to,
        sum(count) OVER (PARTITION BY name) AS total
    FROM counted
), neighbours AS (
    SELECT name, total,
        min(value) FILTER (WHERE up_to > CAST(0.5 * (total - 1) AS INTEGER)) AS lower50,
        min(value) FILTER (WHERE up_to > CAST(0.5 * (total - 1) AS INTEGER) + 1) AS upper50,
        min(value) FILTER (WHERE up_to > CAST(0.9 * (total - 1) AS INTEGER)) AS lower90,
        min(value) FILTER (WHERE up_to > CAST(0.9 * (total - 1) AS INTEGER) + 1) AS upper90,
        min(value) FILTER (WHERE up_to > CAST(0.95 * (total - 1) AS INTEGER)) AS lower95,
        min(value) FILTER (WHERE up_to > CAST(0.95 * (total - 1) AS INTEGER) + 1) AS upper95,
        min(value) FILTER (WHERE up_to > CAST(0.99 * (total - 1) AS INTEGER)) AS lower99,
        min(value) FILTER (WHERE up_to > CAST(0.99 * (total - 1) AS INTEGER) + 1) AS upper99
    FROM ranked GROUP BY name
), percentiles AS (
    SELECT name,
        lower50 + (coalesce(upper50, lower50) - lower50)
            * (0.5 * (total - 1) - CAST(0.5 * (total - 1) AS INTEGER)) AS p50,
        lower90 + (coalesce(upper90, lower90) - lower90)
            * (0.9 * (total - 1) - CAST(0.9 * (total - 1) AS INTEGER)) AS p90,
        lower95 + (coalesce(upper95, lower95) - lower95)
            * (0.95 * (total - 1) - CAST(0.95 * (total - 1) AS INTEGER)) AS p95,
        lower99 + (coalesce(upper99, lower99) - lower99)
            * (0.99 * (total - 1) - CAST(0.99 * (total - 1) AS INTEGER)) AS p99
    FROM neighbours
), figures AS (
    SELECT name, sum(count) AS count, sum(error_count) AS error_count, sum(sum) AS sum, min(min) AS min,
        max(max) AS max, max(last_at_ms) AS last_at_ms, sum(count) FILTER (WHERE cache = 'hit') AS hits,
        sum(count) FILTER (WHERE cache <> '') AS lookups
    FROM timing_figures WHERE source = 'app' GROUP BY name
)
SELECT name, count, error_count, min AS min_seconds, max AS max_seconds, sum / count AS mean_seconds,
    max(min(p50, max), min) AS p50_seconds, max(min(p90, max), min) AS p90_seconds,
    max(min(p95, max), min) AS p95_seconds, max(min(p99, max), min) AS p99_seconds,
    round(1.0 * coalesce(hits, 0) / lookups, 4) AS cache_hit_ratio,
    strftime('%Y-%m-%dT%H:%M:%fZ', last_at_ms / 1000.0, 'unixepoch') AS last_recorded_at
FROM figures JOIN percentiles USING (name);

-- The same by hour.
CREATE VIEW operation_stats_hourly AS
WITH counted AS (
    SELECT name, hour_ms, value, sum(count) AS count FROM timing_values WHERE source = 'app'
    GROUP BY name, hour_ms, value
), ranked AS (
    SELECT name, hour_ms, value, sum(count) OVER (PARTITION BY name, hour_ms ORDER BY value) AS up_to,
        sum(count) OVER (PARTITION BY name, hour_ms) AS total
    FROM counted
), neighbours AS (
    SELECT name, hour_ms, total,
        min(value) FILTER (WHERE up_to > CAST(0.5 * (total - 1) AS INTEGER)) AS lower50,
        min(value) FILTER (WHERE up_to > CAST(0.5 * (total - 1) AS INTEGER) + 1) AS upper50,
        min(value) FILTER (WHERE up_to > CAST(0.9 * (total - 1) AS INTEGER)) AS lower90,
        min(value) FILTER (WHERE up_to > CAST(0.9 * (total - 1) AS INTEGER) + 1) AS upper90,
        min(value) FILTER (WHERE up_to > CAST(0.95 * (total - 1) AS INTEGER)) AS lower95,
        min(value) FILTER (WHERE up_to > CAST(0.95 * (total - 1) AS INTEGER) + 1) AS upper95,
        min(value) FILTER (WHERE up_to > CAST(0.99 * (total - 1) AS INTEGER)) AS lower99,
        min(value) FILTER (WHERE up_to > CAST(0.99 * (total - 1) AS INTEGER) + 1) AS upper99
    FROM ranked GROUP BY name, hour_ms
), percentiles AS (
    SELECT name, hour_ms,
        lower50 + (coalesce(upper50, lower50) - lower50)
            * (0.5 * (total - 1) - CAST(0.5 * (total - 1) AS INTEGER)) AS p50,
        lower90 + (coalesce(upper90, lower90) - lower90)
            * (0.9 * (total - 1) - CAST(0.9 * (total - 1) AS INTEGER)) AS p90,
        lower95 + (coalesce(upper95, lower95) - lower95)
            * (0.95 * (total - 1) - CAST(0.95 * (total - 1) AS INTEGER)) AS p95,
        lower99 + (coalesce(upper99, lower99) - lower99)
            * (0.99 * (total - 1) - CAST(0.99 * (total - 1) AS INTEGER)) AS p99
    FROM neighbours
), figures AS (
    SELECT name, hour_ms, sum(count) AS count, sum(error_count) AS error_count, sum(sum) AS sum, min(min) AS min,
        max(max) AS max, sum(count) FILTER (WHERE cache = 'hit') AS hits,
        sum(count) FILTER (WHERE cache <> '') AS lookups
    FROM timing_figures WHERE source = 'app' GROUP BY name, hour_ms
)
SELECT name, strftime('%Y-%m-%dT%H:%M:%fZ', hour_ms / 1000.0, 'unixepoch') AS hour, count, error_count,
    min AS min_seconds, max AS max_seconds, sum / count AS mean_seconds,
    max(min(p50, max), min) AS p50_seconds, max(min(p90, max), min) AS p90_seconds,
    max(min(p95, max), min) AS p95_seconds, max(min(p99, max), min) AS p99_seconds,
    round(1.0 * coalesce(hits, 0) / lookups, 4) AS cache_hit_ratio
FROM figures JOIN percentiles USING (name, hour_ms);

-- Each process whose memory was sampled, the service's own among them, over the raw samples that are kept.
CREATE VIEW memory_usage AS
SELECT s.name, count(*) AS sample_count,
    strftime('%Y-%m-%dT%H:%M:%fZ', max(p.recorded_at_ms) / 1000.0, 'unixepoch') AS last_recorded_at,
    (SELECT CAST(l.value AS INTEGER) FROM samples l WHERE l.series_id = s.series_id
        ORDER BY l.recorded_at_ms DESC LIMIT 1) AS latest_rss_bytes,
    CAST(min(p.value) AS INTEGER) AS min_rss_bytes, CAST(max(p.value) AS INTEGER) AS max_rss_bytes,
    CAST(avg(p.value) AS INTEGER) AS mean_rss_bytes, max(p.vms_bytes) AS max_vms_bytes,
    round(max(p.percent), 2) AS max_percent
FROM sample_series s JOIN samples p USING (series_id)
WHERE s.kind = 'memory' GROUP BY s.series_id;

-- The largest sessions, and all of them together, without walking their rows.
CREATE INDEX sessions_size ON sessions (state_size_bytes, state_key_count, history_count, history_size_bytes);
