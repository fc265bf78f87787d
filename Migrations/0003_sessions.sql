-- Sessions: templates, state, history, debounce marks. Instants and durations are integer milliseconds (names end in
-- _ms), JSON values are compact JSON text, sizes are the bytes of that text.

-- A session's version is its own count of changes plus its template's revision. Neither may go back, so a template that
-- is deleted while sessions name it leaves an empty row with its revision behind.
CREATE TABLE session_templates (
    template_id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name                 TEXT    NOT NULL UNIQUE,
    has_ttl              INTEGER NOT NULL DEFAULT 0,  -- 0: the setting session_ttl_seconds applies
    ttl_ms               INTEGER,                     -- with has_ttl = 1: NULL means never
    max_history_items    INTEGER,                     -- NULL: the setting of that name applies
    default_count        INTEGER NOT NULL DEFAULT 0,  -- kept by the triggers below
    defaults_size_bytes  INTEGER NOT NULL DEFAULT 0,
    revision             INTEGER NOT NULL DEFAULT 0,  -- counts changes; a part of the version of each of its sessions
    created_at_ms        INTEGER NOT NULL,
    updated_at_ms        INTEGER NOT NULL,
    deleted_at_ms        INTEGER                      -- set: gone, but sessions still name it
) STRICT;
CREATE INDEX session_templates_deleted ON session_templates (deleted_at_ms) WHERE deleted_at_ms IS NOT NULL;

