//! A Redis Cluster of a test's own, in a network namespace that others may have a way to.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use limiter_daemon::policy::plan::{StoreAddress, StoreHost};

use crate::daemon::eventually;
use crate::netns::Netns;
use crate::redis::Redis;

/// Where the servers are, in their namespace and for those that have a way to it.
pub const ADDRESS: &str = "10.77.0.1";
const FIRST_PORT: u16 = 7000;

/// The servers. The first half or all of them are masters.
#[derive(Debug)]
pub struct RedisCluster {
    pub servers: Vec<Redis>,
    pub netns: Netns,
}

impl RedisCluster {
    /// Starts so many masters, each with so many replicas, and waits until all agree.
    ///
    /// # Errors
    /// When they do not.
    pub fn start(masters: u16, replicas: u16) -> Result<Self> {
        Self::start_with(masters, replicas, &["--port"], &[], &[])
    }

    /// The same with more settings, those that a port is for last, and arguments of `redis-cli`.
    ///
    /// # Errors
    /// As [`RedisCluster::start`].
    pub fn start_with(
        masters: u16,
        replicas: u16,
        own_port: &[&str],
        more: &[&str],
        cli: &[&str],
    ) -> Result<Self> {
        let netns = Netns::new("cluster")?;
        netns.ip(&["addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"])?;
        let count = masters * (1 + replicas);
        let mut servers = Vec::new();
        for port in FIRST_PORT..FIRST_PORT + count {
            let port = port.to_string();
            let settings = [
                "--bind",
                ADDRESS,
                "--protected-mode",
                "no",
                "--cluster-enabled",
                "yes",
                "--cluster-announce-ip",
                ADDRESS,
                "--cluster-node-timeout",
                "1000",
                "--cluster-replica-validity-factor",
                "0",
                "--repl-diskless-sync-delay",
                "0",
            ];
            let mut server = Redis::absent(&[&settings, more, own_port, &[&port]].concat())?;
            server.begin(&netns)?;
            servers.push(server);
        }
        let cluster = Self { servers, netns };
        let mut create = vec!["--cluster".to_owned(), "create".to_owned()];
        create.extend((0..count).map(|index| Self::address(usize::from(index))));
        let replicas = replicas.to_string();
        create.extend(["--cluster-replicas", &replicas, "--cluster-yes"].map(str::to_owned));
        let output = cluster
            .netns
            .enter(|| Ok(Command::new("redis-cli").args(cli).args(&create).output()?))?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stdout));
        }
        eventually("the cluster to agree", || {
            let agrees = |server: &Redis| -> Result<bool> {
                let info = server.ask(&["CLUSTER", "INFO"])?;
                let nodes = format!("cluster_known_nodes:{count}");
                let slots = server.ask(&["CLUSTER", "NODES"])?;
                let replicas = slots.matches("slave").count();
                Ok(info.contains("cluster_state:ok")
                    && info.contains(&nodes)
                    && replicas == usize::from(count - masters))
            };
            let all: Vec<bool> = cluster.servers.iter().map(agrees).collect::<Result<_>>()?;
            Ok(all.iter().all(|agrees| *agrees).then_some(()))
        })?;
        Ok(cluster)
    }

    fn address(server: usize) -> String {
        format!("{ADDRESS}:{}", usize::from(FIRST_PORT) + server)
    }

    /// The URL, which names the first three servers.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<String> = (0..self.servers.len().min(3)).map(Self::address).collect();
        hosts.join(",")
    }

    /// The same, for whoever is in the servers' own namespace.
    #[must_use]
    pub fn store(&self) -> StoreAddress {
        let ports = (FIRST_PORT..).take(self.servers.len().min(3));
        let host = |port| StoreHost {
            host: ADDRESS.to_owned(),
            port,
        };
        StoreAddress::Cluster(ports.map(host).collect())
    }

    /// A namespace with a way to the servers; `number` differs for each.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn neighbour(&self, number: u8) -> Result<Netns> {
        let netns = Netns::new("node")?;
        let link = format!("to{number}");
        self.netns.ip(&[
            "link",
            "add",
            &link,
            "type",
            "veth",
            "peer",
            "name",
            "up0",
            "netns",
            netns.name(),
        ])?;
        let ours = format!("10.78.{number}.1");
        self.netns
            .ip(&["addr", "add", &format!("{ours}/24"), "dev", &link])?;
        self.netns.ip(&["link", "set", &link, "up"])?;
        netns.ip(&["addr", "add", &format!("10.78.{number}.2/24"), "dev", "up0"])?;
        netns.ip(&["link", "set", "up0", "up"])?;
        netns.ip(&["route", "add", ADDRESS, "via", &ours])?;
        Ok(netns)
    }

    /// Which server is the master of `slot`, as the server `asked` says.
    ///
    /// # Errors
    /// When it does not say.
    pub fn owner(&self, asked: usize, slot: u16) -> Result<usize> {
        for line in self.servers[asked].ask(&["CLUSTER", "NODES"])?.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let has = |range: &&str| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let number = |text: &str| text.parse::<u16>().ok();
                number(first)
                    .zip(number(last))
                    .is_some_and(|(first, last)| (first..=last).contains(&slot))
            };
            if fields.len() > 8 && fields[8..].iter().any(has) {
                let place = fields[1].split('@').next().unwrap_or_default();
                let server = (0..self.servers.len()).find(|index| Self::address(*index) == place);
                return server.with_context(|| place.to_owned());
            }
        }
        bail!("nobody has {slot}")
    }

    /// The id of a server.
    ///
    /// # Errors
    /// When it does not say.
    pub fn id(&self, server: usize) -> Result<String> {
        self.servers[server].ask(&["CLUSTER", "MYID"])
    }

    /// All keys, with the server that has them as a master.
    ///
    /// # Errors
    /// When one does not say.
    pub fn keys(&self) -> Result<Vec<(usize, String)>> {
        let mut all = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            if server.ask(&["ROLE"])?.starts_with("master") {
                all.extend(server.keys()?.into_iter().map(|key| (index, key)));
            }
        }
        Ok(all)
    }

    /// The slot of the one key that has `part` in its name, the server that has it, and the key.
    ///
    /// # Errors
    /// When there is no such key, or another too.
    pub fn find(&self, part: &str) -> Result<(u16, usize, String)> {
        let mut keys = self.keys()?;
        keys.retain(|(_, key)| key.contains(part));
        let [(server, key)] = &keys[..] else {
            bail!("not one key of {part}: {keys:?}");
        };
        let slot = self.servers[*server].ask(&["CLUSTER", "KEYSLOT", key])?;
        Ok((slot.parse()?, *server, key.clone()))
    }

    /// Begins to move `slot`.
    ///
    /// # Errors
    /// When a server does not.
    pub fn begin_moving(&self, slot: u16, (from, to): (usize, usize)) -> Result<()> {
        let slot = slot.to_string();
        let importing = ["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)?];
        self.servers[to].ask(&importing)?;
        let migrating = ["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)?];
        self.servers[from].ask(&migrating).map(drop)
    }

    /// Moves one key.
    ///
    /// # Errors
    /// When it is not moved.
    pub fn move_key(&self, key: &str, (from, to): (usize, usize)) -> Result<()> {
        let port = (usize::from(FIRST_PORT) + to).to_string();
        let answer = self.servers[from].ask(&["MIGRATE", ADDRESS, &port, key, "0", "5000"])?;
        if answer != "OK" {
            bail!("{key}: {answer}");
        }
        Ok(())
    }

    /// Ends moving `slot`: all masters are told.
    ///
    /// # Errors
    /// When one does not take it.
    pub fn end_moving(&self, slot: u16, (from, to): (usize, usize)) -> Result<()> {
        let (slot, id) = (slot.to_string(), self.id(to)?);
        for server in [to, from] {
            self.servers[server].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &id])?;
        }
        Ok(())
    }
}
