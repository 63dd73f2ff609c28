//! The request's way: listeners, one worker a core, the pipeline, upstreams.

mod accept;
pub mod access_log;
mod active;
mod admission;
mod body;
mod client_address;
pub mod clock;
mod connection;
mod cost_body;
mod drain;
mod filters;
mod forward;
mod handshake;
mod headers;
mod io;
mod life;
mod limit_headers;
pub mod listener;
pub mod metrics;
mod mirror;
mod path;
mod pipeline;
pub mod preview;
mod proxy_protocol;
pub mod record;
mod request_id;
mod respond;
mod tls;
mod tunnel;
mod upstream;
pub mod worker;

pub use active::{Active, ActiveError};
pub use tls::TlsError;
pub use worker::Workers;
