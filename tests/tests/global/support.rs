//! Nodes: a daemon and a backend each, in network namespaces of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, anyhow};
use tests::daemon::{Process, binary, demo_backend, eventually};
use tests::http_client::{count, gets};
use tests::netns::Netns;
use tests::policies::{GATEWAY, limited_host};
use tests::redis::envoy_gateway;
use tests::scene::Scene;
use tests::tls::Authority;

/// A budget that no machine is too busy for: what is tested is the count.
pub(crate) const PATIENT: &str = "timeout: 20s";

/// Ten a day for all, on the host `ten`.
pub(crate) fn ten() -> String {
    limited_host(
        "ten",
        "global: {rules: [{limit: {requests: 10, unit: Day}}]}",
    )
}

/// A server's settings of TLS, as `localhost`, with its files in `dir`.
pub(crate) fn tls_files(authority: &Authority, dir: &Path) -> Result<[(&'static str, String); 3]> {
    let [chain, key] = authority.pair("localhost")?;
    let write = |setting, name, pem: String| {
        let path = dir.join(name);
        std::fs::write(&path, pem)?;
        anyhow::Ok((setting, path.display().to_string()))
    };
    Ok([
        write("tls-cert-file", "chain.pem", chain)?,
        write("tls-key-file", "key.pem", key)?,
        write("tls-ca-cert-file", "ca.pem", authority.pem())?,
    ])
}

/// The same as arguments.
pub(crate) fn tls_arguments(settings: &[(&str, String)]) -> Vec<String> {
    let each = settings.iter();
    each.flat_map(|(name, value)| [format!("--{name}"), value.clone()])
        .collect()
}

/// A node.
pub(crate) struct Node {
    pub(crate) scene: Scene,
    _backend: Process,
}

impl Node {
    /// A node with the store at `url`.
    pub(crate) fn start(url: &str, more: &str, policies: &str) -> Result<Self> {
        Self::with(&envoy_gateway(url, more), policies)
    }

    /// A node with these settings of its store.
    pub(crate) fn with(store: &str, policies: &str) -> Result<Self> {
        Self::inside(Netns::new("node")?, store, policies)
    }

    /// The same in a namespace where the store may be already.
    pub(crate) fn inside(netns: Netns, store: &str, policies: &str) -> Result<Self> {
        Self::by(Command::new(binary()), netns, store, policies)
    }

    /// The same by `limiterd`, a command that takes its arguments.
    pub(crate) fn by(limiterd: Command, netns: Netns, store: &str, policies: &str) -> Result<Self> {
        let backend = demo_backend(&netns)?;
        let files = [
            ("gateway.yaml", GATEWAY),
            ("store.yaml", store),
            ("policies.yaml", policies),
        ];
        Ok(Self {
            scene: Scene::start_by(limiterd, netns, &files)?,
            _backend: backend,
        })
    }

    /// How many of so many requests at once were answered with 200, 429 and 500.
    pub(crate) fn burst(&self, host: &str, requests: usize) -> Result<[usize; 3]> {
        let host = format!("{host}.test");
        let headers = [("host", host.as_str())];
        let answers = self
            .scene
            .netns
            .enter(|| gets("http://127.0.0.1:8080/", &headers, requests))?;
        let counts = [200, 429, 500].map(|status| count(&answers, status));
        assert_eq!(counts.iter().sum::<usize>(), requests, "{counts:?}");
        Ok(counts)
    }

    pub(crate) fn asked(&self, result: &str) -> Result<f64> {
        let labels = [("result", result)];
        let page = self.scene.metrics()?;
        Ok(page.sum("limiterd_store_requests_total", &labels))
    }

    /// Questions that got no answer in time, or were not asked.
    pub(crate) fn unanswered(&self) -> Result<f64> {
        let results = ["timeout", "disconnected", "not_asked", "error"];
        results.iter().map(|result| self.asked(result)).sum()
    }

    pub(crate) fn without(&self, mode: &str) -> Result<f64> {
        let page = self.scene.metrics()?;
        let name = "limiterd_store_failure_decisions_total";
        Ok(page.sum(name, &[("mode", mode)]))
    }

    /// Requests that were answered from what is remembered of keys over their limit.
    pub(crate) fn remembered(&self) -> Result<f64> {
        let page = self.scene.metrics()?;
        let name = "limiterd_store_over_limit_memory_total";
        Ok(page.sum(name, &[("result", "answered")]))
    }

    /// 0: the store is asked, 1: now and then, 2: not at all.
    pub(crate) fn state(&self) -> Result<f64> {
        Ok(self.scene.metrics()?.sum("limiterd_store_state", &[]))
    }
}

/// Sends requests to `host` until the store is asked again.
pub(crate) fn recovered(node: &Node, host: &str) -> Result<()> {
    eventually("the store to be asked again", || {
        let answered = node.asked("ok")?;
        node.burst(host, 1)?;
        let well = node.state()? == 0.0 && node.asked("ok")? > answered;
        Ok(well.then_some(()))
    })
}

/// How many of so many requests of a user at once were answered with 200, 429 and 500: all are, and
/// within what clients here wait.
pub(crate) fn user(node: &Node, host: &str, user: &str, requests: usize) -> Result<[usize; 3]> {
    let host = format!("{host}.test");
    let headers = [("host", host.as_str()), ("x-user", user)];
    let answers = node
        .scene
        .netns
        .enter(|| gets("http://127.0.0.1:8080/", &headers, requests))?;
    let counts = [200, 429, 500].map(|status| count(&answers, status));
    assert_eq!(counts.iter().sum::<usize>(), requests, "{counts:?}");
    Ok(counts)
}

/// Does `work` while users ask, and goes on until the store has counted for some time again; what
/// became of each user's requests.
pub(crate) fn under_load(
    node: &Node,
    host: &str,
    names: &[String],
    work: impl FnOnce() -> Result<()>,
) -> Result<BTreeMap<String, [usize; 3]>> {
    let over = AtomicBool::new(false);
    let load = |names: &[String]| -> Result<BTreeMap<String, [usize; 3]>> {
        let mut seen: BTreeMap<String, [usize; 3]> = BTreeMap::new();
        while !over.load(Ordering::Relaxed) {
            for name in names {
                let counts = user(node, host, name, 2)?;
                let sums = seen.entry(name.clone()).or_default();
                *sums = [0, 1, 2].map(|index| sums[index] + counts[index]);
            }
        }
        Ok(seen)
    };
    let counted = |more: f64| {
        let before = node.asked("ok")?;
        eventually("some load", || {
            Ok((node.asked("ok")? >= before + more).then_some(()))
        })
    };
    thread::scope(|scope| {
        let (first, second) = names.split_at(names.len() / 2);
        let clients = [scope.spawn(|| load(first)), scope.spawn(|| load(second))];
        let result = counted(20.0)
            .and_then(|()| work())
            .and_then(|()| counted(200.0));
        over.store(true, Ordering::Relaxed);
        let mut seen = BTreeMap::new();
        for client in clients {
            seen.extend(
                client
                    .join()
                    .map_err(|_panic| anyhow!("a client failed"))??,
            );
        }
        result.map(|()| seen)
    })
}
