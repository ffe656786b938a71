-- Format 1.6: control planes that come out of a backup.

-- A generation that the device may have seen though nothing here says so: what comes next for it is above that.
ALTER TABLE device ADD COLUMN floor INTEGER NOT NULL DEFAULT 0;
