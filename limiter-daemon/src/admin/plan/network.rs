//! Kernel policies as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::explain as words;
use crate::policy::plan::{NetworkPolicy, Scope, SourceLimits};

#[derive(Debug, Serialize)]
pub(super) struct NetworkView {
    name: String,
    /// As `tcp/443`; an interface as `interface/eth0`.
    targets: Vec<String>,
    default: SourceLimitsView,
    rules: Vec<SourceRuleView>,
    allow: usize,
    deny: usize,
    shadow: bool,
}

#[derive(Debug, Serialize)]
struct SourceRuleView {
    name: String,
    cidrs: Vec<String>,
    limits: SourceLimitsView,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum SourceLimitsView {
    Unlimited,
    Levels(Vec<LevelView>),
}

#[derive(Debug, Serialize)]
struct LevelView {
    scope: String,
    /// Tokens of a full bucket, by unit.
    bursts: BTreeMap<&'static str, u64>,
    /// Tokens a second, by unit.
    rates: BTreeMap<&'static str, u64>,
}

impl From<&NetworkPolicy> for NetworkView {
    fn from(policy: &NetworkPolicy) -> Self {
        let ports = policy
            .ports
            .iter()
            .map(|(protocol, port)| format!("{protocol:?}/{port}").to_lowercase());
        let interfaces = policy
            .interfaces
            .iter()
            .map(|name| format!("interface/{name}"));
        let rules = policy.rules.iter().map(|rule| SourceRuleView {
            name: rule.name.clone(),
            cidrs: rule.cidrs.iter().map(ToString::to_string).collect(),
            limits: SourceLimitsView::from(&rule.limits),
        });
        Self {
            name: policy.name.clone(),
            targets: ports.chain(interfaces).collect(),
            default: SourceLimitsView::from(&policy.default),
            rules: rules.collect(),
            allow: policy.allow.len(),
            deny: policy.deny.len(),
            shadow: policy.shadow,
        }
    }
}

impl From<&SourceLimits> for SourceLimitsView {
    fn from(limits: &SourceLimits) -> Self {
        let SourceLimits::Levels(levels) = limits else {
            return Self::Unlimited;
        };
        let levels = levels.iter().map(|level| {
            let units = [
                ("connections", level.connections),
                ("packets", level.packets),
                ("bytes", level.bytes),
            ];
            let limited = || {
                units
                    .into_iter()
                    .filter_map(|(unit, limit)| Some((unit, limit?)))
            };
            let rate = |limit| u64::try_from(words::per_window(limit, 1)).unwrap_or(u64::MAX);
            LevelView {
                scope: match level.scope {
                    Scope::Listener => "listener".to_owned(),
                    Scope::Source { v4, v6 } => format!("source /{v4}, /{v6}"),
                },
                bursts: limited()
                    .map(|(unit, limit)| (unit, limit.capacity))
                    .collect(),
                rates: limited().map(|(unit, limit)| (unit, rate(limit))).collect(),
            }
        });
        Self::Levels(levels.collect())
    }
}
