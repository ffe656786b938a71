-- Format 1.2: roles of operators, and the sessions of their browsers.

-- viewer, admin
ALTER TABLE operator ADD COLUMN role TEXT NOT NULL DEFAULT 'admin';

-- Who has signed in with a browser. Only the hash of what the cookie holds is kept. A session ends with its operator.
CREATE TABLE session (
    hash BLOB PRIMARY KEY,
    operator BLOB NOT NULL REFERENCES operator ON DELETE CASCADE,
    made INTEGER NOT NULL,
    ends INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX session_operator ON session (operator);
