-- The cache: namespaces, entries, values. Instants and durations are integer milliseconds (names end in _ms).

-- A namespace's contents stand under a generation. Clearing the namespace starts a new one, which costs the same
-- however many entries there are; the old generation's rows go later.
CREATE TABLE cache_generations (
    generation_id         INTEGER PRIMARY KEY AUTOINCREMENT,
    entry_count           INTEGER NOT NULL DEFAULT 0,   -- kept by the triggers below
    size_bytes            INTEGER NOT NULL DEFAULT 0,
    cleared_at_ms         INTEGER,                      -- NULL while it is its namespace's current one
    cleared_namespace_id  INTEGER                       -- whose it was; that namespace may be gone
) STRICT;
CREATE INDEX cache_generations_cleared ON cache_generations (cleared_at_ms) WHERE cleared_at_ms IS NOT NULL;

CREATE TABLE cache_namespaces (
    namespace_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    name             TEXT    NOT NULL UNIQUE,
    generation_id    INTEGER NOT NULL UNIQUE,
    has_ttl          INTEGER NOT NULL DEFAULT 0,  -- 0: the setting cache_ttl_seconds applies
    ttl_ms           INTEGER,                     -- with has_ttl = 1: NULL means never
    max_entries      INTEGER,
    max_bytes        INTEGER,
    max_entry_bytes  INTEGER,
    eviction         TEXT    NOT NULL DEFAULT 'lru' CHECK (eviction IN ('lru', 'lfu', 'fifo')),
    is_ranked        INTEGER NOT NULL DEFAULT 0,  -- 0: no caps; 1: new entries are ranked; 2: all are
    created_at_ms    INTEGER NOT NULL,
    hits             INTEGER NOT NULL DEFAULT 0,
    expirations      INTEGER NOT NULL DEFAULT 0,
    evictions        INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX cache_namespaces_capped ON cache_namespaces (name) WHERE is_ranked <> 0;

CREATE TABLE cache_misses (
    namespace_id  INTEGER NOT NULL REFERENCES cache_namespaces (namespace_id) ON DELETE CASCADE,
    reason        TEXT    NOT NULL,
    misses        INTEGER NOT NULL,
    PRIMARY KEY (namespace_id, reason)
) STRICT, WITHOUT ROWID;

-- One row for each entry, without its value: small, so that lists and counters never drag values along.
CREATE TABLE cache_entries (
    entry_id             INTEGER PRIMARY KEY,     -- counted up by the program, never used twice while it runs
    generation_id        INTEGER NOT NULL,
    key                  TEXT    NOT NULL,
    size_bytes           INTEGER NOT NULL,
    blob_id              INTEGER,                 -- NULL: the value is in cache_values
    sha256               BLOB    NOT NULL,        -- of the value; in hexadecimal it is the ETag
    content_type         TEXT,
    content_encoding     TEXT,
    created_at_ms        INTEGER NOT NULL,
    updated_at_ms        INTEGER NOT NULL,        -- when the value was last replaced
    expires_at_ms        INTEGER,                 -- NULL: never
    ttl_ms               INTEGER,                 -- NULL: never
    compute_seconds      REAL,                    -- as the caller reported it
    hit_count            INTEGER NOT NULL DEFAULT 0,
    last_accessed_at_ms  INTEGER,
    eviction_rank        INTEGER                  -- lowest goes first; NULL in a namespace without caps
) STRICT;
CREATE UNIQUE INDEX cache_entries_key ON cache_entries (generation_id, key);
CREATE INDEX cache_entries_expiry ON cache_entries (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
CREATE INDEX cache_entries_eviction ON cache_entries (generation_id, eviction_rank) WHERE eviction_rank IS NOT NULL;

CREATE TABLE cache_entry_tags (
    tag            TEXT    NOT NULL,
    generation_id  INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    entry_id       INTEGER NOT NULL REFERENCES cache_entries (entry_id) ON DELETE CASCADE,
    PRIMARY KEY (tag, generation_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_entry_tags_entry ON cache_entry_tags (entry_id);

-- Small values, beside their rows.
CREATE TABLE cache_values (
    entry_id  INTEGER PRIMARY KEY REFERENCES cache_entries (entry_id) ON DELETE CASCADE,
    value     BLOB NOT NULL
) STRICT;

-- Large values, as chunks that never change. A blob is attached by the one commit that points an entry at it; without
-- an entry, because its upload is under way or was broken off or its entry went, it is an orphan.
CREATE TABLE cache_blobs (
    blob_id        INTEGER PRIMARY KEY,
    is_attached    INTEGER NOT NULL DEFAULT 0,
    created_at_ms  INTEGER NOT NULL
) STRICT;
CREATE INDEX cache_blobs_orphaned ON cache_blobs (blob_id) WHERE is_attached = 0;

CREATE TABLE cache_chunks (
    chunk_id  INTEGER PRIMARY KEY,
    blob_id   INTEGER NOT NULL,
    number    INTEGER NOT NULL,                   -- counts from 0; all but the last are of one size
    data      BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX cache_chunks_blob ON cache_chunks (blob_id, number);

-- Why a key has no entry any more. Bounded in number and age: a memory for explanations, not a log.
CREATE TABLE cache_removals (
    namespace_id   INTEGER NOT NULL,
    key            TEXT    NOT NULL,
    reason         TEXT    NOT NULL CHECK (reason IN ('expired', 'evicted', 'cleared', 'deleted')),
    removed_at_ms  INTEGER NOT NULL,              -- for an expired entry: when it expired
    PRIMARY KEY (namespace_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_removals_age ON cache_removals (removed_at_ms);

-- Figures and blobs follow the entries by themselves, whichever statement changes them.
CREATE TRIGGER cache_entries_inserted AFTER INSERT ON cache_entries BEGIN
    UPDATE cache_generations SET entry_count = entry_count + 1, size_bytes = size_bytes + new.size_bytes
    WHERE generation_id = new.generation_id;
END;
CREATE TRIGGER cache_entries_resized AFTER UPDATE OF size_bytes ON cache_entries
WHEN new.size_bytes <> old.size_bytes BEGIN
    UPDATE cache_generations SET size_bytes = size_bytes + new.size_bytes - old.size_bytes
    WHERE generation_id = new.generation_id;
END;
CREATE TRIGGER cache_entries_deleted AFTER DELETE ON cache_entries BEGIN
    UPDATE cache_generations SET entry_count = entry_count - 1, size_bytes = size_bytes - old.size_bytes
    WHERE generation_id = old.generation_id;
END;
CREATE TRIGGER cache_blobs_attached AFTER INSERT ON cache_entries WHEN new.blob_id IS NOT NULL BEGIN
    UPDATE cache_blobs SET is_attached = 1 WHERE blob_id = new.blob_id;
END;
CREATE TRIGGER cache_blobs_replaced AFTER UPDATE OF blob_id ON cache_entries WHEN new.blob_id IS NOT old.blob_id BEGIN
    UPDATE cache_blobs SET is_attached = 0 WHERE blob_id = old.blob_id;
    UPDATE cache_blobs SET is_attached = 1 WHERE blob_id = new.blob_id;
END;
CREATE TRIGGER cache_blobs_detached AFTER DELETE ON cache_entries WHEN old.blob_id IS NOT NULL BEGIN
    UPDATE cache_blobs SET is_attached = 0 WHERE blob_id = old.blob_id;
END;

-- Entries under their namespace's name, cleared ones left out, expired ones still there until they are swept.
CREATE VIEW cache_contents AS
SELECT n.name AS namespace, e.key, e.size_bytes, e.content_type, e.content_encoding, e.sha256, e.created_at_ms,
    e.updated_at_ms, e.expires_at_ms, e.ttl_ms, e.compute_seconds, e.hit_count, e.last_accessed_at_ms,
    (SELECT group_concat(t.tag, ',') FROM cache_entry_tags t WHERE t.entry_id = e.entry_id) AS tags,
    e.entry_id, e.generation_id, e.blob_id
FROM cache_namespaces n JOIN cache_entries e ON e.generation_id = n.generation_id;
