-- An operator may change `status` and `revoked_at` with the runbook's statement. The columns
-- `written_...` hold what jit wrote, so that jit can tell the two apart. The generated columns
-- depend on both.
CREATE TABLE jit_requests (
    request_id TEXT NOT NULL PRIMARY KEY,
    status TEXT NOT NULL,
    account_id TEXT NOT NULL,
    channel_id TEXT NOT NULL,
    requester_email TEXT NOT NULL,
    created_at TEXT NOT NULL,
    revoked_at TEXT,
    revision INTEGER NOT NULL,
    doc TEXT NOT NULL,
    written_status TEXT NOT NULL,
    written_lane INTEGER NOT NULL,
    written_claimable_at INTEGER,
    written_end_at INTEGER,
    lease_until INTEGER,
    -- The rule of `Request::apply_outside_status`: a status from an operator that is not final
    -- counts as ERROR.
    told_status TEXT GENERATED ALWAYS AS (
        CASE WHEN status IN (written_status, 'REVOKED', 'EXPIRED', 'CANCELLED')
             THEN status ELSE 'ERROR' END) VIRTUAL,
    -- A request whose status an operator changed is due at once, in the lane of the removals.
    lane INTEGER GENERATED ALWAYS AS (
        CASE WHEN told_status = written_status THEN written_lane ELSE 1 END) VIRTUAL,
    claimable_at INTEGER GENERATED ALWAYS AS (
        CASE WHEN told_status = written_status THEN written_claimable_at ELSE 0 END) VIRTUAL,
    -- The end of a grant whose removal has not begun.
    end_at INTEGER GENERATED ALWAYS AS (
        CASE WHEN told_status = written_status THEN written_end_at END) VIRTUAL
);

-- An operator's change increases the revision. If jit read the record before, its commit conflicts
-- and does not overwrite the operator's status.
CREATE TRIGGER jit_requests_changed_outside
AFTER UPDATE OF status ON jit_requests
WHEN NEW.doc IS OLD.doc AND NEW.status IS NOT OLD.status
BEGIN
    UPDATE jit_requests SET revision = OLD.revision + 1 WHERE request_id = NEW.request_id;
END;

CREATE INDEX jit_requests_due ON jit_requests (lane, claimable_at, request_id)
    WHERE claimable_at IS NOT NULL;
CREATE INDEX jit_requests_end ON jit_requests (end_at) WHERE end_at IS NOT NULL;
CREATE INDEX jit_requests_by_time ON jit_requests (created_at, request_id);
CREATE INDEX jit_requests_by_channel ON jit_requests (channel_id, created_at, request_id);
CREATE INDEX jit_requests_by_account ON jit_requests (account_id, created_at, request_id);
CREATE INDEX jit_requests_by_email ON jit_requests (requester_email, created_at, request_id);
CREATE INDEX jit_requests_by_status ON jit_requests (told_status, created_at, request_id);

-- Each event has one row. `event_time_event_id` begins with the time, so a range of times is a
-- range of keys.
CREATE TABLE jit_audit (
    request_id TEXT NOT NULL,
    event_time_event_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    event_time TEXT NOT NULL,
    event_type TEXT NOT NULL,
    account_id TEXT,
    channel_id TEXT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (request_id, seq)
) WITHOUT ROWID;
CREATE INDEX jit_audit_by_time ON jit_audit (event_time_event_id);

CREATE TABLE jit_holdings (
    holding_key TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE jit_bindings (
    account_id TEXT NOT NULL PRIMARY KEY,
    channel_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX jit_bindings_by_channel ON jit_bindings (channel_id, account_id);

-- The key is `config#<channel>`, as in the audit rows of the channel.
CREATE TABLE jit_channels (
    request_id TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;

-- The pending and the parked notices; jit deletes a delivered notice. Only the oldest pending
-- notice of a request has a `claimable_at`, so the index of due notices contains no other.
CREATE TABLE jit_notices (
    request_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    lease TEXT,
    lease_until INTEGER,
    claimable_at INTEGER,
    doc TEXT NOT NULL,
    PRIMARY KEY (request_id, seq)
) WITHOUT ROWID;
CREATE INDEX jit_notices_due ON jit_notices (claimable_at) WHERE claimable_at IS NOT NULL;
CREATE INDEX jit_notices_by_state ON jit_notices (state, created_at);

CREATE TABLE jit_answers (
    answer_key TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    request_id TEXT NOT NULL,
    answered_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX jit_answers_by_time ON jit_answers (answered_at);
