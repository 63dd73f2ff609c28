//! A daemon with a host for each treatment of backends.

use std::net::TcpStream;

use anyhow::{Context as _, Result};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::policies::{GATEWAY, treated_host};
use tests::raw::{Raw, header, tcp};
use tests::scene::Scene;

pub(crate) const PROXY: &str = "127.0.0.1:8080";

/// A host `NAME.test`, the ports of its backend, and the spec of its policy.
pub(crate) type Treated<'a> = (&'a str, &'a [u16], &'a str);

/// Starts the daemon for these hosts.
pub(crate) fn stage(netns: Netns, hosts: &[Treated<'_>]) -> Result<Scene> {
    let hosts: String = hosts
        .iter()
        .map(|(name, ports, spec)| treated_host(name, ports, spec))
        .collect();
    Scene::start(netns, &[("gateway.yaml", GATEWAY), ("hosts.yaml", &hosts)])
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Told {
    /// A header; empty if it is absent.
    pub(crate) fn header(&self, name: &str) -> String {
        header(&self.head, name)
    }

    pub(crate) fn is_overloaded(&self) -> bool {
        self.status == 503 && self.header("x-envoy-overloaded") == "true"
    }
}

/// The answer that comes next on a connection.
pub(crate) fn told(client: &mut Raw) -> Result<Told> {
    let (status, head, body) = client.answer()?;
    Ok(Told { status, head, body })
}

/// One of the hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) name: &'a str,
}

impl<'a> Host<'a> {
    pub(crate) const fn new(scene: &'a Scene, name: &'a str) -> Self {
        Self { scene, name }
    }

    /// A connection to the proxy.
    pub(crate) fn connect(&self) -> Result<Raw<TcpStream>> {
        Ok(Raw::on(tcp(&self.scene.netns, PROXY)?))
    }

    /// The bytes of a request; `headers`: each with its `\r\n`.
    pub(crate) fn request(&self, line: &str, headers: &str, body: &str) -> String {
        let length = match body.len() {
            0 => String::new(),
            length => format!("content-length: {length}\r\n"),
        };
        let name = self.name;
        format!("{line} HTTP/1.1\r\nhost: {name}.test\r\n{headers}{length}\r\n{body}")
    }

    /// Sends a request on a connection of its own, and leaves it.
    pub(crate) fn send(&self, line: &str, headers: &str, body: &str) -> Result<Raw<TcpStream>> {
        let mut client = self.connect()?;
        client.send(self.request(line, headers, body))?;
        Ok(client)
    }

    /// Sends a request and waits for the answer.
    pub(crate) fn ask(&self, line: &str, headers: &str, body: &str) -> Result<Told> {
        told(&mut self.send(line, headers, body)?)
    }

    pub(crate) fn get(&self) -> Result<Told> {
        self.ask("GET /", "", "")
    }

    /// A metric of the backend: `envoy_cluster_NAME`.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let cluster = format!("default/{}", self.name);
        let labels = [("envoy_cluster_name", cluster.as_str())];
        let page = self.scene.metrics()?;
        Ok(page.sum(&format!("envoy_cluster_{name}"), &labels))
    }

    /// Waits until a metric of the backend is `wanted`.
    pub(crate) fn becomes(&self, name: &str, wanted: u32) -> Result<()> {
        let wanted = f64::from(wanted);
        let mut seen = f64::NAN;
        eventually("a metric", || {
            seen = self.metric(name)?;
            Ok((seen == wanted).then_some(()))
        })
        .with_context(|| format!("{name} of {} is {seen}, not {wanted}", self.name))
    }

    /// Asserts what metrics of the backend are now.
    #[track_caller]
    pub(crate) fn expect(&self, wanted: &[(&str, u32)]) {
        for (name, wanted) in wanted {
            let seen = self.metric(name).expect("metrics");
            assert_eq!(seen, f64::from(*wanted), "{name} of {}", self.name);
        }
    }

    /// Waits until nothing is under way to the backend, and nothing of what requests take is lost.
    pub(crate) fn rests(&self) -> Result<()> {
        for gauge in [
            "upstream_rq_active",
            "upstream_rq_pending_active",
            "upstream_rq_retry_active",
        ] {
            self.becomes(gauge, 0)?;
        }
        self.becomes("circuit_breakers_default_rq_open", 0)
    }
}
