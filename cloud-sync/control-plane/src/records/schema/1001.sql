-- Format 1.1: the code repository.

-- All of it as a client would keep it: what the next publication goes on from. One row at most.
CREATE TABLE repository (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    root BLOB NOT NULL,
    timestamp BLOB,
    snapshot BLOB,
    targets BLOB,
    -- When the timestamp was signed.
    signed INTEGER NOT NULL
);

-- Metadata as it is served.
CREATE TABLE metadata (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    data BLOB NOT NULL
);

-- Every target that was ever listed, by the path that it is served under. What was released does not change.
CREATE TABLE target (
    path TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    length INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX target_name ON target (name);
