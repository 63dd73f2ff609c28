//! The `combined` format of nginx and Apache, `common`, and `vhost_combined`.

use regex::bytes::Regex;

use super::escape::undo;
use super::{Draft, LineError};

/// `[host:port] address identity user [time] "request" status bytes ["referer" "user agent"]`.
const PATTERN: &str = r#"(?x-u)
    ^ (?: ([^\ "\[]+:[0-9]+) \ )? ([^\ "\[]+) \ [^\ ]+ \ .*? \ \[ ([^\]"]+) \] \ "((?:[^"\\]|\\.)*)"
    \ ([0-9]{3}) \ (?:[0-9]+|-)
    (?: \ "(?:[^"\\]|\\.)*" \ "((?:[^"\\]|\\.)*)" )?"#;

/// Reads such lines.
#[derive(Debug)]
pub(super) struct Combined(Option<Regex>);

impl Default for Combined {
    fn default() -> Self {
        // The pattern is a constant, which a test compiles.
        Self(Regex::new(PATTERN).ok())
    }
}

impl Combined {
    pub(super) fn read(&self, line: &[u8]) -> Result<Draft, LineError> {
        let found = self.0.as_ref().and_then(|regex| regex.captures(line));
        let found = found.ok_or(LineError::Format)?;
        let text = |group: usize| {
            let bytes = found.get(group)?.as_bytes();
            Some(undo(bytes))
        };
        let mut draft = Draft {
            host: text(1),
            remote: text(2),
            time: text(3),
            status: text(5).and_then(|status| status.parse().ok()),
            ..Draft::default()
        };
        draft.request_line(&text(4).unwrap_or_default());
        if let Some(agent) = text(6) {
            draft.headers.push((http::header::USER_AGENT, agent));
        }
        Ok(draft)
    }
}
