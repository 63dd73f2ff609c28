//! Telling threads that it is over.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets its flag when it is dropped, also by a panic: so that nobody waits for threads that go on until
/// then.
#[derive(Debug)]
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
