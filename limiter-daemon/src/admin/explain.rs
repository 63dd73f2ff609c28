//! How the kernel half treats a source, in words.

use std::fmt::Write as _;
use std::net::IpAddr;

use limiter_common::{Limit, Unit};

use crate::l4::{BucketState, Explanation, Place, PolicyState, Standing};

const SECOND: u64 = 1_000_000_000;

/// Tells what decides over packets of `source` at `now`.
pub(super) fn tell(source: IpAddr, explanation: &Explanation, now: u64) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _infallible = write(source, explanation, now, &mut text);
    text
}

fn write(
    source: IpAddr,
    explanation: &Explanation,
    now: u64,
    text: &mut String,
) -> std::fmt::Result {
    let Some(policy) = &explanation.policy else {
        return writeln!(text, "{source}: passes; no policy targets this destination");
    };
    let verdict = verdict(policy, explanation.sentenced_until);
    writeln!(text, "{source}: {verdict}")?;
    writeln!(text, "policy    {}", policy.name)?;
    match &policy.standing {
        Standing::Allowed => writeln!(text, "standing  on the allow list")?,
        Standing::Denied => writeln!(text, "standing  on the deny list")?,
        Standing::Limited { rule: None } => {
            writeln!(text, "standing  under the policy's default limits")?;
        }
        Standing::Limited { rule: Some(rule) } => {
            writeln!(text, "standing  under the limits of rule {rule}")?;
        }
    }
    if let Some(until) = explanation.sentenced_until {
        let left = until.saturating_sub(now).div_ceil(SECOND);
        writeln!(text, "sentence  {left} s left")?;
    }
    for bucket in &policy.buckets {
        write_bucket(bucket, text)?;
    }
    Ok(())
}

fn verdict(policy: &PolicyState, sentenced_until: Option<u64>) -> &'static str {
    let empty = policy.buckets.iter().any(|bucket| !bucket.admits);
    let (drops, why) = match policy.standing {
        Standing::Allowed => (false, "passes; it is on the allow list"),
        Standing::Denied => (true, "is dropped; it is on the deny list"),
        Standing::Limited { .. } if sentenced_until.is_some() => {
            (true, "is dropped; it serves a sentence")
        }
        Standing::Limited { .. } if empty => (true, "is dropped where its bucket is empty"),
        Standing::Limited { .. } => (false, "passes; its buckets have tokens"),
    };
    if drops && policy.shadow {
        "passes, for the policy is in shadow mode; it would be dropped"
    } else {
        why
    }
}

fn write_bucket(bucket: &BucketState, text: &mut String) -> std::fmt::Result {
    let unit = unit(bucket.unit);
    let place = match bucket.place {
        Place::Table => "in the table",
        Place::Sketch => "in the sketch, shared with other sources",
        Place::Nowhere => "not in use",
    };
    let shared = IpAddr::from(bucket.source.octets()).to_canonical();
    let empty = if bucket.admits { "" } else { ", EMPTY" };
    writeln!(
        text,
        "level {}   {unit}: {} of {} tokens left{empty}, {} a second; bucket of {shared}, {place}",
        bucket.level,
        bucket.remaining,
        bucket.limit.capacity,
        rate(bucket.limit),
    )
}

/// What a unit is called, as in policy files.
pub(super) const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Connections => "connections",
        Unit::Packets => "packets",
        Unit::Bytes => "bytes",
    }
}

/// Tokens a second, to three places.
fn rate(limit: Limit) -> String {
    let scaled = (1_000_000_000_000_u128 << limit.shift) / u128::from(limit.interval.max(1));
    format!("{}.{:03}", scaled / 1000, scaled % 1000)
}
