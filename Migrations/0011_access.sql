-- Who may enter. Of a token's secret only a hash is here. Instants as their names say.

CREATE TABLE access_tokens (
    token_id         TEXT    PRIMARY KEY,
    name             TEXT    NOT NULL,
    scopes           TEXT    NOT NULL,   -- read, write, admin, separated by blanks
    namespaces       TEXT,               -- names and beginnings with *, separated by blanks; NULL: everything
    created_at_ms    INTEGER NOT NULL,
    expires_at_ms    INTEGER,            -- NULL: never
    last_used_at_ms  INTEGER,
    digest           BLOB    NOT NULL    -- SHA-256 of the token's text
) STRICT;
