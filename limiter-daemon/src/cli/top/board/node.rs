//! The heading, and tables of what the daemon knows of blocks, the store and other nodes.

use std::time::Duration;

use super::super::rates::{Between, gauges, share};
use super::super::table::{Cell, Mood, Row};
use super::traffic::whole;
use super::{Heading, Look};
use crate::admin::blocks::BlockView;
use crate::admin::node::{FleetView, MemberView};
use crate::engine::fleet::Scope;

pub(super) fn heading(between: Between<'_>, look: &Look) -> Heading {
    let node = &look.node;
    let packets = between.counters("limiterd_xdp_packets_total", &[], "verdict");
    let limited = [
        "limiterd_local_rate_limit_total",
        "limiterd_global_rate_limit_total",
    ]
    .map(|metric| between.counters(metric, &[], "decision"))
    .iter()
    .map(|counters| counters.rate(&[], |decision| decision == "over_limit"))
    .sum();
    let store = node.store.as_ref().map(|store| {
        let fleet = if store.fleet_connected {
            "alive"
        } else {
            "last seen alive"
        };
        format!(
            "{} {}, {} nodes {fleet}",
            store.address, store.breaker, store.nodes
        )
    });
    Heading {
        name: node.name.clone(),
        version: node.version.clone(),
        ready: node.ready,
        report: node.report.clone(),
        policy: node.policy.fingerprint.clone(),
        policy_since: node.policy.in_force_since.clone(),
        store,
        requests_per_second: between.rate("limiterd_downstream_rq_total"),
        limited_per_second: limited,
        refused_per_second: between.rate("envoy_cluster_upstream_rq_pending_overflow"),
        packets_per_second: look
            .offenders
            .as_ref()
            .and_then(|_kernel| packets.rate(&[], |_any| true)),
        dropped_per_second: look
            .offenders
            .as_ref()
            .and_then(|_kernel| packets.rate(&[], |verdict| verdict == "dropped")),
        connections: whole(between.after.sum("limiterd_downstream_cx_active")),
    }
}

pub(super) fn stores(between: Between<'_>) -> Vec<Row> {
    let counters = between.counters("limiterd_store_requests_total", &["store"], "result");
    let state = gauges(between.after, "limiterd_store_state", &["store"]);
    let connections = gauges(between.after, "limiterd_store_connections", &["store"]);
    let row = |key: &Vec<&str>| {
        let well = counters.rate(key, |result| result == "ok");
        let failed = counters.rate(key, |result| result != "ok");
        let asked = well.zip(failed).map(|(well, failed)| well + failed);
        let open = state.get(key).copied().unwrap_or_default();
        let words = match open {
            open if open < 0.5 => "asked",
            open if open < 1.5 => "asked one request at a time",
            _ => "not asked: it fails",
        };
        Row {
            cells: vec![
                Cell::Text(key.concat()),
                Cell::Text(words.to_owned()),
                Cell::Rate(asked),
                Cell::Rate(failed),
                Cell::Share(share(failed, well)),
                Cell::Number(whole(connections.get(key).copied().unwrap_or_default())),
            ],
            mood: if open < 0.5 { Mood::Well } else { Mood::Bad },
        }
    };
    counters.keys().map(row).collect()
}

pub(super) fn nodes(fleet: Option<&FleetView>) -> Vec<Row> {
    let Some(fleet) = fleet else {
        return Vec::new();
    };
    let row = |node: &MemberView| {
        let mut state = vec![if node.caught_up {
            "caught up"
        } else {
            "behind"
        }];
        if node.here {
            state.push("this node");
        }
        if !fleet.connected {
            state.push("as last heard");
        }
        let bad = !node.caught_up || !fleet.connected;
        let beat = Duration::from_secs_f64(node.seconds_since_beat.clamp(0.0, 1e9));
        Row {
            cells: vec![
                Cell::Text(node.name.clone()),
                Cell::Text(node.address.clone()),
                Cell::Text(node.version.clone()),
                Cell::Text(state.join(", ")),
                Cell::Time(beat.as_secs()),
                Cell::Number(node.blocks),
            ],
            mood: if bad { Mood::Bad } else { Mood::Well },
        }
    };
    fleet.nodes.iter().map(row).collect()
}

pub(super) fn blocks(blocks: &[BlockView]) -> Vec<Row> {
    let row = |block: &BlockView| {
        let scope = match (block.scope, block.told) {
            (Scope::Node, _) => "node",
            (Scope::Fleet, Some(false)) => "fleet, not told yet",
            (Scope::Fleet, _) => "fleet",
        };
        Row {
            cells: vec![
                Cell::Text(block.cidr.clone()),
                Cell::Text(scope.to_owned()),
                Cell::Time(block.seconds_left),
                Cell::Text(block.since.clone().unwrap_or_default()),
                Cell::Text(block.by.clone()),
                Cell::Text(block.rule.clone()),
                Cell::Text(block.why.clone()),
            ],
            mood: Mood::Well,
        }
    };
    blocks.iter().map(row).collect()
}
