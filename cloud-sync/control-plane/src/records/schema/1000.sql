-- Format 1.0 of the control plane's records. Times are milliseconds since 1970.

-- Who may use the API. Only the hash of a token is kept.
CREATE TABLE operator (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    made INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE device (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- active, replaced, revoked
    status TEXT NOT NULL,
    enrolled INTEGER NOT NULL,
    -- When it was last heard of, give or take some seconds.
    seen INTEGER NOT NULL,
    -- What it runs on, as it said when it enrolled or renewed.
    version TEXT NOT NULL,
    arch TEXT NOT NULL,
    engine TEXT NOT NULL,
    profile TEXT NOT NULL,
    -- Its shadow: what it said last, as JSON, and how often it has spoken.
    reported TEXT,
    reported_at INTEGER,
    reported_version INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE membership (
    device INTEGER NOT NULL REFERENCES device,
    "group" TEXT NOT NULL,
    PRIMARY KEY (device, "group")
) WITHOUT ROWID;
CREATE INDEX membership_group ON membership ("group", device);

CREATE TABLE certificate (
    serial BLOB PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES device,
    -- SHA-256 of the certificate, and of its public key.
    fingerprint BLOB NOT NULL,
    key BLOB NOT NULL,
    issued INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    -- When it stopped being good for anything.
    ended INTEGER
) WITHOUT ROWID;
CREATE INDEX certificate_device ON certificate (device);
CREATE UNIQUE INDEX certificate_fingerprint ON certificate (fingerprint);

CREATE TABLE token (
    hash BLOB PRIMARY KEY,
    "group" TEXT,
    made INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    used INTEGER,
    device INTEGER REFERENCES device
) WITHOUT ROWID;

-- Sequence numbers mean something within a stream: a device's stream, in one life of its database.
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    device INTEGER NOT NULL REFERENCES device,
    name TEXT NOT NULL,
    -- The 64 bits, as SQLite has them.
    epoch INTEGER NOT NULL,
    -- 0 alarms, 1 results, 2 logs
    lane INTEGER NOT NULL,
    -- Every number up to this one is stored or known to be gone.
    upto INTEGER NOT NULL,
    UNIQUE (device, name, epoch)
);
CREATE INDEX stream_name ON stream (name, device);

-- What is stored or known to be gone above a stream's watermark: ranges that do not touch.
CREATE TABLE span (
    stream INTEGER NOT NULL REFERENCES stream,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (stream, first)
) WITHOUT ROWID;

CREATE TABLE record (
    stream INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    time INTEGER NOT NULL,
    content_type TEXT,
    data BLOB NOT NULL,
    PRIMARY KEY (stream, sequence)
) WITHOUT ROWID;
CREATE INDEX record_time ON record (stream, time);

-- Records that their device has dropped.
CREATE TABLE gap (
    stream INTEGER NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    reason TEXT NOT NULL,
    time INTEGER NOT NULL,
    PRIMARY KEY (stream, first)
) WITHOUT ROWID;

-- What a device was told to do. The one with the highest generation is its next job, unless it is done.
CREATE TABLE job (
    device INTEGER NOT NULL REFERENCES device,
    generation INTEGER NOT NULL,
    id TEXT NOT NULL,
    status TEXT NOT NULL,
    details TEXT,
    version INTEGER NOT NULL,
    document TEXT NOT NULL,
    queued INTEGER NOT NULL,
    started INTEGER,
    updated INTEGER NOT NULL,
    PRIMARY KEY (device, generation)
) WITHOUT ROWID;
CREATE UNIQUE INDEX job_id ON job (device, id);

-- Who changed what by way of the API.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    operator TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL
);
