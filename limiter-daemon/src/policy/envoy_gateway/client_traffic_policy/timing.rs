//! `timeout` and `connection` of a ClientTrafficPolicy.

use serde::Deserialize;

use super::at_least_one;
use crate::policy::decode::{At, Unheeded, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::plan::{ClientTimeouts, ConnectionLimits};
use crate::policy::units;

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "other fields are told by the decoder")]
pub(super) struct RawTimeout {
    http: Option<RawHttpTimeout>,
    tcp: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttpTimeout {
    request_received_timeout: Option<At<String>>,
    idle_timeout: Option<At<String>>,
    stream_idle_timeout: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "other fields are told by the decoder")]
pub(super) struct RawConnection {
    connection_limit: Option<RawConnectionLimit>,
    buffer_limit: Option<Unheeded>,
    max_accept_per_socket_event: Option<Unheeded>,
    socket_buffer_limit: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawConnectionLimit {
    value: Option<At<u64>>,
    close_delay: Option<At<String>>,
    max_connection_duration: Option<At<String>>,
    max_requests_per_connection: Option<At<u64>>,
    max_stream_duration: Option<Unsupported>,
}

/// Checks `timeout`. Of a request and of a stream, `0s` is no bound, as upstream has it.
pub(super) fn lower_timeout(raw: RawTimeout, timeouts: &mut ClientTimeouts, scope: &mut Scope<'_>) {
    let Some(http) = raw.http else {
        return;
    };
    if let Some(text) = http.request_received_timeout {
        timeouts.request_received = units::bound(&text, scope).flatten();
    }
    if let Some(text) = http.stream_idle_timeout
        && let Some(bound) = units::bound(&text, scope)
    {
        timeouts.stream_idle = bound;
    }
    if let Some(text) = http.idle_timeout
        && let Some(time) = units::positive_duration(&text, scope)
    {
        timeouts.idle = time;
    }
}

/// Checks `connection`.
pub(super) fn lower_connection(
    raw: RawConnection,
    connections: &mut ConnectionLimits,
    scope: &mut Scope<'_>,
) {
    let Some(limit) = raw.connection_limit else {
        return;
    };
    if let Some(at) = &limit.value {
        connections.max = at_least_one(at, scope);
    }
    if let Some(text) = &limit.close_delay {
        if limit.value.is_none() {
            scope.error(
                &text.mark,
                "without `value` there is nothing to delay",
                "give it one, or remove this",
            );
        }
        connections.close_delay = units::bound(text, scope).flatten().unwrap_or_default();
    }
    if let Some(text) = &limit.max_connection_duration {
        connections.max_duration = units::positive_duration(text, scope);
    }
    if let Some(at) = &limit.max_requests_per_connection {
        connections.max_requests = at_least_one(at, scope);
    }
}
