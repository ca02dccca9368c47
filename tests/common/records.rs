//! Changes to the records in the SQLite file.

use std::path::Path;

use serde_json::Value;

/// Moves the due time and the end of every grant into the past.
pub fn let_grants_end(folder: &Path) {
    let db = rusqlite::Connection::open(folder.join("jit.db")).unwrap();
    let mut all = db
        .prepare("SELECT request_id, doc FROM jit_requests")
        .unwrap();
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let rows: Vec<(String, String)> = rows.unwrap().map(Result::unwrap).collect();
    for (id, doc) in rows {
        let mut record: Value = serde_json::from_str(&doc).unwrap();
        record["granted"]["until"] = record["granted"]["from"].clone();
        record["due_at"] = record["granted"]["from"].clone();
        let sql = "UPDATE jit_requests SET doc = ?2, written_claimable_at = 1, written_end_at = 1
                   WHERE request_id = ?1";
        assert_eq!(db.execute(sql, [id, record.to_string()]), Ok(1));
    }
}
