//! Bodies on their way through: counted, bounded in size and time, never held back as a whole.

mod request;
mod response;
mod timer;

pub(super) use request::{Bounds, Copy, Fault, RequestBody, Upload, copy};
pub(super) use response::{Body, Streamed};
