//! Bodies on their way through: counted, bounded in size and time, and held back as a whole only where
//! a policy says so (`buffered`).

mod buffered;
mod replay;
mod request;
mod response;
mod timer;

pub(super) use buffered::{Buffered, buffer};
pub(super) use replay::Replay;
pub(super) use request::{Bounds, Copy, Fault, RequestBody, Upload, copy};
pub(super) use response::{Body, Streamed, let_go};
