//! The servers that are compared, and the upstream that both ask.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::http::CASES;
use crate::child::Server;
use crate::cmd::Workspace;

pub(super) const NGINX: &str = "nginx";
pub(super) const LIMITERD: &str = "limiterd";

const UPSTREAM_CONF: &str = include_str!("upstream.conf");
const NGINX_CONF: &str = include_str!("nginx.conf");
const POLICY: &str = include_str!("policy.yaml");

/// Loopback ports of one run.
pub(super) struct Ports {
    upstream: u16,
    admin: u16,
    nginx: [u16; CASES.len()],
    limiterd: [u16; CASES.len()],
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
        Ok(Self {
            upstream: next()?,
            admin: next()?,
            nginx: [next()?, next()?, next()?],
            limiterd: [next()?, next()?, next()?],
        })
    }

    /// Ports of both servers, case by case.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (u16, u16)> {
        self.nginx.into_iter().zip(self.limiterd)
    }

    /// Puts the ports into a template.
    fn fill(&self, template: &str) -> String {
        let [nginx_proxied, nginx_under, nginx_over] = self.nginx;
        let [limiterd_proxied, limiterd_under, limiterd_over] = self.limiterd;
        [
            ("@UPSTREAM@", self.upstream),
            ("@ADMIN@", self.admin),
            ("@NGINX_PROXIED@", nginx_proxied),
            ("@NGINX_UNDER@", nginx_under),
            ("@NGINX_OVER@", nginx_over),
            ("@LIMITERD_PROXIED@", limiterd_proxied),
            ("@LIMITERD_UNDER@", limiterd_under),
            ("@LIMITERD_OVER@", limiterd_over),
        ]
        .iter()
        .fold(template.to_owned(), |text, (name, port)| {
            text.replace(name, &port.to_string())
        })
    }
}

/// All servers of a run, on one CPU.
pub(super) struct Rivals {
    limiterd: Server,
    nginx: Server,
    upstream: Server,
}

impl Rivals {
    pub(super) fn start(
        workspace: &Workspace,
        limiterd: &Path,
        ports: &Ports,
        cpu: usize,
    ) -> Result<Self> {
        let dir = workspace.target_dir().join("bench-http");
        // The upstream is a process of its own, as it is to limiterd.
        let upstream = nginx(
            "the upstream",
            &dir.join("upstream"),
            &ports.fill(UPSTREAM_CONF),
            cpu,
        )?;
        let nginx = nginx(NGINX, &dir.join("nginx"), &ports.fill(NGINX_CONF), cpu)?;
        let policies = folder(dir.join("policies"))?;
        fs::write(policies.join("policy.yaml"), ports.fill(POLICY))?;
        let limiterd = Server::start(
            LIMITERD,
            pinned(cpu)
                .arg(limiterd)
                .args(["run", "--config"])
                .arg(policies)
                .env("RUST_LOG", "warn"),
        )?;
        Ok(Self {
            limiterd,
            nginx,
            upstream,
        })
    }

    pub(super) fn all(&mut self) -> [&mut Server; 3] {
        [&mut self.limiterd, &mut self.nginx, &mut self.upstream]
    }

    pub(super) fn stop(self) -> Result<()> {
        self.limiterd.stop()?;
        self.nginx.stop()?;
        self.upstream.stop()
    }
}

fn nginx(name: &str, prefix: &Path, conf: &str, cpu: usize) -> Result<Server> {
    let prefix = folder(prefix.to_owned())?;
    fs::write(prefix.join("nginx.conf"), conf)?;
    Server::start(
        name,
        pinned(cpu)
            .args(["nginx", "-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(prefix),
    )
}

fn pinned(cpu: usize) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu.to_string()]);
    command
}

fn folder(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path)?;
    Ok(path)
}
