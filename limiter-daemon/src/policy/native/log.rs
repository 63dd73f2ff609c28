//! `log` of the `LimiterConfig`.

use std::ops::RangeInclusive;

use serde::Deserialize;

use super::access_log::Format;
use super::limiter_config::bounded;
use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::plan::{LogConfig, LogFormat, LogLevel};

const LINES: RangeInclusive<u64> = 1..=1_000_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawLog {
    level: Option<Level>,
    format: Option<Format>,
    lines_per_second: Option<At<u64>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Checks it; what it does not say keeps its default.
pub(super) fn lower(raw: &RawLog, scope: &mut Scope<'_>) -> LogConfig {
    let default = LogConfig::default();
    let lines = bounded(raw.lines_per_second.as_ref(), &LINES, scope);
    LogConfig {
        level: raw.level.map_or(default.level, |level| match level {
            Level::Error => LogLevel::Error,
            Level::Warn => LogLevel::Warn,
            Level::Info => LogLevel::Info,
            Level::Debug => LogLevel::Debug,
            Level::Trace => LogLevel::Trace,
        }),
        format: raw.format.map_or(default.format, LogFormat::from),
        lines_per_second: lines.unwrap_or(default.lines_per_second),
    }
}
