//! Nodes with clients on wires, and nodes without a kernel half.

use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::daemon::{Daemon, Policies, Process, binary, eventually};
use tests::netns::Netns;
use tests::policies::{GATEWAY, config, network};
use tests::redis::envoy_gateway;
use tests::topology::{Pins, Topology};

/// More connections than any test makes.
const PLENTY: &str = "  connections: {maxTokens: 100000, tokensPerFill: 1, fillInterval: 1h}\n";
/// The first client of every [`Gateway`].
pub(crate) const CLIENT: &str = "10.77.1.2";

/// Runs `limiterd` in `netns`: whether it succeeded, and what it said.
pub(crate) fn limiterd(netns: &Netns, args: &[&str]) -> Result<(bool, String)> {
    let Output {
        status,
        stdout,
        stderr,
    } = netns.enter(|| Ok(Command::new(binary()).args(args).output()?))?;
    let text = String::from_utf8(stdout)? + &String::from_utf8(stderr)?;
    Ok((status.success(), text))
}

/// The same; it must succeed.
pub(crate) fn told(netns: &Netns, args: &[&str]) -> Result<String> {
    let (well, text) = limiterd(netns, args)?;
    anyhow::ensure!(well, "{args:?}: {text}");
    Ok(text)
}

/// What `limiterd blocked` says of a network; `None`: it is not blocked.
pub(crate) fn blocked(netns: &Netns, cidr: &str) -> Result<Option<Value>> {
    let text = told(netns, &["blocked", "--json"])?;
    let all: Vec<Value> = serde_json::from_str(&text)?;
    let found: Vec<_> = all.into_iter().filter(|one| one["cidr"] == cidr).collect();
    anyhow::ensure!(found.len() < 2, "blocked twice: {text}");
    Ok(found.into_iter().next())
}

/// Waits until `cidr` is blocked, or not.
pub(crate) fn until_blocked(netns: &Netns, cidr: &str, wanted: bool) -> Result<()> {
    eventually(&format!("{cidr} to be blocked: {wanted}"), || {
        Ok((blocked(netns, cidr)?.is_some() == wanted).then_some(()))
    })
}

/// What `limiterd status --fleet` says.
pub(crate) fn fleet(netns: &Netns) -> Result<Value> {
    let (_, text) = limiterd(netns, &["status", "--fleet", "--json"])?;
    serde_json::from_str(&text).with_context(|| text)
}

/// Waits until the node in `netns` reaches the fleet, and sees so many nodes that have all caught up.
pub(crate) fn until_nodes(netns: &Netns, wanted: usize) -> Result<()> {
    eventually(&format!("{wanted} nodes"), || {
        let fleet = fleet(netns)?;
        let nodes = fleet["nodes"].as_array().context("no nodes")?;
        let up = nodes.iter().all(|node| node["caught_up"] == true);
        let well = fleet["connected"] == true && nodes.len() == wanted && up;
        Ok(well.then_some(()))
    })
}

/// A node whose kernel half is on the wires of two clients.
pub(crate) struct Gateway {
    pub(crate) topology: Topology,
    pub(crate) daemon: Option<Daemon>,
    policies: Policies,
    _pins: Pins,
}

impl Gateway {
    pub(crate) fn start(store: &str) -> Result<Self> {
        let topology = Topology::new()?;
        let pins = topology.pins();
        let interface = topology.first.gateway_interface.as_str();
        let policies = Policies::new(&[
            ("limiterd.yaml", &config(&[interface], &pins, "Keep")),
            ("gateway.yaml", GATEWAY),
            ("network.yaml", &network("edge", PLENTY)),
            ("store.yaml", &envoy_gateway(store, "timeout: 20ms")),
        ])?;
        let mut gateway = Self {
            topology,
            daemon: None,
            policies,
            _pins: pins,
        };
        gateway.run()?;
        Ok(gateway)
    }

    /// Starts the daemon (again).
    pub(crate) fn run(&mut self) -> Result<()> {
        let daemon = Daemon::start(&self.topology.gateway, self.policies.path())?;
        self.daemon = Some(daemon);
        Ok(())
    }

    pub(crate) fn take(&mut self) -> Result<Daemon> {
        self.daemon.take().context("it does not run")
    }

    /// A process that takes the place of the one that runs, which ends.
    pub(crate) fn replace(&mut self) -> Result<()> {
        let old = self.take()?;
        let successor = successor(&self.topology.gateway, &self.policies, old)?;
        self.daemon = Some(successor);
        Ok(())
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.topology.gateway
    }

    pub(crate) fn log(&self) -> String {
        let daemon = self.daemon.as_ref();
        daemon.map_or_else(String::new, |daemon| daemon.process.output())
    }

    /// The first client is let in.
    pub(crate) fn passes(&self) -> Result<()> {
        let client = &self.topology.first;
        anyhow::ensure!(
            client.let_in(8080)?,
            "the client is not let in\n{}",
            self.log()
        );
        Ok(())
    }

    fn sentenced(&self) -> Result<f64> {
        let daemon = self.daemon.as_ref().context("it does not run")?;
        let page = daemon.metrics(self.netns())?;
        Ok(page.packets("default/edge", "sentenced"))
    }

    /// Waits until packets of the first client are dropped for a sentence.
    pub(crate) fn until_dropped(&self) -> Result<()> {
        let client = &self.topology.first;
        let before = self.sentenced()?;
        eventually("a packet to be dropped", || {
            client.kept_out(8080)?;
            Ok((self.sentenced()? > before).then_some(()))
        })?;
        anyhow::ensure!(client.kept_out(8080)?, "let in");
        Ok(())
    }
}

/// A node that only has a store.
pub(crate) struct Bare {
    pub(crate) netns: Netns,
    pub(crate) daemon: Option<Daemon>,
    policies: Policies,
}

impl Bare {
    pub(crate) fn start(store: &str) -> Result<Self> {
        Self::inside(Netns::new("bare")?, store)
    }

    /// The same in a namespace where the store may be already.
    pub(crate) fn inside(netns: Netns, store: &str) -> Result<Self> {
        let policies = Policies::new(&[
            ("gateway.yaml", GATEWAY),
            ("store.yaml", &envoy_gateway(store, "timeout: 20ms")),
        ])?;
        let daemon = Daemon::start(&netns, policies.path())?;
        Ok(Self {
            netns,
            daemon: Some(daemon),
            policies,
        })
    }

    pub(crate) fn take(&mut self) -> Result<Daemon> {
        self.daemon.take().context("it does not run")
    }

    pub(crate) fn log(&self) -> String {
        let daemon = self.daemon.as_ref();
        daemon.map_or_else(String::new, |daemon| daemon.process.output())
    }

    /// A process that takes the place of the one that runs, which ends.
    pub(crate) fn replace(&mut self) -> Result<()> {
        let old = self.take()?;
        self.daemon = Some(successor(&self.netns, &self.policies, old)?);
        Ok(())
    }
}

fn successor(netns: &Netns, policies: &Policies, mut old: Daemon) -> Result<Daemon> {
    let mut command = Command::new(binary());
    command.args(["run", "--takeover", "--config"]);
    command.arg(policies.path());
    let process = Process::spawn(netns, command)?;
    anyhow::ensure!(old.process.wait()?.success(), "it does not hand over");
    Daemon::ready(netns, process)
}
