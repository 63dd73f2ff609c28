//! Nodes that share a store: how many of them live, and whom all of them block. What is known, and
//! what follows from it; who asks the store is `global::fleet`.

mod alive;
mod blocks;
mod counts;
mod entry;
mod resync;
mod stream;
mod sync;
mod table;

pub use alive::Alive;
pub use blocks::{Blocks, MAX_BLOCKS};
pub use counts::{Counts, Event};
pub use entry::{
    Block, BlockError, Cause, Gate, GateError, Origin, Pending, Remote, Scope, Sentence, Told,
};
pub use resync::Resync;
pub use stream::{NoStreamId, ServerClock, StreamId};
