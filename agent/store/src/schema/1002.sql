-- Format 1.2: message ids lie in two tables that take turns, and need no index by age.
CREATE TABLE dedupe_2 (key BLOB PRIMARY KEY, seen INTEGER NOT NULL) WITHOUT ROWID;
DROP INDEX dedupe_by_age;
