-- Format 1.3: rollouts, and tokens for devices that take the place of others.

CREATE TABLE rollout (
    number INTEGER PRIMARY KEY,
    function TEXT NOT NULL,
    -- What becomes different, and how it is gone about: JSON, written once.
    change TEXT NOT NULL,
    plan TEXT NOT NULL,
    -- Whose members its devices are; NULL where they were named one by one.
    "group" TEXT,
    operator TEXT NOT NULL,
    why TEXT,
    made INTEGER NOT NULL,
    -- running, paused, aborting, aborted, completed
    state TEXT NOT NULL,
    -- From 0.
    stage INTEGER NOT NULL,
    -- Since when the stage soaks.
    settled INTEGER,
    -- Why it is where it is.
    reason TEXT,
    updated INTEGER NOT NULL
);
CREATE INDEX rollout_state ON rollout (state);

CREATE TABLE rollout_device (
    rollout INTEGER NOT NULL REFERENCES rollout,
    device INTEGER NOT NULL REFERENCES device,
    stage INTEGER NOT NULL,
    state TEXT NOT NULL,
    -- The job that it is about now.
    generation INTEGER,
    -- The function as it was confirmed before, and as it shall be: JSON of a desired state's, NULL for none.
    before TEXT,
    wanted TEXT,
    -- When it was told.
    told INTEGER,
    updated INTEGER NOT NULL,
    -- What the device said last.
    phase TEXT,
    reason TEXT,
    message TEXT,
    PRIMARY KEY (rollout, device)
) WITHOUT ROWID;
CREATE INDEX rollout_device_state ON rollout_device (rollout, stage, state);
CREATE INDEX rollout_device_device ON rollout_device (device);

-- What happened, for people.
CREATE TABLE rollout_event (
    id INTEGER PRIMARY KEY,
    rollout INTEGER NOT NULL REFERENCES rollout,
    time INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX rollout_event_rollout ON rollout_event (rollout, id);

-- Whose name, groups and functions the device that comes with it gets.
ALTER TABLE token ADD COLUMN replaces INTEGER REFERENCES device;
