//! Envoy's default text, and limiterd's, which has the client where Envoy has `X-Forwarded-For`, and
//! the decision on the limits at its end.

use http::HeaderName;
use regex::bytes::Regex;

use super::escape::undo;
use super::{Draft, LineError};
use crate::simulate::entry::Logged;

/// `[time] "request" status flags [details termination "reason"] received sent duration upstream-time
/// "client" "user agent" "request id" "authority" "upstream" [decision rule "descriptor" remaining]`;
/// what is in the first brackets is Istio's.
const PATTERN: &str = r#"(?x-u)
    ^ \[ ([^\]]+) \] \ "((?:[^"\\]|\\.)*)" \ ([0-9]+) \ ([^\ ]+)
    (?: \ ([^\ "]+) \ [^\ "]+ \ "(?:[^"\\]|\\.)*" )?
    \ (?:[0-9]+|-) \ (?:[0-9]+|-) \ ([0-9]+|-) \ (?:[0-9]+|-)
    \ "((?:[^"\\]|\\.)*)" \ "((?:[^"\\]|\\.)*)" \ "((?:[^"\\]|\\.)*)"
    \ "((?:[^"\\]|\\.)*)" \ "(?:[^"\\]|\\.)*"
    (?: \ (ok|over_limit|-) \ ([^\ ]+) \ (?: "((?:[^"\\]|\\.)*)" | - ) \ (?:[0-9]+|-) $ )?"#;
const MILLISECOND: u64 = 1_000_000;

/// Reads such lines.
#[derive(Debug)]
pub(super) struct Text(Option<Regex>);

impl Default for Text {
    fn default() -> Self {
        // The pattern is a constant, which a test compiles.
        Self(Regex::new(PATTERN).ok())
    }
}

impl Text {
    pub(super) fn read(&self, line: &[u8]) -> Result<Draft, LineError> {
        let found = self.0.as_ref().and_then(|regex| regex.captures(line));
        let found = found.ok_or(LineError::Format)?;
        let text = |group: usize| Some(undo(found.get(group)?.as_bytes()));
        let took = text(6).and_then(|ms| ms.parse::<u64>().ok());
        let logged = text(11).map(|decision| Logged {
            over_limit: decision == "over_limit",
            rule: text(12).filter(|rule| rule != "-"),
        });
        let mut draft = Draft {
            time: text(1),
            status: text(3).and_then(|status| status.parse().ok()),
            flags: text(4),
            details: text(5),
            took: took.unwrap_or(0).saturating_mul(MILLISECOND),
            client: text(7),
            host: text(10),
            descriptor: text(13).filter(|text| text != "-"),
            logged,
            ..Draft::default()
        };
        let request = text(2).unwrap_or_default();
        draft.connection = request.starts_with("- ");
        draft.request_line(&request);
        let named = [
            (http::header::USER_AGENT, 8),
            (HeaderName::from_static("x-request-id"), 9),
        ];
        for (name, group) in named {
            draft.headers.extend(text(group).map(|value| (name, value)));
        }
        Ok(draft)
    }
}
