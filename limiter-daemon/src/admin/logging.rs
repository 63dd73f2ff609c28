//! What is logged, changed while running: `GET /logging`, and `POST /logging?level=debug` as Envoy's
//! admin API has it.

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::l4::Refused;
use crate::log::{Log, LogError, directives};
use crate::policy::plan::LogLevel;

/// Characters of a filter.
const MAX_FILTER: usize = 1000;
const USAGE: &str = "POST /logging?level=LEVEL (trace, debug, info, warn, error or off), \
                     ?filter=DIRECTIVES as LIMITERD_LOG has them, or ?level= for what the environment \
                     or the configuration says";

/// What is logged.
#[derive(Debug, Deserialize, Serialize)]
pub struct LoggingView {
    /// As directives of `LIMITERD_LOG`.
    pub filter: String,
    /// What the environment or the configuration says.
    pub configured: String,
}

/// What is logged now.
pub(super) fn view(log: &Log) -> LoggingView {
    LoggingView {
        filter: log.in_force(),
        configured: log.standing(),
    }
}

/// Logs what a query says from now on.
///
/// # Errors
/// Status and reason; nothing is changed then.
pub(super) fn change(log: &Log, query: Option<&str>) -> Result<(), Refused> {
    let wanted = wanted(query.unwrap_or_default())
        .map_err(|why| (StatusCode::BAD_REQUEST, why.to_owned()))?;
    log.by_hand(wanted.as_deref()).map_err(|error| match error {
        LogError::Directives(error) => (StatusCode::BAD_REQUEST, format!("{error}; {USAGE}")),
        error => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    })
}

/// The directives that a query asks for; `None`: those that hold without it.
fn wanted(query: &str) -> Result<Option<String>, &'static str> {
    let (key, value) = query.split_once('=').ok_or(USAGE)?;
    let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
    let level = match (key, value.to_ascii_lowercase().as_str()) {
        ("level" | "filter", "") => return Ok(None),
        ("filter", _) if value.len() <= MAX_FILTER => return Ok(Some(value)),
        ("level", "off") => return Ok(Some("off".to_owned())),
        ("level", "trace") => LogLevel::Trace,
        ("level", "debug") => LogLevel::Debug,
        ("level", "info") => LogLevel::Info,
        // The second ones are Envoy's names.
        ("level", "warn" | "warning") => LogLevel::Warn,
        ("level", "error" | "critical") => LogLevel::Error,
        _ => return Err(USAGE),
    };
    Ok(Some(directives(level)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read_as_envoy_and_the_environment_have_them() {
        let said = |query: &str| wanted(query).ok().map(Option::unwrap_or_default);
        for (query, filter) in [
            ("level=debug", "info,limiter_daemon=debug"),
            ("level=WARNING", "warn"),
            ("level=critical", "error"),
            ("level=off", "off"),
            ("level=", ""),
            (
                "filter=warn,limiter_daemon%3A%3Al4=trace",
                "warn,limiter_daemon::l4=trace",
            ),
        ] {
            assert_eq!(said(query).as_deref(), Some(filter), "{query}");
        }
        for query in ["", "level", "level=loud", "paths=x", "level=info&level=off"] {
            assert_eq!(said(query), None, "{query}");
        }
        assert_eq!(
            said(&format!("filter={}", "a".repeat(MAX_FILTER + 1))),
            None
        );
    }
}
