//! The request's way: listeners, one worker a core, the pipeline, upstreams.

pub mod clock;
mod cost_body;
mod headers;
mod limit_headers;
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
type Body = Either<cost_body::CostBody<Incoming>, Full<Bytes>>;
