//! Settings that may be changed while running: `GET /runtime` and `POST /runtime_modify?key=value`, as
//! Envoy's admin API has them.

use std::collections::BTreeMap;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use crate::engine::runtime::{Runtime, Setting};

/// Settings that one question may change.
const MAX_CHANGES: usize = 64;

#[derive(Debug, Serialize)]
struct RuntimeView {
    /// The later ones win.
    layers: [&'static str; 2],
    entries: BTreeMap<String, EntryView>,
}

#[derive(Debug, Serialize)]
struct EntryView {
    /// By layer; empty: it says nothing.
    layer_values: [String; 2],
    final_value: String,
}

impl From<&Setting> for EntryView {
    fn from(setting: &Setting) -> Self {
        let text = |value: Option<u8>| value.map(|value| value.to_string()).unwrap_or_default();
        Self {
            layer_values: [text(setting.file), text(setting.admin)],
            final_value: setting.percent.to_string(),
        }
    }
}

/// All settings as JSON.
pub(super) fn json(runtime: &Runtime) -> serde_json::Result<String> {
    let settings = runtime.settings();
    let entries = settings
        .iter()
        .map(|one| (one.name.clone(), EntryView::from(one)));
    serde_json::to_string_pretty(&RuntimeView {
        layers: ["file", "admin"],
        entries: entries.collect(),
    })
}

/// Changes what the query names.
///
/// # Errors
/// Status and reason; nothing is changed then.
pub(super) fn modify(runtime: &Runtime, query: Option<&str>) -> Result<(), (StatusCode, String)> {
    let wrong = |why: String| (StatusCode::BAD_REQUEST, why);
    let usage =
        "write POST /runtime_modify?key=value&key=value; an empty value clears what was set";
    let pairs = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty());
    let mut changes = Vec::new();
    for pair in pairs {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| wrong(usage.to_owned()))?;
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        changes.push((decode(key), decode(value)));
    }
    if changes.is_empty() || changes.len() > MAX_CHANGES {
        return Err(wrong(usage.to_owned()));
    }
    runtime
        .change(&changes)
        .map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_changed_cleared_and_told() {
        let runtime = Runtime::default();
        let key = "ratelimit.http_filter_enabled";
        let said = |query| modify(&runtime, Some(query)).map_err(|(status, _)| status.as_u16());
        assert_eq!(
            said("ratelimit.http_filter_enabled=20&ratelimit.a%2eb.http_filter_enabled=5"),
            Ok(())
        );
        assert_eq!(said("ratelimit.http_filter_enabled"), Err(400));
        assert_eq!(said("ratelimit.http_filter_enabled=120"), Err(400));
        assert_eq!(said("nonsense=1"), Err(400));
        assert_eq!(said(""), Err(400));
        assert!(modify(&runtime, None).is_err());
        runtime.follow(&BTreeMap::from([(key.to_owned(), 90)]));
        let told: serde_json::Value = serde_json::from_str(&json(&runtime).unwrap()).unwrap();
        assert_eq!(told["layers"], serde_json::json!(["file", "admin"]));
        let entry = &told["entries"][key];
        assert_eq!(entry["final_value"], "20");
        assert_eq!(entry["layer_values"], serde_json::json!(["90", "20"]));
        assert_eq!(
            told["entries"]["ratelimit.a.b.http_filter_enabled"]["final_value"],
            "5"
        );
        assert_eq!(said("ratelimit.http_filter_enabled="), Ok(()));
        let told: serde_json::Value = serde_json::from_str(&json(&runtime).unwrap()).unwrap();
        assert_eq!(told["entries"][key]["final_value"], "90");
    }
}
