//! The log of the events of a world, in the order of its true time.

use std::fmt;
use std::sync::{Arc, Mutex};

use jit::domain::Timestamp;

#[derive(Clone, Default)]
pub struct EventLog(Arc<Mutex<Vec<String>>>);

impl EventLog {
    pub fn log(&self, at: Timestamp, line: &str) {
        self.0.lock().unwrap().push(format!("{at} {line}"));
    }
}

impl fmt::Display for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lock().unwrap();
        lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
