-- Requests with an Idempotency-Key. Instants as their names say, in milliseconds; digests are SHA-256.

-- A row is written in the transaction of the request's own change. Rows are removed in the order of mark_id.
CREATE TABLE idempotency_marks (
    mark_id         INTEGER PRIMARY KEY,
    key_digest      BLOB    NOT NULL UNIQUE,  -- of the caller, the method, the path with its query, and the key
    content_digest  BLOB    NOT NULL,         -- of what was sent
    made_at_ms      INTEGER NOT NULL          -- forgotten a day after this
) STRICT;

-- The answers that are kept. A mark without one: the answer was lost, gave way, or must not be kept.
CREATE TABLE idempotency_answers (
    mark_id     INTEGER PRIMARY KEY REFERENCES idempotency_marks (mark_id) ON DELETE CASCADE,
    status      INTEGER NOT NULL,
    fields      TEXT    NOT NULL,  -- JSON: names and values in turn
    size_bytes  INTEGER NOT NULL AS (length(CAST(fields AS BLOB)) + length(body)) STORED,
    body        BLOB    NOT NULL
) STRICT;

CREATE TABLE idempotency_totals (
    answer_bytes  INTEGER NOT NULL  -- one row: the sum of size_bytes, kept by the triggers below
) STRICT;
INSERT INTO idempotency_totals VALUES (0);

-- An answer is never changed.
CREATE TRIGGER idempotency_answers_inserted AFTER INSERT ON idempotency_answers BEGIN
    UPDATE idempotency_totals SET answer_bytes = answer_bytes + new.size_bytes;
END;
CREATE TRIGGER idempotency_answers_deleted AFTER DELETE ON idempotency_answers BEGIN
    UPDATE idempotency_totals SET answer_bytes = answer_bytes - old.size_bytes;
END;
