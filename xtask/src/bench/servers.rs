//! The servers that are compared, and the upstream that all of them ask.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::child::Server;
use crate::cmd::Workspace;

const UPSTREAM_CONF: &str = include_str!("upstream.conf");

/// A server that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nginx,
    Haproxy,
    Envoy,
    Limiterd,
}

/// Those of a run. limiterd is the last.
pub(super) const SERVERS: [Kind; 4] = [Kind::Nginx, Kind::Haproxy, Kind::Envoy, Kind::Limiterd];

/// What each server listens for, on a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    Proxied,
    Under,
    Over,
    Distinct,
    /// With everything that a BackendTrafficPolicy may say against failing backends; limiterd's only.
    Treated,
}

pub(super) const LISTENERS: [(Listener, &str); 5] = [
    (Listener::Proxied, "@PROXIED@"),
    (Listener::Under, "@UNDER@"),
    (Listener::Over, "@OVER@"),
    (Listener::Distinct, "@DISTINCT@"),
    (Listener::Treated, "@TREATED@"),
];

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Limiterd => "limiterd",
        }
    }

    /// Its configuration, and the name of the file that it goes into.
    const fn template(self) -> (&'static str, &'static str) {
        match self {
            Self::Nginx => (include_str!("nginx.conf"), "nginx.conf"),
            Self::Haproxy => (include_str!("haproxy.cfg"), "haproxy.cfg"),
            Self::Envoy => (include_str!("envoy.yaml"), "envoy.yaml"),
            Self::Limiterd => (include_str!("policy.yaml"), "policy.yaml"),
        }
    }
}

/// Loopback ports of one run.
pub(super) struct Ports {
    pub(super) upstream: u16,
    pub(super) admin: u16,
    /// In the order of [`SERVERS`] and [`LISTENERS`].
    servers: [[u16; LISTENERS.len()]; SERVERS.len()],
}

impl Ports {
    /// Ports that nobody listens on.
    pub(super) fn free() -> Result<Self> {
        // All are held until the last is found, so that none is given twice.
        let mut held = Vec::new();
        let mut next = || -> Result<u16> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            Ok(port)
        };
        let mut servers = [[0; LISTENERS.len()]; SERVERS.len()];
        for port in servers.iter_mut().flatten() {
            *port = next()?;
        }
        Ok(Self {
            upstream: next()?,
            admin: next()?,
            servers,
        })
    }

    /// Every one of them.
    pub(super) fn all(&self) -> Vec<u16> {
        let servers = self.servers.iter().flatten().copied();
        [self.upstream, self.admin]
            .into_iter()
            .chain(servers)
            .collect()
    }

    /// Where `server` listens for `listener`.
    pub(super) fn of(&self, server: Kind, listener: Listener) -> SocketAddr {
        let server = SERVERS.iter().position(|one| *one == server);
        let listener = LISTENERS.iter().position(|(one, _)| *one == listener);
        let port = server
            .zip(listener)
            .map_or(0, |(server, listener)| self.servers[server][listener]);
        local(port)
    }

    /// Puts the ports of `server` into a template.
    fn fill(&self, server: Kind, template: &str) -> String {
        let mut text = template
            .replace("@UPSTREAM@", &self.upstream.to_string())
            .replace("@ADMIN@", &self.admin.to_string());
        for (listener, place) in LISTENERS {
            text = text.replace(place, &self.of(server, listener).port().to_string());
        }
        text
    }
}

pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Where the programs are that are not in the search path.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) limiterd: PathBuf,
    pub(super) envoy: PathBuf,
    /// `bench_http` of the tests crate.
    pub(super) client: PathBuf,
}

/// All servers of a run, on one CPU.
pub(super) struct Rivals {
    /// In the order of [`SERVERS`].
    servers: Vec<Server>,
    upstream: Server,
}

impl Rivals {
    pub(super) fn start(
        workspace: &Workspace,
        programs: &Programs,
        ports: &Ports,
        cpu: usize,
    ) -> Result<Self> {
        let dir = workspace.target_dir().join("bench-http");
        let upstream = upstream(&dir, ports.upstream, cpu)?;
        let start = |kind: Kind| {
            let (template, file) = kind.template();
            let folder = folder(dir.join(kind.name()))?;
            fs::write(folder.join(file), ports.fill(kind, template))?;
            start(kind, programs, &folder, cpu)
        };
        Ok(Self {
            servers: SERVERS.into_iter().map(start).collect::<Result<_>>()?,
            upstream,
        })
    }

    pub(super) fn all(&mut self) -> Vec<&mut Server> {
        self.servers
            .iter_mut()
            .chain([&mut self.upstream])
            .collect()
    }

    /// The process of `kind`.
    pub(super) fn server(&self, kind: Kind) -> Result<&Server> {
        let at = SERVERS.iter().position(|one| *one == kind);
        at.and_then(|at| self.servers.get(at))
            .context("no such server")
    }

    /// Ends all; that limiterd does so cleanly is asked for.
    pub(super) fn stop(mut self) -> Result<()> {
        let limiterd = self.servers.pop().context("no servers")?;
        limiterd.stop()
    }
}

/// The upstream: a process of its own, as it is to every server.
pub(super) fn upstream(dir: &Path, port: u16, cpu: usize) -> Result<Server> {
    let conf = UPSTREAM_CONF.replace("@UPSTREAM@", &port.to_string());
    let folder = folder(dir.join("upstream"))?;
    fs::write(folder.join("nginx.conf"), conf)?;
    nginx("the upstream", &folder, cpu)
}

/// Starts `kind` on the configuration in `folder`.
pub(super) fn start(kind: Kind, programs: &Programs, folder: &Path, cpu: usize) -> Result<Server> {
    let (_, file) = kind.template();
    let mut command = pinned(cpu);
    match kind {
        Kind::Nginx => return nginx(kind.name(), folder, cpu),
        Kind::Haproxy => command
            .args(["haproxy", "-db", "-f"])
            .arg(folder.join(file)),
        Kind::Envoy => command
            .arg(&programs.envoy)
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .args(["--log-level", "error", "-c"])
            .arg(folder.join(file)),
        Kind::Limiterd => command
            .arg(&programs.limiterd)
            .args(["run", "--config"])
            .arg(folder)
            .env("LIMITERD_LOG", "warn"),
    };
    Server::start(kind.name(), &mut command)
}

/// A limiterd as in the run, but for its table of buckets.
pub(super) fn start_small(
    workspace: &Workspace,
    programs: &Programs,
    ports: &Ports,
    cpu: usize,
) -> Result<Server> {
    let (template, file) = Kind::Limiterd.template();
    let text = ports.fill(Kind::Limiterd, template);
    let folder = folder(workspace.target_dir().join("bench-http/limiterd-small"))?;
    let small = text.replace("maxBuckets: 2000000", "maxBuckets: 1");
    ensure!(
        small != text,
        "policy.yaml does not say how many buckets there are"
    );
    fs::write(folder.join(file), small)?;
    start(Kind::Limiterd, programs, &folder, cpu)
}

fn nginx(name: &str, prefix: &Path, cpu: usize) -> Result<Server> {
    Server::start(
        name,
        pinned(cpu)
            .args(["nginx", "-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(prefix),
    )
}

/// A command that runs on `cpu` only.
pub(super) fn pinned(cpu: usize) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu.to_string()]);
    command
}

pub(super) fn folder(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path)?;
    Ok(path)
}
