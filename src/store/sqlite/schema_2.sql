-- What an alarm asks for costs nothing to count: removals that AWS refuses.
ALTER TABLE jit_requests ADD COLUMN failing INTEGER;
CREATE INDEX jit_requests_failing ON jit_requests (failing) WHERE failing IS NOT NULL;

-- Who alone may change a thing outside that has no revision of its own.
CREATE TABLE jit_leases (
    name TEXT NOT NULL PRIMARY KEY,
    token TEXT NOT NULL,
    until INTEGER NOT NULL
) WITHOUT ROWID;
