-- Versions of sessions never come twice for an id: they are entity tags, and clients keep those longer than sessions
-- live. So the highest version any removed session had is remembered, and a new session counts on from there.

CREATE TABLE session_versions (
    highest_removed  INTEGER NOT NULL  -- one row; kept by the triggers below
) STRICT;

-- Of sessions that were removed before this migration nobody knows the version. None can have counted to 10^12, which
-- takes 30 years at 1,000 changes a second.
INSERT INTO session_versions
SELECT CASE
    WHEN (SELECT count(*) FROM sessions WHERE id IS NOT NULL)
        = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'sessions'), 0) THEN 0
    ELSE 1000000000000
END;

-- A session loses its id either with its row or, where that is too large to go at once, before it.
CREATE TRIGGER sessions_deleted AFTER DELETE ON sessions WHEN old.id IS NOT NULL BEGIN
    UPDATE session_versions SET highest_removed = old.own_version
        + coalesce((SELECT revision FROM session_templates WHERE name = old.template_name), 0)
    WHERE highest_removed < old.own_version
        + coalesce((SELECT revision FROM session_templates WHERE name = old.template_name), 0);
END;
CREATE TRIGGER sessions_freed AFTER UPDATE OF id ON sessions WHEN old.id IS NOT NULL BEGIN
    UPDATE session_versions SET highest_removed = old.own_version
        + coalesce((SELECT revision FROM session_templates WHERE name = old.template_name), 0)
    WHERE highest_removed < old.own_version
        + coalesce((SELECT revision FROM session_templates WHERE name = old.template_name), 0);
END;
