//! `NetworkRateLimitPolicy`: limits by source, enforced in the kernel.

mod buckets;
mod cidrs;
pub(crate) mod escalation;
pub(crate) mod limits;
mod list_file;
mod rules;
mod targets;

use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{SourceLimits, SourceRule, Written};
use crate::policy::resource::Meta;
use buckets::{RawBucket, RawBytes};
pub(crate) use cidrs::MAX_CIDRS_OF_ALL;
use cidrs::{List, Prefixes};
use escalation::{Escalation, RawEscalation};
use limits::{RawLevel, RawLimits, RawPrefixLength, RawScope};
use rules::RawRule;
pub(crate) use targets::{Port, Target, Targets};
use targets::{RawPort, RawTarget};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawNetworkRateLimitPolicy {
    target_refs: Option<At<Vec<At<RawTarget>>>>,
    ports: Option<At<Vec<At<RawPort>>>>,
    scope: Option<At<RawScope>>,
    prefix_length: Option<At<RawPrefixLength>>,
    connections: Option<At<RawBucket>>,
    packets: Option<At<RawBucket>>,
    bytes: Option<At<RawBytes>>,
    levels: Option<At<Vec<At<RawLevel>>>>,
    rules: Option<At<Vec<At<RawRule>>>>,
    allow: Option<At<Vec<At<String>>>>,
    allow_file: Option<At<String>>,
    deny: Option<At<Vec<At<String>>>>,
    deny_file: Option<At<String>>,
    shadow: Option<bool>,
    escalation: Option<At<RawEscalation>>,
}

/// A NetworkRateLimitPolicy, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct NetworkLimit {
    pub(crate) meta: Meta,
    pub(crate) targets: Targets,
    pub(crate) default: SourceLimits,
    pub(crate) rules: Vec<SourceRule>,
    pub(crate) allow: Vec<IpNet>,
    pub(crate) deny: Vec<IpNet>,
    pub(crate) shadow: bool,
    pub(crate) escalation: Option<Escalation>,
    pub(crate) mark: Mark,
    pub(crate) written: Option<Arc<Written>>,
}

impl NetworkLimit {
    /// CIDRs in its rules and lists.
    pub(crate) fn cidrs(&self) -> usize {
        let in_rules: usize = self.rules.iter().map(|rule| rule.cidrs.len()).sum();
        in_rules + self.allow.len() + self.deny.len()
    }

    /// Sources that may do different things.
    pub(crate) fn classes(&self) -> usize {
        1 + self.rules.len()
    }
}

/// Checks a NetworkRateLimitPolicy.
pub(crate) fn lower(
    raw: At<RawNetworkRateLimitPolicy>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> NetworkLimit {
    let At { value: raw, mark } = raw;
    let targets = targets::lower(raw.target_refs, raw.ports, &mark, &meta, scope);
    let short = RawLimits {
        scope: raw.scope,
        prefix_length: raw.prefix_length,
        connections: raw.connections,
        packets: raw.packets,
        bytes: raw.bytes,
        levels: raw.levels,
    };
    let limited = short.any();
    let default = match limits::lower(short, &targets, scope) {
        levels if levels.is_empty() => SourceLimits::Unlimited,
        levels => SourceLimits::Levels(levels),
    };
    let mut prefixes = Prefixes::default();
    let rules = rules::lower(raw.rules, &targets, &mut prefixes, scope);
    let allow = List::allow(raw.allow, raw.allow_file).lower(&meta, &mut prefixes, scope);
    let denied = raw.deny.as_ref().is_some_and(|deny| !deny.is_empty()) || raw.deny_file.is_some();
    let deny = List::deny(raw.deny, raw.deny_file).lower(&meta, &mut prefixes, scope);
    let ruled = rules
        .iter()
        .any(|rule| rule.limits != SourceLimits::Unlimited);
    let escalates = raw.escalation.is_some();
    let escalation = raw.escalation.and_then(|raw| escalation::lower(raw, scope));
    if !limited && !ruled && !denied && !escalates {
        scope.warning(
            &mark,
            "neither limits nor `deny`, so the policy drops nothing",
            "give it `connections`, `packets`, `bytes`, `levels` or `escalation`, or remove it",
        );
    }
    NetworkLimit {
        meta,
        targets,
        default,
        rules,
        allow,
        deny,
        shadow: raw.shadow.unwrap_or_default(),
        escalation,
        written: scope.written(&mark),
        mark,
    }
}