CREATE TABLE session_template_defaults (
    default_id   INTEGER PRIMARY KEY,
    template_id  INTEGER NOT NULL REFERENCES session_templates (template_id) ON DELETE CASCADE,
    key          TEXT    NOT NULL,
    size_bytes   INTEGER NOT NULL AS (length(CAST(value AS BLOB))) STORED,
    value        TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX session_template_defaults_key ON session_template_defaults (template_id, key);

-- One row for each session, live, expired and not swept yet, or deleted and too large to go at once (id is NULL).
CREATE TABLE sessions (
    session_ref          INTEGER PRIMARY KEY AUTOINCREMENT,
    id                   TEXT    UNIQUE,
    template_name        TEXT,                        -- a template of that name may be gone, and come back
    ttl_ms               INTEGER,                     -- without activity it expires after this; NULL: never
    max_history_items    INTEGER,                     -- NULL: the template's, else the setting
    own_version          INTEGER NOT NULL,            -- its version is this plus its template's revision
    created_at_ms        INTEGER NOT NULL,
    last_active_at_ms    INTEGER NOT NULL,            -- may lag behind the latest read by a second or two
    expires_at_ms        INTEGER AS (last_active_at_ms + ttl_ms) VIRTUAL,
    state_key_count      INTEGER NOT NULL DEFAULT 0,  -- of stored keys; this and the next four are kept by triggers
    state_size_bytes     INTEGER NOT NULL DEFAULT 0,
    temporary_key_count  INTEGER NOT NULL DEFAULT 0,
    history_count        INTEGER NOT NULL DEFAULT 0,
    history_size_bytes   INTEGER NOT NULL DEFAULT 0,
    metadata             TEXT    NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX sessions_activity ON sessions (last_active_at_ms);
CREATE INDEX sessions_expiry ON sessions (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
CREATE INDEX sessions_history ON sessions (template_name, history_count, max_history_items);
CREATE INDEX sessions_temporaries ON sessions (last_active_at_ms) WHERE temporary_key_count > 0;

-- What was set in a session. Defaults of its template have no row here until they are changed.
CREATE TABLE session_state (
    state_id       INTEGER PRIMARY KEY,
    session_ref    INTEGER NOT NULL REFERENCES sessions (session_ref) ON DELETE CASCADE,
    key            TEXT    NOT NULL,
    size_bytes     INTEGER NOT NULL AS (length(CAST(value AS BLOB))) STORED,
    is_temporary   INTEGER NOT NULL AS (
        (key GLOB 'temp_*' OR key GLOB 'cache_*') AND key <> 'temp_current_generation') STORED,
    updated_at_ms  INTEGER NOT NULL,
    value          TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX session_state_key ON session_state (session_ref, key);

CREATE TABLE history_items (
    item_ref       INTEGER PRIMARY KEY AUTOINCREMENT,  -- in order of commit, never used twice
    session_ref    INTEGER NOT NULL REFERENCES sessions (session_ref) ON DELETE CASCADE,
    id             TEXT    NOT NULL,
    kind           TEXT,
    revision       INTEGER NOT NULL DEFAULT 1,         -- counts changes of the data
    created_at_ms  INTEGER NOT NULL,
    updated_at_ms  INTEGER NOT NULL,
    size_bytes     INTEGER NOT NULL AS (length(CAST(data AS BLOB))) STORED,
    data           TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX history_items_id ON history_items (session_ref, id);
CREATE INDEX history_items_session ON history_items (session_ref);
CREATE INDEX history_items_created ON history_items (created_at_ms);
CREATE INDEX history_items_kind ON history_items (kind, created_at_ms) WHERE kind IS NOT NULL;

CREATE TABLE debounce_marks (
    session_ref         INTEGER NOT NULL REFERENCES sessions (session_ref) ON DELETE CASCADE,
    name                TEXT    NOT NULL,
    last_allowed_at_ms  INTEGER NOT NULL,
    expires_at_ms       INTEGER NOT NULL,              -- when it is forgotten
    PRIMARY KEY (session_ref, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX debounce_marks_expiry ON debounce_marks (expires_at_ms);

-- Figures follow the rows by themselves, whichever statement changes them. Rows never move from one owner to another.
CREATE TRIGGER session_template_defaults_inserted AFTER INSERT ON session_template_defaults BEGIN
    UPDATE session_templates SET default_count = default_count + 1,
        defaults_size_bytes = defaults_size_bytes + new.size_bytes
    WHERE template_id = new.template_id;
END;
CREATE TRIGGER session_template_defaults_changed AFTER UPDATE ON session_template_defaults
WHEN new.size_bytes <> old.size_bytes BEGIN
    UPDATE session_templates SET defaults_size_bytes = defaults_size_bytes + new.size_bytes - old.size_bytes
    WHERE template_id = new.template_id;
END;
CREATE TRIGGER session_template_defaults_deleted AFTER DELETE ON session_template_defaults BEGIN
    UPDATE session_templates SET default_count = default_count - 1,
        defaults_size_bytes = defaults_size_bytes - old.size_bytes
    WHERE template_id = old.template_id;
END;

CREATE TRIGGER session_state_inserted AFTER INSERT ON session_state BEGIN
    UPDATE sessions SET state_key_count = state_key_count + 1, state_size_bytes = state_size_bytes + new.size_bytes,
        temporary_key_count = temporary_key_count + new.is_temporary
    WHERE session_ref = new.session_ref;
END;
CREATE TRIGGER session_state_changed AFTER UPDATE ON session_state
WHEN new.size_bytes <> old.size_bytes OR new.is_temporary <> old.is_temporary BEGIN
    UPDATE sessions SET state_size_bytes = state_size_bytes + new.size_bytes - old.size_bytes,
        temporary_key_count = temporary_key_count + new.is_temporary - old.is_temporary
    WHERE session_ref = new.session_ref;
END;
CREATE TRIGGER session_state_deleted AFTER DELETE ON session_state BEGIN
    UPDATE sessions SET state_key_count = state_key_count - 1, state_size_bytes = state_size_bytes - old.size_bytes,
        temporary_key_count = temporary_key_count - old.is_temporary
    WHERE session_ref = old.session_ref;
END;

CREATE TRIGGER history_items_inserted AFTER INSERT ON history_items BEGIN
    UPDATE sessions SET history_count = history_count + 1, history_size_bytes = history_size_bytes + new.size_bytes
    WHERE session_ref = new.session_ref;
END;
CREATE TRIGGER history_items_changed AFTER UPDATE ON history_items WHEN new.size_bytes <> old.size_bytes BEGIN
    UPDATE sessions SET history_size_bytes = history_size_bytes + new.size_bytes - old.size_bytes
    WHERE session_ref = new.session_ref;
END;
CREATE TRIGGER history_items_deleted AFTER DELETE ON history_items BEGIN
    UPDATE sessions SET history_count = history_count - 1, history_size_bytes = history_size_bytes - old.size_bytes
    WHERE session_ref = old.session_ref;
END;

-- Sessions as the API shows them, defaults of their templates counted in; expired ones still there until they are
-- swept.
CREATE VIEW session_overview AS
SELECT s.id AS session_id, s.template_name,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.created_at_ms / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.last_active_at_ms / 1000.0, 'unixepoch') AS last_active_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.expires_at_ms / 1000.0, 'unixepoch') AS expires_at,
    s.ttl_ms / 1000.0 AS ttl_seconds, s.own_version + coalesce(t.revision, 0) AS version,
    s.state_key_count + coalesce(t.default_count, 0) - (
        SELECT count(*) FROM session_state v JOIN session_template_defaults d ON d.key = v.key
        WHERE v.session_ref = s.session_ref AND d.template_id = t.template_id) AS state_key_count,
    s.state_size_bytes + coalesce(t.defaults_size_bytes, 0) - (
        SELECT coalesce(sum(d.size_bytes), 0) FROM session_state v JOIN session_template_defaults d ON d.key = v.key
        WHERE v.session_ref = s.session_ref AND d.template_id = t.template_id) AS state_size_bytes,
    s.history_count, s.history_size_bytes, coalesce(s.max_history_items, t.max_history_items) AS max_history_items,
    s.metadata, s.created_at_ms, s.last_active_at_ms, s.expires_at_ms, s.session_ref
FROM sessions s LEFT JOIN session_templates t ON t.name = s.template_name
WHERE s.id IS NOT NULL;

-- History items under their session's id.
CREATE VIEW history_overview AS
SELECT s.id AS session_id, h.id AS item_id, h.kind,
    strftime('%Y-%m-%dT%H:%M:%fZ', h.created_at_ms / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', h.updated_at_ms / 1000.0, 'unixepoch') AS updated_at,
    h.size_bytes, h.data, h.created_at_ms, h.updated_at_ms, h.item_ref, h.session_ref
FROM history_items h JOIN sessions s USING (session_ref)
WHERE s.id IS NOT NULL;
