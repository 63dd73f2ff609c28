//! `escalation`: which offences get an address sentenced, and to what.

use std::time::Duration;

use limiter_common::Limit;
use serde::Deserialize;

use super::buckets::{RawBucket, lower_bucket};
use super::limits::{RawPrefixLength, by_source};
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{self, Offence, Reach, Terms};
use crate::policy::units;

const BLOCK_FOR: Duration = Duration::from_secs(60);
const MAX_BLOCK: Duration = Duration::from_secs(24 * 3_600);
const DECAY: Duration = Duration::from_secs(3_600);
const GROWTH: f64 = 2.0;
const MAX_GROWTH: f64 = 100.0;
/// As long as a block by hand may be.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3_600);
/// The kernel looks at a clock of this grain.
const SHORTEST: Duration = Duration::from_secs(1);
const MAX_STATUSES: usize = 32;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawEscalation {
    events: At<Vec<At<RawEvent>>>,
    threshold: At<RawBucket>,
    block_for: Option<At<String>>,
    growth: Option<At<f64>>,
    max_block: Option<At<String>>,
    decay: Option<At<String>>,
    prefix_length: Option<At<RawPrefixLength>>,
    scope: Option<RawReach>,
    shadow: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: At<RawOffence>,
    statuses: Option<At<Vec<At<u16>>>>,
    tokens: Option<At<u32>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum RawOffence {
    RateLimited,
    MalformedRequest,
    TlsHandshakeFailed,
    SlowClient,
    UpstreamStatus,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum RawReach {
    Node,
    Fleet,
}

/// An escalation, checked by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Escalation {
    costs: [u32; Offence::ALL.len()],
    statuses: Vec<(u16, u32)>,
    threshold: Limit,
    v4: u8,
    v6: u8,
    terms: Terms,
    reach: Reach,
    /// Whether it is said so.
    pub(crate) fleet: bool,
    shadow: bool,
    pub(crate) mark: Mark,
}

impl Escalation {
    /// That of the policy `policy`, on these TCP ports.
    pub(crate) fn on(&self, policy: String, ports: Vec<u16>) -> plan::Escalation {
        plan::Escalation {
            policy,
            ports,
            costs: self.costs,
            statuses: self.statuses.clone(),
            threshold: self.threshold,
            v4: self.v4,
            v6: self.v6,
            terms: self.terms,
            reach: self.reach,
            shadow: self.shadow,
        }
    }
}

/// Checks an escalation; `None` after an error.
pub(crate) fn lower(raw: At<RawEscalation>, scope: &mut Scope<'_>) -> Option<Escalation> {
    let At { value: raw, mark } = raw;
    let threshold = lower_bucket(&raw.threshold, scope);
    let counted = events(&raw.events, threshold, scope);
    let terms = terms(&raw, scope);
    let lengths = by_source(raw.prefix_length.as_ref(), scope);
    let (Some(plan::Scope::Source { v4, v6 }), Some((costs, statuses))) = (lengths, counted) else {
        return None;
    };
    Some(Escalation {
        costs,
        statuses,
        threshold: threshold?,
        v4,
        v6,
        terms: terms?,
        reach: match raw.scope {
            Some(RawReach::Node) => Reach::Node,
            Some(RawReach::Fleet) | None => Reach::Fleet,
        },
        fleet: matches!(raw.scope, Some(RawReach::Fleet)),
        shadow: raw.shadow.unwrap_or_default(),
        mark,
    })
}

/// What each offence costs, and each status.
type Costs = ([u32; Offence::ALL.len()], Vec<(u16, u32)>);

fn events(
    raw: &At<Vec<At<RawEvent>>>,
    threshold: Option<Limit>,
    scope: &mut Scope<'_>,
) -> Option<Costs> {
    let before = scope.errors();
    let (mut costs, mut statuses) = ([0; Offence::ALL.len()], Vec::new());
    if raw.is_empty() {
        scope.error(
            &raw.mark,
            "no events, so nobody would ever be sentenced",
            "name at least one, as `type: RateLimited`, or remove `escalation`",
        );
    }
    for event in &raw.value {
        let tokens = tokens(event.tokens.as_ref(), threshold, scope);
        let offence = match event.kind.value {
            RawOffence::RateLimited => Offence::RateLimited,
            RawOffence::MalformedRequest => Offence::MalformedRequest,
            RawOffence::TlsHandshakeFailed => Offence::TlsHandshakeFailed,
            RawOffence::SlowClient => Offence::SlowClient,
            RawOffence::UpstreamStatus => {
                lower_statuses(event, tokens, &mut statuses, scope);
                continue;
            }
        };
        if let Some(statuses) = &event.statuses {
            scope.error(
                &statuses.mark,
                format!("{} has no status", offence.name()),
                "remove `statuses`, or write `type: UpstreamStatus`",
            );
        }
        let cost = &mut costs[offence as usize];
        if *cost != 0 {
            scope.error(
                &event.kind.mark,
                format!("{} stands here already", offence.name()),
                "keep one of the two",
            );
        }
        *cost = tokens;
    }
    statuses.sort_unstable();
    (scope.errors() == before).then_some((costs, statuses))
}

fn lower_statuses(
    event: &At<RawEvent>,
    tokens: u32,
    statuses: &mut Vec<(u16, u32)>,
    scope: &mut Scope<'_>,
) {
    let Some(raw) = event.statuses.as_ref().filter(|raw| !raw.is_empty()) else {
        scope.error(
            &event.mark,
            "no statuses, so no response would count",
            "name them, as `statuses: [401, 403]`",
        );
        return;
    };
    scope.at_most(&raw.mark, raw.len(), MAX_STATUSES);
    for status in &raw.value {
        if !(200..=599).contains(&status.value) {
            scope.error(
                &status.mark,
                format!("{} is no status of a response", status.value),
                "they go from 200 to 599",
            );
        } else if statuses.iter().any(|(other, _)| *other == status.value) {
            scope.error(
                &status.mark,
                format!("{} stands here already", status.value),
                "keep one of the two",
            );
        } else {
            statuses.push((status.value, tokens));
        }
    }
}

fn tokens(tokens: Option<&At<u32>>, threshold: Option<Limit>, scope: &mut Scope<'_>) -> u32 {
    let Some(tokens) = tokens else { return 1 };
    let most = threshold.map_or(u64::MAX, |threshold| threshold.capacity);
    if tokens.value == 0 {
        scope.error(
            &tokens.mark,
            "an event of 0 tokens would not count",
            "write 1 or more, or remove the event",
        );
    } else if u64::from(tokens.value) > most {
        scope.error(
            &tokens.mark,
            format!("the threshold holds {most}, so the first such event would be one too many"),
            "write fewer, or a larger `threshold.maxTokens`",
        );
    }
    tokens.value
}

fn terms(raw: &RawEscalation, scope: &mut Scope<'_>) -> Option<Terms> {
    let block_for = length(raw.block_for.as_ref(), BLOCK_FOR, scope);
    let max_block = length(raw.max_block.as_ref(), MAX_BLOCK, scope);
    let decay = match &raw.decay {
        None => Some(DECAY),
        Some(text) => units::positive_duration(text, scope),
    };
    let growth = growth(raw.growth.as_ref(), scope);
    let (block_for, mut max_block) = (block_for?, max_block?);
    if block_for > max_block {
        match (&raw.max_block, &raw.block_for) {
            // Whoever says how long, and not how long at most, means what is said.
            (None, _) => max_block = block_for,
            (Some(text), _) => {
                scope.error(
                    &text.mark,
                    "`maxBlock` is shorter than `blockFor`",
                    "write at least as long a time, or a shorter `blockFor`",
                );
                return None;
            }
        }
    }
    Some(Terms {
        block_for,
        growth: growth?,
        max_block,
        decay: decay?,
    })
}

fn length(text: Option<&At<String>>, default: Duration, scope: &mut Scope<'_>) -> Option<Duration> {
    let Some(text) = text else {
        return Some(default);
    };
    let found = units::positive_duration(text, scope)?;
    if (SHORTEST..=LONGEST).contains(&found) {
        return Some(found);
    }
    scope.error(
        &text.mark,
        format!("`{}` is out of range", text.value),
        "it may be 1s to 8784h (366 days)",
    );
    None
}

/// In thousandths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is 1 to 100"
)]
fn growth(growth: Option<&At<f64>>, scope: &mut Scope<'_>) -> Option<u32> {
    let value = growth.map_or(GROWTH, |growth| growth.value);
    if (1.0..=MAX_GROWTH).contains(&value) {
        return Some((value * 1_000.0).round() as u32);
    }
    if let Some(at) = growth {
        scope.error(
            &at.mark,
            format!("{value} is out of range"),
            "it may be 1 (sentences stay as long) to 100",
        );
    }
    None
}
