-- A miss tells each way in which an entry may have left.

-- A miss asks which entries the latest clears of its namespace took.
CREATE INDEX cache_generations_cleared_namespace ON cache_generations (cleared_namespace_id)
WHERE cleared_at_ms IS NOT NULL;

DROP VIEW cache_stats;

-- Live entries are those of the generation but the few that are expired and not swept yet, so that the view does not
-- walk all entries.
CREATE VIEW cache_stats AS
WITH expired AS (
    SELECT g.generation_id, count(*) AS entry_count, sum(e.size_bytes) AS size_bytes
    FROM cache_namespaces g CROSS JOIN cache_entries e INDEXED BY cache_entries_due USING (generation_id)
    WHERE e.expires_at_ms <= CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)
    GROUP BY g.generation_id
), missed AS (
    SELECT namespace_id, sum(misses) AS misses,
        coalesce(sum(misses) FILTER (WHERE reason = 'absent'), 0) AS misses_absent,
        coalesce(sum(misses) FILTER (WHERE reason = 'expired'), 0) AS misses_expired,
        coalesce(sum(misses) FILTER (WHERE reason = 'evicted'), 0) AS misses_evicted,
        coalesce(sum(misses) FILTER (WHERE reason = 'deleted'), 0) AS misses_deleted,
        coalesce(sum(misses) FILTER (WHERE reason = 'cleared'), 0) AS misses_cleared
    FROM cache_misses GROUP BY namespace_id
)
SELECT n.name AS namespace, n.hits, coalesce(m.misses, 0) AS misses,
    -- NULL where nothing was asked for yet: nothing divided by nothing.
    round(n.hits * 1.0 / nullif(n.hits + coalesce(m.misses, 0), 0), 4) AS hit_ratio,
    coalesce(m.misses_absent, 0) AS misses_absent, coalesce(m.misses_expired, 0) AS misses_expired,
    coalesce(m.misses_evicted, 0) AS misses_evicted, coalesce(m.misses_deleted, 0) AS misses_deleted,
    coalesce(m.misses_cleared, 0) AS misses_cleared,
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
