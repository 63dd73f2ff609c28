//! Times of logs.

use jiff::Timestamp;
use jiff::fmt::strtime;

/// Reads times; the last one is remembered, for many lines have the same.
#[derive(Debug, Default)]
pub(in crate::simulate) struct Times {
    last: Option<(String, u64)>,
}

impl Times {
    /// Nanoseconds since 1970 (UTC) of an RFC 3339 time or one of nginx and Apache
    /// (`25/Nov/2026:22:40:19 +0000`).
    pub(in crate::simulate) fn read(&mut self, text: &str) -> Option<u64> {
        if let Some((_, at)) = self.last.as_ref().filter(|(last, _)| last == text) {
            return Some(*at);
        }
        let time = text.parse::<Timestamp>().ok();
        let time = time.or_else(|| {
            let parts = strtime::parse("%d/%b/%Y:%H:%M:%S %z", text).ok()?;
            parts.to_timestamp().ok()
        })?;
        let at = u64::try_from(time.as_nanosecond()).ok()?;
        self.last = Some((text.to_owned(), at));
        Some(at)
    }
}

/// The instant in UTC, to the millisecond; `ns` since 1970.
pub(in crate::simulate) fn rfc3339(ns: u64) -> String {
    let ms = i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX);
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_out_of_range) => ns.to_string(),
    }
}
