-- One index for the requests of a person instead of two. A person has few requests in one place of
-- an index, so each index of persons costs a create one page of the log. `key_id` is in it because
-- the limit of pending requests counts them for each key.
CREATE INDEX jit_requests_by_person
    ON jit_requests (requester_email, told_status, created_at, request_id, key_id);
DROP INDEX jit_requests_by_email;
DROP INDEX jit_requests_pending;
