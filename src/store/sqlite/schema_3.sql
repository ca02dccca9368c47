-- The head log: the ends of the histories, in chained entries.
CREATE TABLE jit_head_log (
    number INTEGER NOT NULL PRIMARY KEY,
    doc TEXT NOT NULL
);
