-- Format 1.1: schedules remember when they last fired, and publishes wait for an external broker.
CREATE TABLE schedule (function TEXT NOT NULL, name TEXT NOT NULL, fired INTEGER NOT NULL, PRIMARY KEY (function, name)) WITHOUT ROWID;
CREATE TABLE local (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL, head TEXT NOT NULL);
-- The next row to evict of a lane, without reading the others.
CREATE INDEX outbox_by_lane ON outbox (lane);
