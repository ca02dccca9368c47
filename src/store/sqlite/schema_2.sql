-- `failing` is the time since which a request fails; NULL if it does not fail. The index contains
-- only failing requests, so an alarm can count them at low cost.
ALTER TABLE jit_requests ADD COLUMN failing INTEGER;
CREATE INDEX jit_requests_failing ON jit_requests (failing) WHERE failing IS NOT NULL;

-- Named leases: only the holder may change an object outside the store that has no revision.
CREATE TABLE jit_leases (
    name TEXT NOT NULL PRIMARY KEY,
    token TEXT NOT NULL,
    until INTEGER NOT NULL
) WITHOUT ROWID;
