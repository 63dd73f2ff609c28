//! `limiterd status`: how this node is, and with `--fleet` who else there is.

use std::io::Write;
use std::time::Duration;

use http::Method;

use super::client::Admin;
use crate::admin::node::{FleetView, NodeView};

/// What is to be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The nodes that share the store, as this one sees them.
    #[arg(long)]
    fleet: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

/// Tells it; `true`: this node is ready, or the fleet can be reached.
///
/// # Errors
/// When the daemon cannot be asked.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<bool> {
    let path = if args.fleet { "/fleet" } else { "/node" };
    let text = args.admin.ask(Method::GET, path, None)?;
    if args.fleet {
        let fleet: FleetView = serde_json::from_str(&text)?;
        if args.json {
            out.write_all(text.as_bytes())?;
        } else {
            tell_fleet(&fleet, out)?;
        }
        return Ok(fleet.connected);
    }
    let node: NodeView = serde_json::from_str(&text)?;
    if args.json {
        out.write_all(text.as_bytes())?;
    } else {
        tell_node(&node, out)?;
    }
    Ok(node.ready)
}

fn tell_node(node: &NodeView, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "{}, limiterd {}", node.name, node.version)?;
    for line in &node.report {
        writeln!(out, "{line}")?;
    }
    let policy = &node.policy;
    writeln!(
        out,
        "policy: {} of {}, since {}",
        policy.fingerprint, policy.directory, policy.in_force_since
    )?;
    match &node.store {
        None => writeln!(out, "store: none, each node counts for itself")?,
        Some(store) => {
            let breaker = match store.breaker.as_str() {
                "closed" => "asked",
                "half_open" => "asked one request at a time",
                _ => "not asked: it fails",
            };
            let fleet = if store.fleet_connected {
                "alive"
            } else {
                "last seen alive; the fleet cannot be reached"
            };
            writeln!(
                out,
                "store: {}, {breaker}, {} connections; {} nodes {fleet}",
                store.address, store.connections, store.nodes
            )?;
        }
    }
    let blocks = &node.blocks;
    writeln!(
        out,
        "blocked: {} by this node, {} by the fleet",
        blocks.node, blocks.fleet
    )?;
    Ok(())
}

fn tell_fleet(fleet: &FleetView, out: &mut impl Write) -> anyhow::Result<()> {
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
    Ok(())
}
