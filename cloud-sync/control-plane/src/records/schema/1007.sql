-- Format 1.7: databases of devices that come out of a backup.

-- Streams of which nothing more is taken: their device has given the same numbers to other records.
CREATE TABLE closed (stream INTEGER PRIMARY KEY REFERENCES stream);
