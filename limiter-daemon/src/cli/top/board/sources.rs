//! The table of who is denied: sources whose packets the kernel drops, and clients whose requests
//! limits deny.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::super::table::{Cell, Mood, Row};
use crate::admin::blocks::BlockView;
use crate::admin::l4::OffenderView;
use crate::admin::offenders::LimitedView;

pub(super) fn sources(
    dropped: &[OffenderView],
    limited: &[LimitedView],
    blocks: &[BlockView],
) -> Vec<Row> {
    let dropped = dropped.iter().map(|one| of_drops(one, blocks));
    let limited = limited.iter().map(|one| of_denials(one, blocks));
    dropped.chain(limited).collect()
}

fn of_drops(one: &OffenderView, blocks: &[BlockView]) -> Row {
    let state = blocked(blocks, IpNet::from(one.source)).unwrap_or_else(|| {
        let shadow = if one.shadow { " (shadow)" } else { "" };
        format!("{}{shadow}", one.reason)
    });
    let tokens = one.tightest.as_ref().filter(|bucket| bucket.capacity > 0);
    let now = one.drops_per_second > 0;
    Row {
        cells: vec![
            Cell::Text(one.source.to_string()),
            Cell::Rate(Some(one.drops_per_second as f64)),
            Cell::Text(state),
            Cell::Share(tokens.map(|it| it.remaining as f64 / it.capacity as f64)),
            Cell::Number(u64::from(one.port)),
            Cell::Time(one.seconds_ago),
            Cell::Text(one.policy.clone()),
        ],
        mood: if now { Mood::Busy } else { Mood::Well },
    }
}

fn of_denials(one: &LimitedView, blocks: &[BlockView]) -> Row {
    /// Who has not been denied for so long is not what goes on.
    const SECONDS: u64 = 5;
    let net = one.client.parse::<IpAddr>().map(IpNet::from);
    let net = net.or_else(|_a_net| one.client.parse::<IpNet>());
    let blocked = net.ok().and_then(|net| blocked(blocks, net));
    let state = blocked.unwrap_or_else(|| match one.route.as_str() {
        "" => "denied requests".to_owned(),
        route => format!("denied requests on {route}"),
    });
    let now = one.seconds_ago < SECONDS;
    Row {
        cells: vec![
            Cell::Text(one.client.clone()),
            Cell::Rate(Some(one.limited_per_second)),
            Cell::Text(state),
            Cell::Share(None),
            Cell::Rate(None),
            Cell::Time(one.seconds_ago),
            Cell::Text(match one.rule.as_str() {
                "" => "rate limit service".to_owned(),
                rule => rule.to_owned(),
            }),
        ],
        mood: if now { Mood::Busy } else { Mood::Well },
    }
}

/// For how long all of `net` is blocked.
fn blocked(blocks: &[BlockView], net: IpNet) -> Option<String> {
    let covers = |block: &&BlockView| {
        let blocked = block.cidr.parse::<IpNet>();
        blocked.is_ok_and(|blocked| blocked.contains(&net))
    };
    let left = Duration::from_secs(blocks.iter().find(covers)?.seconds_left);
    Some(format!("blocked for {}", humantime::format_duration(left)))
}
