//! What comes of blocks, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What came of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Put in force here.
    Blocked,
    /// Lifted here before its end.
    Lifted,
    /// Told to the store.
    Sent,
    /// The table of this node or the store's was full, and it ended soonest.
    GaveWay,
    /// The table was compared with the store's as a whole.
    Resynced,
    /// The kernel would not.
    Failed,
}

impl Event {
    pub const ALL: [Self; 6] = [
        Self::Blocked,
        Self::Lifted,
        Self::Sent,
        Self::GaveWay,
        Self::Resynced,
        Self::Failed,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Lifted => "lifted",
            Self::Sent => "sent",
            Self::GaveWay => "gave_way",
            Self::Resynced => "resynced",
            Self::Failed => "failed",
        }
    }
}

/// How often each happened.
#[derive(Debug, Default)]
pub struct Counts([AtomicU64; Event::ALL.len()]);

impl Counts {
    pub(super) fn add(&self, event: Event) {
        self.0[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn of(&self, event: Event) -> u64 {
        self.0[event as usize].load(Ordering::Relaxed)
    }
}
