//! `limiterd status --fleet`: the nodes that share the store.

use std::fmt::Write as _;
use std::time::Duration;

use http::Method;

use super::State;
use crate::admin::node::FleetView;
use crate::cli::client::Admin;

/// Who there is; degraded: the store does not answer.
///
/// # Errors
/// When the daemon cannot be asked, or there is no store.
pub(super) fn tell(admin: &Admin, json: bool) -> anyhow::Result<(State, String)> {
    let answer = admin.ask(Method::GET, "/fleet", None)?;
    let fleet: FleetView = serde_json::from_str(&answer)?;
    let state = if fleet.connected {
        State::Well
    } else {
        State::Degraded
    };
    let text = if json { answer } else { text(&fleet)? };
    Ok((state, text))
}

fn text(fleet: &FleetView) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    if !fleet.connected {
        let why = fleet.away.as_deref().unwrap_or("not yet");
        writeln!(out, "the store does not answer ({why}); last heard:")?;
    }
    writeln!(
        out,
        "{} nodes, {} blocks, last event {}",
        fleet.nodes.len(),
        fleet.blocks,
        fleet.last_event
    )?;
    for node in &fleet.nodes {
        let beat = Duration::from_secs_f64(node.seconds_since_beat.max(0.0));
        writeln!(
            out,
            "{} {:<24} {:<21} {:<8} since {}, beat {:.1} s ago, {} blocks, {}{}",
            node.id.get(..8).unwrap_or(&node.id),
            node.name,
            node.address,
            node.version,
            node.since,
            beat.as_secs_f64(),
            node.blocks,
            if node.caught_up {
                "caught up"
            } else {
                "behind"
            },
            if node.here { ", this node" } else { "" },
        )?;
    }
    Ok(out)
}
