//! `rateLimits`: descriptors of requests (Envoy's `config.route.v3.RateLimit`).

use std::sync::Arc;

use serde::Deserialize;

use super::action::{self, RawAction};
use crate::policy::decode::{At, Ignored};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{DescriptorRule, HitsAddend, LimitOverride, TimeUnit};

/// More of a level are an error, as are more actions of one.
const MAX: usize = 64;
/// Envoy's bound on `hitsAddend`.
const MAX_HITS: u64 = 1_000_000_000;
pub(super) const MAX_STAGE: u32 = 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRateLimit {
    stage: Option<At<u32>>,
    #[serde(alias = "disable_key")]
    disable_key: Option<At<String>>,
    actions: Option<At<Vec<At<RawAction>>>>,
    limit: Option<At<RawOverride>>,
    #[serde(alias = "hits_addend")]
    hits_addend: Option<At<RawHits>>,
    #[serde(alias = "apply_on_stream_done")]
    apply_on_stream_done: Option<bool>,
    #[serde(alias = "x_ratelimit_option")]
    x_ratelimit_option: Option<RawHeaders>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOverride {
    #[serde(alias = "rate_limit")]
    rate_limit: Option<RawLimit>,
    #[serde(alias = "dynamic_metadata")]
    dynamic_metadata: Option<At<Ignored>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLimit {
    #[serde(alias = "requests_per_unit")]
    requests_per_unit: At<u32>,
    unit: At<RawUnit>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum RawUnit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHits {
    number: Option<At<u64>>,
    format: Option<At<Ignored>>,
    #[serde(alias = "is_negative_hits")]
    is_negative_hits: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum RawHeaders {
    Unspecified,
    Off,
    #[serde(rename = "DRAFT_VERSION_03")]
    Draft03,
}

/// Whose `rateLimits` they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Of a route, or of what it is in.
    Route,
    /// Of a filter itself: they have no stage, and no key.
    Filter,
}

/// Checks a list of them; those with errors are left out.
pub(super) fn lower(
    list: At<Vec<At<RawRateLimit>>>,
    place: Place,
    scope: &mut Scope<'_>,
) -> Vec<Arc<DescriptorRule>> {
    scope.at_most(&list.mark, list.len(), MAX);
    let lowered = list
        .value
        .into_iter()
        .filter_map(|raw| one(raw, place, scope));
    lowered.map(Arc::new).collect()
}

fn one(
    At { value: raw, mark }: At<RawRateLimit>,
    place: Place,
    scope: &mut Scope<'_>,
) -> Option<DescriptorRule> {
    if place == Place::Filter {
        let own = [
            (raw.stage.as_ref().map(|at| &at.mark), "stage"),
            (raw.disable_key.as_ref().map(|at| &at.mark), "disableKey"),
        ];
        for (mark, field) in own {
            if let Some(mark) = mark {
                let message = format!("`{field}` has no meaning in `rateLimits` of a filter");
                scope.error(mark, message, "remove it: they are all this filter's");
            }
        }
    }
    let stage = raw.stage.as_ref().map_or(Some(0), |at| stage(at, scope));
    let disable_key = match raw.disable_key {
        Some(key) => key_of_setting(&key, scope)?,
        None => String::new(),
    };
    let actions = raw.actions.filter(|actions| !actions.is_empty());
    let Some(actions) = actions else {
        scope.error(
            &mark,
            "without `actions` there is no descriptor",
            "give it at least one",
        );
        return None;
    };
    scope.at_most(&actions.mark, actions.len(), MAX);
    let actions: Vec<_> = actions
        .value
        .into_iter()
        .map(|raw| action::lower(raw, scope))
        .collect();
    Some(DescriptorRule {
        stage: stage?,
        disable_key,
        actions: actions.into_iter().collect::<Option<_>>()?,
        limit: match raw.limit {
            Some(raw) => Some(limit(raw, scope)?),
            None => None,
        },
        hits: match raw.hits_addend {
            Some(raw) => Some(hits(raw, scope)?),
            None => None,
        },
        at_the_end: raw.apply_on_stream_done.unwrap_or_default(),
        headers: match raw.x_ratelimit_option {
            None | Some(RawHeaders::Unspecified) => None,
            Some(RawHeaders::Off) => Some(false),
            Some(RawHeaders::Draft03) => Some(true),
        },
    })
}

/// A stage, or an error at it.
pub(super) fn stage(stage: &At<u32>, scope: &mut Scope<'_>) -> Option<u8> {
    if stage.value > MAX_STAGE {
        let message = format!("there is no stage {}", stage.value);
        scope.error(&stage.mark, message, format!("it may be 0 to {MAX_STAGE}"));
        return None;
    }
    u8::try_from(stage.value).ok()
}

/// It becomes a part of the name of a setting, which the admin API takes in a URL.
fn key_of_setting(key: &At<String>, scope: &mut Scope<'_>) -> Option<String> {
    const MAX: usize = 64;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if key.is_empty() || key.len() > MAX || !key.bytes().all(plain) {
        scope.error(
            &key.mark,
            format!("`{}` cannot be a part of the name of a setting", key.value),
            format!("write up to {MAX} letters, digits, `_`, `-` and `.`"),
        );
        return None;
    }
    Some(key.value.clone())
}

fn limit(At { value: raw, mark }: At<RawOverride>, scope: &mut Scope<'_>) -> Option<LimitOverride> {
    const HOW: &str = "write `rateLimit: {requestsPerUnit: 10, unit: MINUTE}`";
    if let Some(metadata) = &raw.dynamic_metadata {
        no_metadata(&metadata.mark, "a limit", HOW, scope);
        return None;
    }
    let Some(RawLimit {
        requests_per_unit: requests,
        unit,
    }) = raw.rate_limit
    else {
        scope.error(&mark, "there is no limit", HOW);
        return None;
    };
    Some(LimitOverride {
        requests: requests.value,
        unit: match unit.value {
            RawUnit::Second => TimeUnit::Second,
            RawUnit::Minute => TimeUnit::Minute,
            RawUnit::Hour => TimeUnit::Hour,
            RawUnit::Day => TimeUnit::Day,
            RawUnit::Month => TimeUnit::Month,
            RawUnit::Year => TimeUnit::Year,
            RawUnit::Week => {
                scope.error(
                    &unit.mark,
                    "the protocol cannot say a week in a limit that a request brings along",
                    "write `DAY` or `MONTH`",
                );
                return None;
            }
        },
    })
}

fn hits(At { value: raw, mark }: At<RawHits>, scope: &mut Scope<'_>) -> Option<HitsAddend> {
    if let Some(format) = &raw.format {
        scope.error(
            &format.mark,
            "`format` is not supported: there is nothing here that fills it in",
            "write a `number`",
        );
        return None;
    }
    let Some(number) = raw.number else {
        scope.error(&mark, "`hitsAddend` needs a number", "write `number: 2`");
        return None;
    };
    if number.value > MAX_HITS {
        let message = format!("{} is out of range", number.value);
        scope.error(&number.mark, message, format!("it may be 0 to {MAX_HITS}"));
        return None;
    }
    Some(HitsAddend {
        number: number.value,
        negative: raw.is_negative_hits.unwrap_or_default(),
    })
}

/// Says that there is no dynamic metadata here.
pub(super) fn no_metadata(mark: &Mark, what: &str, remedy: &str, scope: &mut Scope<'_>) {
    scope.error(
        mark,
        format!("limiterd has no metadata of requests that {what} could be in"),
        remedy,
    );
}
