//! `http1` and `http2` of a ClientTrafficPolicy.

use serde::Deserialize;

use super::{bounded_bytes, out_of_range};
use crate::policy::decode::{At, NumberOrText, Unheeded};
use crate::policy::findings::Scope;
use crate::policy::plan::{Http1Settings, Http2Settings, InvalidMessage};

const MIN_WINDOW: u32 = 65_535;
const MAX_WINDOW: u32 = (1 << 31) - 1;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "other fields are told by the decoder")]
pub(super) struct RawHttp1 {
    enable_trailers: Option<bool>,
    preserve_header_case: Option<Unheeded>,
    http10: Option<RawHttp10>,
    disable_safe_max_connection_duration: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "other fields are told by the decoder")]
struct RawHttp10 {
    use_default_host: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "other fields are told by the decoder")]
pub(super) struct RawHttp2 {
    initial_stream_window_size: Option<At<NumberOrText>>,
    initial_connection_window_size: Option<At<NumberOrText>>,
    max_concurrent_streams: Option<At<u32>>,
    on_invalid_message: Option<RawInvalidMessage>,
    connection_keepalive: Option<Unheeded>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum RawInvalidMessage {
    TerminateConnection,
    TerminateStream,
}

/// Takes `http1` over. HTTP/1.0 is taken in any case, which its block allows.
pub(super) fn lower_http1(raw: RawHttp1, http1: &mut Http1Settings) {
    if let Some(trailers) = raw.enable_trailers {
        http1.trailers = trailers;
    }
    if raw.http10.is_some() {
        http1.http10 = Some(None);
    }
}

/// Checks `http2`.
pub(super) fn lower_http2(raw: RawHttp2, http2: &mut Http2Settings, scope: &mut Scope<'_>) {
    if let Some(raw) = raw.initial_stream_window_size
        && let Some(bytes) = bounded_bytes(&raw, MIN_WINDOW, MAX_WINDOW, scope)
    {
        http2.initial_stream_window = bytes;
    }
    if let Some(raw) = raw.initial_connection_window_size
        && let Some(bytes) = bounded_bytes(&raw, MIN_WINDOW, MAX_WINDOW, scope)
    {
        http2.initial_connection_window = bytes;
    }
    if let Some(at) = raw.max_concurrent_streams {
        if (1..=MAX_WINDOW).contains(&at.value) {
            http2.max_concurrent_streams = at.value;
        } else {
            out_of_range(&at.mark, &at.value, 1, MAX_WINDOW.into(), scope);
        }
    }
    match raw.on_invalid_message {
        Some(RawInvalidMessage::TerminateConnection) => {
            http2.on_invalid_message = InvalidMessage::TerminateConnection;
        }
        Some(RawInvalidMessage::TerminateStream) => {
            http2.on_invalid_message = InvalidMessage::TerminateStream;
        }
        None => {}
    }
}
