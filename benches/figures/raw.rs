//! Measures the limit of the disk and SQLite: inserts of rows of the same size, each durable
//! before its client continues, with all waiting clients in one commit.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

type Job = (i64, oneshot::Sender<()>);

pub async fn inserts(file: &Path, bytes: usize, clients: usize, span: Duration) -> f64 {
    let db = Connection::open(file).unwrap();
    let set = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
               CREATE TABLE t (id INTEGER PRIMARY KEY, doc TEXT NOT NULL)";
    db.execute_batch(set).unwrap();
    let (jobs, queue) = mpsc::channel::<Job>(1024);
    let writer = std::thread::spawn(move || write(&db, bytes, queue));
    let mut waiting = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for client in 0..i64::try_from(clients).unwrap() {
        let jobs = jobs.clone();
        waiting.spawn(async move {
            let mut done = 0;
            while begun.elapsed() < span {
                let (caller, answer) = oneshot::channel();
                jobs.send((client << 32 | done, caller)).await.unwrap();
                answer.await.unwrap();
                done += 1;
            }
            done
        });
    }
    drop(jobs);
    let done: i64 = waiting.join_all().await.into_iter().sum();
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    writer.join().unwrap();
    rate
}

fn write(db: &Connection, bytes: usize, mut queue: mpsc::Receiver<Job>) {
    let doc = "x".repeat(bytes);
    let mut batch = Vec::new();
    while queue.blocking_recv_many(&mut batch, 256) > 0 {
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        for (id, _) in &batch {
            let mut insert = db.prepare_cached("INSERT INTO t VALUES (?1, ?2)").unwrap();
            insert.execute((id, &doc)).unwrap();
        }
        db.execute_batch("COMMIT").unwrap();
        for (_, caller) in batch.drain(..) {
            caller.send(()).ok();
        }
    }
}
