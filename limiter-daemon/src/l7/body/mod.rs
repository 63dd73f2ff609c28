//! Bodies on their way through: counted, bounded in size and time.

mod replay;
mod request;
mod response;
mod timer;

pub(super) use replay::Replay;
pub(super) use request::{Bounds, Copy, Fault, RequestBody, Upload, copy};
pub(super) use response::{Body, Streamed, let_go};
