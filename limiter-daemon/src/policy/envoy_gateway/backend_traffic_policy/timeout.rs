//! `timeout`: how long connections, requests and pauses may take. Except for connecting, `0s` is no
//! bound, as Envoy has it.

use std::time::Duration;

use serde::Deserialize;

use super::merge::{Bound, by_field};
use super::numbers;
use crate::policy::decode::At;
use crate::policy::findings::Scope;

#[derive(Debug, Deserialize)]
pub(super) struct RawTimeout {
    tcp: Option<RawTcp>,
    http: Option<RawHttp>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTcp {
    connect_timeout: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp {
    connection_idle_timeout: Option<At<String>>,
    max_connection_duration: Option<At<String>>,
    request_timeout: Option<At<String>>,
    max_stream_duration: Option<At<String>>,
    stream_idle_timeout: Option<At<String>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Timeout {
    pub(super) connect: Option<Duration>,
    pub(super) connection_idle: Option<Bound>,
    pub(super) max_connection: Option<Bound>,
    pub(super) request: Option<Bound>,
    pub(super) max_stream: Option<Bound>,
    pub(super) stream_idle: Option<Bound>,
}

by_field!(Timeout {
    connect,
    connection_idle,
    max_connection,
    request,
    max_stream,
    stream_idle,
});

/// Checks `timeout`.
pub(super) fn lower(raw: RawTimeout, scope: &mut Scope<'_>) -> Timeout {
    let mut timeout = Timeout::default();
    if let Some(tcp) = raw.tcp {
        timeout.connect = numbers::time(tcp.connect_timeout.as_ref(), scope);
    }
    if let Some(http) = raw.http {
        timeout.connection_idle = numbers::bound(http.connection_idle_timeout.as_ref(), scope);
        timeout.max_connection = numbers::bound(http.max_connection_duration.as_ref(), scope);
        timeout.request = numbers::bound(http.request_timeout.as_ref(), scope);
        timeout.max_stream = numbers::bound(http.max_stream_duration.as_ref(), scope);
        timeout.stream_idle = numbers::bound(http.stream_idle_timeout.as_ref(), scope);
    }
    timeout
}

impl Timeout {
    /// Whether it says something about connections to backends.
    pub(super) const fn is_about_backends(&self) -> bool {
        self.connect.is_some() || self.connection_idle.is_some() || self.max_connection.is_some()
    }
}
