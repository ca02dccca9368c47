//! Changes to the records in the SQLite file.

use std::path::Path;

use jit::domain::{Channel, Event, Timestamp};
use serde_json::{Value, json};

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

/// Writes a channel with a history of this many events.
pub fn write_history(database: &Path, channel: &str, count: i64) -> Vec<Event> {
    let mut channel = Channel::unknown(channel.parse().unwrap());
    let mut events = Vec::new();
    for number in 0..count {
        let now = Timestamp::from_seconds(1_800_000_000 + number / 3);
        let said = [("number".to_owned(), number.to_string())].into();
        let (next, event) = channel.refused(said, now);
        channel = next;
        events.push(event);
    }
    let mut db = rusqlite::Connection::open(database).unwrap();
    let write = db.transaction().unwrap();
    let head = json!(channel).to_string();
    let key = format!("config#{}", channel.id);
    let sql = "INSERT INTO jit_channels (request_id, revision, doc) VALUES (?1, 1, ?2)";
    write.execute(sql, [&key, &head]).unwrap();
    for event in &events {
        let sql = "INSERT INTO jit_audit (request_id, event_time_event_id, seq, event_time,
                   event_type, channel_id, doc) VALUES (?1, ?2, ?3, ?4, 'x', ?5, ?6)";
        let given = rusqlite::params![
            key,
            event.sort_key(),
            i64::try_from(event.seq).unwrap(),
            event.event_time.to_string(),
            channel.id.as_str(),
            json!(event).to_string(),
        ];
        write.execute(sql, given).unwrap();
    }
    write.commit().unwrap();
    events
}
