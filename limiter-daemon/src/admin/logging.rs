//! What is logged, changed while running: `GET /logging`, and `POST /logging?level=debug` as Envoy's
//! admin API has it. `audit` is logged whatever is asked for.

use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::l4::Refused;

/// Characters of a filter.
const MAX_FILTER: usize = 1000;
const AUDIT: &str = "audit";
const USAGE: &str = "POST /logging?level=LEVEL (trace, debug, info, warn, error or off), \
                     ?filter=DIRECTIVES as LIMITERD_LOG has them, or ?level= for what holds from \
                     the start";

/// The log on standard error.
#[derive(Debug)]
pub struct Logging {
    handle: reload::Handle<EnvFilter, Registry>,
    /// Directives that hold from the start.
    first: String,
    now: Mutex<String>,
}

/// What is logged.
#[derive(Debug, Deserialize, Serialize)]
pub struct LoggingView {
    /// As directives of `LIMITERD_LOG`.
    pub filter: String,
    /// What holds from the start.
    pub at_start: String,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Coloured if `colours`.
    Text {
        colours: bool,
    },
    Json,
}

impl Logging {
    /// Begins to log what `directives` say; what is no directive is as good as `info`.
    ///
    /// # Errors
    /// When this process logs already.
    pub fn start(directives: Option<&str>, form: Form) -> anyhow::Result<Self> {
        let asked = directives.and_then(|text| Some((text.to_owned(), parse(text).ok()?)));
        let (first, filter) = match asked {
            Some(asked) => asked,
            None => ("info".to_owned(), parse("info")?),
        };
        let (filter, handle) = reload::Layer::new(filter);
        let log = tracing_subscriber::registry().with(filter);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        match form {
            Form::Text { colours } => log.with(lines.with_ansi(colours)).try_init()?,
            Form::Json => log.with(lines.with_ansi(false).json()).try_init()?,
        }
        Ok(Self {
            handle,
            now: Mutex::new(first.clone()),
            first,
        })
    }

    /// What is logged now.
    pub(super) fn view(&self) -> LoggingView {
        LoggingView {
            filter: self.now().clone(),
            at_start: self.first.clone(),
        }
    }

    /// Logs what a query says from now on.
    ///
    /// # Errors
    /// Status and reason; nothing is changed then.
    pub(super) fn change(&self, query: Option<&str>) -> Result<(), Refused> {
        let wrong = |why: String| (StatusCode::BAD_REQUEST, why);
        let wanted = wanted(query.unwrap_or_default()).map_err(wrong)?;
        let wanted = wanted.unwrap_or_else(|| self.first.clone());
        let filter = parse(&wanted).map_err(|error| wrong(format!("{error}; {USAGE}")))?;
        self.handle
            .reload(filter)
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        *self.now() = wanted;
        Ok(())
    }

    fn now(&self) -> std::sync::MutexGuard<'_, String> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(directives: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let audited = directives
        .split(',')
        .any(|one| one.trim().starts_with(AUDIT));
    let builder = EnvFilter::builder();
    if audited {
        builder.parse(directives)
    } else {
        builder.parse(format!("{directives},{AUDIT}=info"))
    }
}

/// The directives that a query asks for; `None`: those from the start.
fn wanted(query: &str) -> Result<Option<String>, String> {
    let usage = || USAGE.to_owned();
    let (key, value) = query.split_once('=').ok_or_else(usage)?;
    let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
    match (key, value.to_ascii_lowercase().as_str()) {
        ("level" | "filter", "") => Ok(None),
        // What libraries say beyond that helps nobody, and is much.
        ("level", level @ ("trace" | "debug")) => Ok(Some(format!("info,limiter_daemon={level}"))),
        ("level", level @ ("info" | "warn" | "error" | "off")) => Ok(Some(level.to_owned())),
        // Envoy's names.
        ("level", "warning") => Ok(Some("warn".to_owned())),
        ("level", "critical") => Ok(Some("error".to_owned())),
        ("filter", _) if value.len() <= MAX_FILTER => Ok(Some(value)),
        _ => Err(usage()),
    }
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
        assert!(parse("limiter_daemon=loud").is_err());
    }

    #[test]
    fn the_audit_log_is_there_unless_somebody_names_it() {
        for (directives, told) in [("off", "audit=info"), ("warn,audit=off", "audit=off")] {
            let filter = parse(directives).unwrap().to_string();
            assert!(filter.contains(told), "{filter}");
        }
    }
}
