//! What decisions look at in a request.

use std::net::IpAddr;

use http::{HeaderMap, Method};

/// A request's head, and whom it is attributed to.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    pub method: &'a Method,
    /// As it was sent, without the query.
    pub path: &'a str,
    /// Without the `?`.
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// The client's address, in its canonical form (no IPv4-mapped IPv6).
    pub client: IpAddr,
}
