//! The kernel half as the daemon sees it: the programs and their maps.
//!
//! What is in the kernel outlives the daemon. Maps and links are pinned under
//! `<pinPath>/v<ABI version>`; a daemon that dies leaves its last policies enforced, and the next
//! one adopts them: the maps by their pins, so that no source gets a fresh bucket, and the
//! attachments by an atomic update of their links, so that no packet goes unjudged.
//!
//! No task here: `app` calls in, and gets an answer.

mod attach;
pub mod clock;
mod counters;
mod device;
mod error;
mod events;
mod explain;
mod generation;
mod ids;
mod image;
mod kernel;
mod load;
mod maps;
pub mod offenders;
mod pins;
pub mod privilege;
pub mod probe;
mod sentences;
mod state;
mod sync;
mod sys;
pub mod trial;

pub use self::attach::{Attachment, Mode};
pub use self::counters::{Counter, Occupancy, Pressure};
pub use self::error::{Foreign, L4Error};
pub use self::events::Events;
pub use self::explain::{BucketState, Explanation, Place, PolicyState, Standing};
pub use self::image::covers_ipv4;
pub use self::kernel::Kernel;

/// The compiled eBPF object, for tools that look at it or load it by other means.
#[must_use]
pub fn object() -> &'static [u8] {
    load::OBJECT
}
