-- Format 1.5: how long records are kept.

-- Rules: the name of a stream, or its begin and `*`. The longest one that fits counts; where none does, records are kept.
CREATE TABLE retention (
    streams TEXT PRIMARY KEY,
    -- Milliseconds from a record's arrival on, because devices' clocks say what they like.
    keep INTEGER NOT NULL,
    made INTEGER NOT NULL
) WITHOUT ROWID;

-- What had arrived of a stream, and when that was seen. Some of each stream that has a rule, instead of a time with every record.
CREATE TABLE mark (
    stream INTEGER NOT NULL REFERENCES stream,
    arrived INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    PRIMARY KEY (stream, arrived)
) WITHOUT ROWID;
