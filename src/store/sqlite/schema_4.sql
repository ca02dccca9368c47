-- The PENDING requests of each person, with the key that signed each of them, so that their limit
-- costs the same whatever else is stored. An unreadable document has no key.
ALTER TABLE jit_requests ADD COLUMN key_id TEXT GENERATED ALWAYS AS (
    CASE WHEN json_valid(doc) THEN json_extract(doc, '$.key_id') END) VIRTUAL;
CREATE INDEX jit_requests_pending
    ON jit_requests (requester_email, created_at, request_id, key_id)
    WHERE told_status = 'PENDING';
