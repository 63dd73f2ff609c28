//! Set-style limits: rules on descriptors whose entries are a set (`SetDescriptor` of
//! `ratelimit.api.solo.io`).

use serde::Deserialize;

use super::rate_limit::{self, RawLimit};
use crate::policy::decode::{At, NumberOrText};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{DomainLimit, SetRule};

const MAX_RULES: usize = 1_024;
const MAX_ENTRIES: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawSetDescriptor {
    simple_descriptors: Option<At<Vec<RawSimple>>>,
    rate_limit: Option<At<RawLimit>>,
    always_apply: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct RawSimple {
    key: At<String>,
    value: Option<NumberOrText>,
}

/// Checks `setDescriptors`; those with errors are left out.
pub(super) fn rules(list: At<Vec<At<RawSetDescriptor>>>, scope: &mut Scope<'_>) -> Vec<SetRule> {
    scope.at_most(&list.mark, list.len(), MAX_RULES);
    let mut rules: Vec<(SetRule, Mark)> = Vec::new();
    for At { value: raw, mark } in list.value.into_iter().take(MAX_RULES) {
        let Some(rule) = rule(raw, &mark, scope) else {
            continue;
        };
        let earlier = rules.iter().position(|(earlier, _)| covers(earlier, &rule));
        if let Some(earlier) = earlier.filter(|_| !rule.limit.always) {
            let line = rules.get(earlier).map_or(0, |(_, mark)| mark.line);
            scope.warning(
                &mark,
                format!("it never applies: the rule in line {line} is met by the same requests"),
                "put it before that one, or give it `alwaysApply: true`",
            );
        }
        rules.push((rule, mark));
    }
    rules.into_iter().map(|(rule, _)| rule).collect()
}

fn rule(raw: RawSetDescriptor, mark: &Mark, scope: &mut Scope<'_>) -> Option<SetRule> {
    let Some(limit) = raw.rate_limit else {
        let message = "without a `rateLimit` it limits nothing";
        scope.error(mark, message, "give it one, or remove it");
        return None;
    };
    let mut entries: Vec<(String, Option<String>)> = Vec::new();
    if let Some(list) = raw.simple_descriptors {
        scope.at_most(&list.mark, list.len(), MAX_ENTRIES);
        for raw in list.value {
            if raw.key.is_empty() {
                let remedy = "write the key that an action gives, as `generic_key`";
                scope.error(&raw.key.mark, "a descriptor has a key", remedy);
            }
            let value = rate_limit::text(raw.value);
            rate_limit::no_mark(&raw.key, value.as_deref(), scope);
            entries.push((raw.key.value, value));
        }
    }
    entries.sort_unstable();
    entries.dedup();
    Some(SetRule {
        entries,
        limit: DomainLimit {
            always: raw.always_apply.unwrap_or_default(),
            ..rate_limit::limit(&limit, scope)?
        },
    })
}

/// Whether every set that meets `other` meets `rule`.
fn covers(rule: &SetRule, other: &SetRule) -> bool {
    rule.entries.iter().all(|(key, value)| {
        other
            .entries
            .iter()
            .any(|(its_key, its_value)| key == its_key && (value.is_none() || value == its_value))
    })
}
