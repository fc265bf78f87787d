-- The order in which entries were written, which no clock tells: a clear that goes in steps takes what was written
-- before it began, whatever the clock said then.

-- The upper part of a write's number is how often the database was opened, the lower part counts the writes since. So
-- no number comes twice, and counting costs a write nothing.
CREATE TABLE cache_openings (
    openings  INTEGER NOT NULL  -- one row
) STRICT;
INSERT INTO cache_openings VALUES (0);

ALTER TABLE cache_entries ADD COLUMN write_number INTEGER NOT NULL DEFAULT 0;  -- of its value; 0: before there were any
