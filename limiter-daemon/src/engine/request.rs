//! What decisions look at in a request.

use std::net::IpAddr;

use http::{HeaderMap, Method};
use percent_encoding::percent_decode;

use super::connection::ConnectionBuckets;

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
    /// The buckets of the connection that it came on; `None`: it is as if it came on a new one.
    pub connection: Option<&'a ConnectionBuckets>,
}

impl<'a> RequestView<'a> {
    /// The value, as it was sent, of the first parameter that is called `name` when it is decoded. A
    /// parameter without `=` has an empty value. `+` is a plus sign (RFC 3986), not a blank.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&'a [u8]> {
        self.query?
            .as_bytes()
            .split(|byte| *byte == b'&')
            .find_map(|pair| {
                let at = pair.iter().position(|byte| *byte == b'=');
                let (key, value) =
                    at.map_or((pair, b"".as_slice()), |at| (&pair[..at], &pair[at + 1..]));
                (!pair.is_empty() && decodes_to(key, name.as_bytes())).then_some(value)
            })
    }
}

/// Whether `sent` is `wanted` when it is percent-decoded.
pub(super) fn decodes_to(sent: &[u8], wanted: &[u8]) -> bool {
    percent_decode(sent).eq(wanted.iter().copied())
}
