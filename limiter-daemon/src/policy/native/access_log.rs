//! `accessLog` of the `LimiterConfig`.

use std::path::PathBuf;

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{AccessLog, LogFormat, LogTarget};

#[derive(Debug, Deserialize)]
pub(super) struct RawAccessLog {
    format: Option<Format>,
    path: Option<At<String>>,
    sample: Option<At<u64>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum Format {
    Json,
    Text,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::Text => Self::Text,
        }
    }
}

/// Checks it; `None` with errors.
pub(super) fn lower(raw: At<RawAccessLog>, scope: &mut Scope<'_>) -> Option<AccessLog> {
    let At { value: raw, mark } = raw;
    let format = raw.format.map_or(LogFormat::Json, LogFormat::from);
    let target = target(raw.path, &mark, scope);
    let sample = match raw.sample {
        None => Some(100),
        Some(percent) if (1..=100).contains(&percent.value) => u8::try_from(percent.value).ok(),
        Some(percent) => {
            scope.error(
                &percent.mark,
                format!(
                    "{} is not a percentage of the requests to log",
                    percent.value
                ),
                "it may be 1 to 100; without an access log leave `accessLog` out",
            );
            None
        }
    };
    Some(AccessLog {
        format,
        target: target?,
        sample: sample?,
    })
}

fn target(path: Option<At<String>>, mark: &Mark, scope: &mut Scope<'_>) -> Option<LogTarget> {
    let Some(path) = path else {
        scope.error(
            mark,
            "the access log needs a `path`",
            "write `/dev/stdout`, `/dev/stderr` or the absolute path of a file",
        );
        return None;
    };
    match path.as_str() {
        "/dev/stdout" => Some(LogTarget::Stdout),
        "/dev/stderr" => Some(LogTarget::Stderr),
        text if text.starts_with('/') && !text.ends_with('/') && !text.contains('\0') => {
            Some(LogTarget::File(PathBuf::from(text)))
        }
        text => {
            scope.error(
                &path.mark,
                format!("`{text}` is not the absolute path of a file"),
                "write one as `/var/log/limiterd/access.log`, or `/dev/stdout`",
            );
            None
        }
    }
}
