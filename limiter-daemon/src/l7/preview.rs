//! What the pipeline makes of a request before anything is decided, for those who ask what would be.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderMap;

use super::{client_address, path};
use crate::policy::plan::ClientAddress;

/// Whom a request with `headers` is attributed to that comes on a connection from `peer`; `None`: it
/// is answered with 403, because the header that must say so does not.
#[must_use]
pub fn client(how: &ClientAddress, headers: &HeaderMap, peer: IpAddr) -> Option<IpAddr> {
    let client = client_address::client(how, headers, peer).ok()?;
    Some(client.address)
}

/// The path that is decided on; `None`: it leads above the root, and is answered with 400.
#[must_use]
pub fn path(path: &str) -> Option<Cow<'_, str>> {
    path::normal(path)
}
