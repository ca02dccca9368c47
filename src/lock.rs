//! The lock of a value that threads share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for the value, also if a thread panicked while it had the value: jit catches panics and
/// goes on.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
