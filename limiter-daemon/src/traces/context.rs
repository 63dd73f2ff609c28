//! The W3C trace context: `traceparent` and `tracestate` (<https://www.w3.org/TR/trace-context/>).

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const SAMPLED: u8 = 1;
/// The id of the trace was made by chance (level 2 of the standard).
const RANDOM: u8 = 2;
/// Bytes of version 00.
const LENGTH: usize = 55;
/// Bytes of `tracestate` that a span carries; the standard asks for 512.
const MAX_STATE: usize = 1024;

/// Where a request comes from, as its `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl Parent {
    /// `None`: there is none, there are several, or it is not valid.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }

    /// Reads `version-trace id-parent id-flags`; of versions that are not known yet what version 00 has.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_first_chunk::<LENGTH>()?;
        if [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return None;
        }
        let [version] = bytes(&known[..2])?;
        let fits = match version {
            0 => more.is_empty(),
            u8::MAX => false,
            _ => matches!(more, [] | [b'-', ..]),
        };
        let trace_id = bytes(&known[3..35])?;
        let span_id = bytes(&known[36..52])?;
        let [flags] = bytes(&known[53..])?;
        let meant = if version == 0 {
            SAMPLED | RANDOM
        } else {
            SAMPLED
        };
        (fits && trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            flags: flags & meant,
        })
    }

    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// Lower-case hexadecimal digits, and nothing else.
fn bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

/// A request that is traced, and its span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// `None`: the trace begins here.
    pub parent: Option<[u8; 8]>,
    flags: u8,
    /// `tracestate` of the parent; empty: it sent none.
    pub(super) state: String,
}

impl Traced {
    /// The span after `parent`, which came in `headers`.
    pub(crate) fn child(parent: &Parent, headers: &HeaderMap, random: impl Fn() -> u64) -> Self {
        Self {
            trace_id: parent.trace_id,
            span_id: span_id(&random),
            parent: Some(parent.span_id),
            flags: parent.flags,
            state: state(headers),
        }
    }

    /// The first span of a trace.
    pub(super) fn root(random: impl Fn() -> u64) -> Self {
        let id = u128::from(random()) << 64 | u128::from(random());
        Self {
            trace_id: id.max(1).to_be_bytes(),
            span_id: span_id(&random),
            parent: None,
            flags: SAMPLED | RANDOM,
            state: String::new(),
        }
    }

    pub(super) const fn flags(&self) -> u8 {
        self.flags
    }

    /// The `traceparent` of what this span asks.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = Vec::with_capacity(LENGTH);
        let mut separator: &[u8] = b"";
        for part in [&[0_u8][..], &self.trace_id, &self.span_id, &[self.flags]] {
            text.extend_from_slice(separator);
            separator = b"-";
            for byte in part {
                text.push(HEX[usize::from(byte >> 4)]);
                text.push(HEX[usize::from(byte & 0xf)]);
            }
        }
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }

    /// Makes this span the parent of the request with `headers`. The state of another trace goes.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Some(header) = self.header() {
            headers.insert(TRACEPARENT, header);
        }
        if self.parent.is_none() {
            headers.remove(TRACESTATE);
        }
    }
}

fn span_id(random: impl Fn() -> u64) -> [u8; 8] {
    random().max(1).to_be_bytes()
}

/// All lines of it as one, as they mean; empty if it is too long, or no text.
fn state(headers: &HeaderMap) -> String {
    let mut state = String::new();
    for line in headers.get_all(TRACESTATE) {
        let Ok(line) = line.to_str() else {
            return String::new();
        };
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(line);
    }
    if state.len() > MAX_STATE {
        state.clear();
    }
    state
}
