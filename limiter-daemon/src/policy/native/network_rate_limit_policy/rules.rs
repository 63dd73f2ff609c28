//! Sources with limits of their own.

use std::collections::BTreeSet;

use limiter_common::policy::MAX_CLASSES;
use serde::Deserialize;

use super::Targets;
use super::buckets::{RawBucket, RawBytes};
use super::cidrs::{Meaning, Prefixes};
use super::limits::{self, RawLevel, RawLimits, RawPrefixLength, RawScope};
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{SourceLimits, SourceRule};
use crate::policy::resource;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRule {
    name: Option<At<String>>,
    #[serde(rename = "sourceCIDRs")]
    source_cidrs: At<Vec<At<String>>>,
    unlimited: Option<At<bool>>,
    scope: Option<At<RawScope>>,
    prefix_length: Option<At<RawPrefixLength>>,
    connections: Option<At<RawBucket>>,
    packets: Option<At<RawBucket>>,
    bytes: Option<At<RawBytes>>,
    levels: Option<At<Vec<At<RawLevel>>>>,
}

pub(super) fn lower(
    raw: Option<At<Vec<At<RawRule>>>>,
    targets: &Targets,
    prefixes: &mut Prefixes,
    scope: &mut Scope<'_>,
) -> Vec<SourceRule> {
    let Some(raw) = raw else {
        return Vec::new();
    };
    scope.at_most(&raw.mark, raw.len(), MAX_CLASSES as usize - 1);
    let mut names = BTreeSet::new();
    let mut rules = Vec::new();
    for (index, At { value, mark }) in raw.value.into_iter().enumerate() {
        let name = match &value.name {
            Some(name) => {
                resource::check_name(name, scope);
                name.value.clone()
            }
            None => index.to_string(),
        };
        if !names.insert(name.clone()) {
            scope.error(
                value.name.as_ref().map_or(&mark, |name| &name.mark),
                format!("a rule named `{name}` is there already"),
                "give each a name of its own; without one a rule is called by its index",
            );
        }
        rules.extend(lower_rule(name, value, &mark, targets, prefixes, scope));
    }
    rules
}

fn lower_rule(
    name: String,
    raw: RawRule,
    mark: &Mark,
    targets: &Targets,
    prefixes: &mut Prefixes,
    scope: &mut Scope<'_>,
) -> Option<SourceRule> {
    if raw.source_cidrs.is_empty() {
        scope.error(
            &raw.source_cidrs.mark,
            "no sources, so the rule applies to none",
            "name some, as `198.51.100.0/24`, or remove the rule",
        );
    }
    let mut cidrs = Vec::new();
    for cidr in &raw.source_cidrs.value {
        cidrs.extend(prefixes.take(&cidr.value, &cidr.mark, &Meaning::Rule(name.clone()), scope));
    }
    let own = RawLimits {
        scope: raw.scope,
        prefix_length: raw.prefix_length,
        connections: raw.connections,
        packets: raw.packets,
        bytes: raw.bytes,
        levels: raw.levels,
    };
    let unlimited = raw.unlimited.filter(|unlimited| unlimited.value);
    let limits = match (unlimited, own.mark()) {
        (Some(_), Some(limit)) => {
            scope.error(
                limit,
                "the rule is `unlimited` and has limits",
                "keep one of the two",
            );
            return None;
        }
        (Some(_), None) => SourceLimits::Unlimited,
        (None, Some(_)) => {
            let levels = limits::lower(own, targets, scope);
            (!levels.is_empty()).then_some(SourceLimits::Levels(levels))?
        }
        (None, None) => {
            scope.error(
                mark,
                "the rule is empty",
                "give it limits, or `unlimited: true`",
            );
            return None;
        }
    };
    Some(SourceRule {
        name,
        cidrs,
        limits,
    })
}
