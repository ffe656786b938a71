-- Format 1.0. Never edited after a release: what changes is a new step.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Events that a function has not finished with. `due` is in milliseconds since 1970.
CREATE TABLE inbox (
    id INTEGER PRIMARY KEY,
    function TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    due INTEGER NOT NULL,
    fault TEXT,
    event_id TEXT NOT NULL,
    source TEXT NOT NULL,
    subject TEXT NOT NULL,
    content_type TEXT,
    data BLOB NOT NULL,
    time INTEGER NOT NULL,
    time_synced INTEGER NOT NULL,
    hops INTEGER NOT NULL,
    attributes TEXT NOT NULL
);

-- AUTOINCREMENT: an operator who drops letter 7 must not hit another one.
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    function TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    buried INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    kind TEXT NOT NULL,
    fault TEXT NOT NULL,
    event_id TEXT NOT NULL,
    source TEXT NOT NULL,
    subject TEXT NOT NULL,
    content_type TEXT,
    data BLOB NOT NULL,
    time INTEGER NOT NULL,
    time_synced INTEGER NOT NULL,
    hops INTEGER NOT NULL,
    attributes TEXT NOT NULL
);

CREATE TABLE state (namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (namespace, key)) WITHOUT ROWID;

-- Message ids that were settled, with the time they were first seen, in milliseconds.
CREATE TABLE dedupe (key BLOB PRIMARY KEY, seen INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX dedupe_by_age ON dedupe (seen);

-- What waits to go to the cloud. Lane 0 alarms, 1 results, 2 logs.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    stream TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    created INTEGER NOT NULL,
    content_type TEXT,
    data BLOB NOT NULL
);
CREATE INDEX outbox_by_stream ON outbox (stream, sequence);
-- Highest sequence ever given out, so that a stream whose rows are all gone does not start again.
CREATE TABLE stream (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
-- Rows of a stream that were evicted before they went up.
CREATE TABLE gap (
    id INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    stream TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL
);

CREATE TABLE account (
    function TEXT PRIMARY KEY,
    invocations INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    wall_us INTEGER NOT NULL,
    cpu_us INTEGER NOT NULL,
    peak_memory INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL
) WITHOUT ROWID;

-- The broker.
CREATE TABLE session (client TEXT PRIMARY KEY, expiry INTEGER, away INTEGER) WITHOUT ROWID;
CREATE TABLE subscription (
    client TEXT NOT NULL, filter TEXT NOT NULL, qos INTEGER NOT NULL, no_local INTEGER NOT NULL,
    retain_as_published INTEGER NOT NULL, identifier INTEGER, PRIMARY KEY (client, filter)
) WITHOUT ROWID;
CREATE TABLE queue (
    client TEXT NOT NULL, sequence INTEGER NOT NULL, qos INTEGER NOT NULL, retain INTEGER NOT NULL, released INTEGER NOT NULL,
    identifiers TEXT NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL, head TEXT NOT NULL, PRIMARY KEY (client, sequence)
) WITHOUT ROWID;
CREATE TABLE received (
    client TEXT NOT NULL, packet_id INTEGER NOT NULL, digest INTEGER NOT NULL, qos INTEGER NOT NULL, PRIMARY KEY (client, packet_id)
) WITHOUT ROWID;
CREATE TABLE retained (topic TEXT PRIMARY KEY, payload BLOB NOT NULL, head TEXT NOT NULL) WITHOUT ROWID;

-- What the node runs: one JSON document per key, written by the deployer.
CREATE TABLE registry (key TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
