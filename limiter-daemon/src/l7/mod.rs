//! The request's way: listeners, one worker a core, the pipeline, upstreams.

pub mod clock;
mod headers;
pub mod listener;
pub mod metrics;
mod pipeline;
mod respond;
mod upstream;
pub mod worker;

pub use pipeline::Active;
pub use worker::Workers;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;

/// Body of an answer: the upstream's, streamed, or one of our own.
type Body = Either<Incoming, Full<Bytes>>;
