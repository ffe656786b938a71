-- Format 1.4: secrets, each sealed to one device's key on the way here, and names of versions.

CREATE TABLE secret (
    device INTEGER NOT NULL REFERENCES device,
    name TEXT NOT NULL,
    -- The device's key at that time: what was sealed to another opens nowhere.
    key TEXT NOT NULL,
    -- As the desired state has it.
    sealed TEXT NOT NULL,
    made INTEGER NOT NULL,
    PRIMARY KEY (device, name)
) WITHOUT ROWID;

-- Groups whose members all shall have it, also those that come later.
CREATE TABLE secret_group (
    name TEXT NOT NULL,
    "group" TEXT NOT NULL,
    PRIMARY KEY (name, "group")
) WITHOUT ROWID;

-- What people call versions of functions.
CREATE TABLE alias (
    function TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    made INTEGER NOT NULL,
    PRIMARY KEY (function, name)
) WITHOUT ROWID;
