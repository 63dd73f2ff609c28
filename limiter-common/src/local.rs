//! What each CPU keeps for itself.

/// Of one CPU: the clock as it read last, the samples it sent, and what befell the table of sources.
/// Together, since a packet that is dropped needs most of it, and every lookup costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Local {
    /// The kernel's tick counter when `now` was read.
    pub tick: u64,
    /// Nanoseconds since boot, by the coarse clock.
    pub now: u64,
    /// TAT of the bucket that caps the samples.
    pub samples: u64,
    /// Drops that were not sampled: over the cap, or the ring was full.
    pub lost: u64,
    /// By [`Pressure`].
    pub pressure: [u64; Pressure::COUNT],
}

/// What befalls the table of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Pressure {
    /// A source seen for the first time got a place.
    Placed = 0,
    /// There was none, and it went to the sketch.
    Sketched = 1,
    /// The place was another source's, long done with.
    Evicted = 2,
    /// Other CPUs were changing the set.
    Lost = 3,
}

impl Pressure {
    /// How many there are.
    pub const COUNT: usize = 4;
}

const _: () = assert!(size_of::<Local>() == 64);
