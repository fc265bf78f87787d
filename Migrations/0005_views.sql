-- Views for people: what the cache, the sessions and the background work amount to. Only what SQLite 3.38 has and every
-- build: no math functions. Instants are ISO text, what is expired is left out.

-- Live entries are those of the generation but the few that are expired and not swept yet, so that the view does not
-- walk all entries.
CREATE VIEW cache_stats AS
WITH expired AS (
    SELECT generation_id, count(*) AS entry_count, sum(size_bytes) AS size_bytes
    FROM cache_entries INDEXED BY cache_entries_expiry
    WHERE expires_at_ms <= CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
    GROUP BY generation_id
), missed AS (
    SELECT namespace_id, sum(misses) AS misses,
        coalesce(sum(misses) FILTER (WHERE reason = 'absent'), 0) AS misses_absent,
        coalesce(sum(misses) FILTER (WHERE reason = 'expired'), 0) AS misses_expired
    FROM cache_misses GROUP BY namespace_id
)
SELECT n.name AS namespace, n.hits, coalesce(m.misses, 0) AS misses,
    -- NULL where nothing was asked for yet: nothing divided by nothing.
    round(n.hits * 1.0 / nullif(n.hits + coalesce(m.misses, 0), 0), 4) AS hit_ratio,
    coalesce(m.misses_absent, 0) AS misses_absent, coalesce(m.misses_expired, 0) AS misses_expired,
    g.entry_count - coalesce(x.entry_count, 0) AS entry_count,
    g.size_bytes - coalesce(x.size_bytes, 0) AS size_bytes,
    n.expirations, n.evictions, n.eviction,
    -- The namespace's own lifetime; NULL for never, and where the setting cache_ttl_seconds applies.
    n.ttl_ms / 1000.0 AS ttl_seconds, n.has_ttl AS has_own_ttl, n.max_entries, n.max_bytes, n.max_entry_bytes,
    strftime('%Y-%m-%dT%H:%M:%fZ', n.created_at_ms / 1000.0, 'unixepoch') AS created_at
FROM cache_namespaces n
JOIN cache_generations g USING (generation_id)
LEFT JOIN missed m USING (namespace_id)
LEFT JOIN expired x USING (generation_id);

-- Live entries as the API shows them.
CREATE VIEW cache_overview AS
SELECT n.name AS namespace, e.key, e.size_bytes, e.content_type, e.content_encoding, lower(hex(e.sha256)) AS sha256,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.created_at_ms / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.updated_at_ms / 1000.0, 'unixepoch') AS updated_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.expires_at_ms / 1000.0, 'unixepoch') AS expires_at,
    e.ttl_ms / 1000.0 AS ttl_seconds, e.compute_seconds, e.hit_count,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.last_accessed_at_ms / 1000.0, 'unixepoch') AS last_accessed_at,
    (SELECT group_concat(t.tag, ',') FROM cache_entry_tags t WHERE t.entry_id = e.entry_id) AS tags
FROM cache_namespaces n JOIN cache_entries e USING (generation_id)
WHERE e.expires_at_ms IS NULL
    OR e.expires_at_ms > CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER);

CREATE VIEW session_sizes AS
SELECT session_id, template_name, state_key_count, state_size_bytes, history_count, history_size_bytes,
    state_size_bytes + history_size_bytes AS size_bytes, last_active_at, expires_at
FROM session_overview
WHERE expires_at_ms IS NULL
    OR expires_at_ms > CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER);

-- Items without a kind are one group of their session, with NULL as kind.
CREATE VIEW history_counts AS
SELECT s.id AS session_id, h.kind, count(*) AS item_count, sum(h.size_bytes) AS size_bytes,
    strftime('%Y-%m-%dT%H:%M:%fZ', min(h.created_at_ms) / 1000.0, 'unixepoch') AS oldest_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', max(h.created_at_ms) / 1000.0, 'unixepoch') AS newest_at
FROM sessions s JOIN history_items h USING (session_ref)
WHERE s.id IS NOT NULL AND (
    s.expires_at_ms IS NULL
    OR s.expires_at_ms > CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER))
GROUP BY s.session_ref, h.kind;

-- The latest first.
CREATE VIEW maintenance_log AS
SELECT run_id, task, "trigger",
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at_ms / 1000.0, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', started_at_ms / 1000.0 + duration_seconds, 'unixepoch') AS finished_at,
    duration_seconds, rows_removed, bytes_freed, error
FROM maintenance_runs
ORDER BY run_id DESC;
