//! Gateways whose clients are judged, and clients with addresses of their own.

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tests::daemon::{Daemon, Policies, binary, eventually};
use tests::metrics::Page;
use tests::netns::Netns;
use tests::policies::{config, network};
use tests::raw::Raw;
use tests::redis::envoy_gateway;
use tests::tls::{Authority, TlsClient};
use tests::topology::{Client, Pins, Topology};
use tests::upstream::{Upstream, response};

/// Listeners of every [`Gateway`]: without TLS, and with it.
pub(crate) const CLEAR: u16 = 8080;
pub(crate) const TLS: u16 = 8443;
/// For an answer that must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// For one that must not.
const SILENCE: Duration = Duration::from_millis(500);

/// What differs from gateway to gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// In `escalation`, in flow style.
    pub(crate) escalation: &'a str,
    /// More lines of the NetworkRateLimitPolicy's `spec`.
    pub(crate) network: &'a str,
    /// More listeners, as items of the Gateway's list.
    pub(crate) listeners: &'a str,
    /// More documents, each with its `---`.
    pub(crate) more: &'a str,
    /// URL of the store.
    pub(crate) store: Option<&'a str>,
    /// Whether the upstream is at the second client's address, and not on the gateway itself.
    pub(crate) remote_upstream: bool,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            escalation: "events: [{type: RateLimited}], threshold: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}, blockFor: 10m",
            network: "",
            listeners: "",
            more: "",
            store: None,
            remote_upstream: false,
        }
    }
}

/// A node whose kernel half is on the wires of two clients. Hosts: `limited.test` gives each address five
/// requests an hour, `shadow.test` would, and `open.test` gives as many as one likes. All go to an
/// upstream that answers with the status that the path states.
pub(crate) struct Gateway {
    pub(crate) topology: Topology,
    daemon: Option<Daemon>,
    policies: Policies,
    authority: Authority,
    _upstream: Upstream,
    _pins: Pins,
}

impl Gateway {
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self> {
        Self::on(Topology::new()?, setup)
    }

    /// The same on a stage that is there already.
    pub(crate) fn on(topology: Topology, setup: &Setup<'_>) -> Result<Self> {
        let pins = topology.pins();
        let authority = Authority::new()?;
        let (netns, upstream) = match setup.remote_upstream {
            true => (&topology.second.netns, topology.second.v4),
            false => (&topology.gateway, Ipv4Addr::LOCALHOST),
        };
        let answers = Upstream::start(netns, &format!("{upstream}:3000"), |seen, client| {
            let status = seen.line().rsplit('/').next().unwrap_or_default();
            let body = if status == "big" {
                "x".repeat(16 << 20)
            } else {
                String::new()
            };
            let status = status.parse().unwrap_or(200_u16);
            client.send(response(&format!("{status} So"), "", &body))?;
            Ok(true)
        })?;
        let interfaces = [&topology.first, &topology.second];
        let interfaces = interfaces.map(|client| client.gateway_interface.as_str());
        let Setup {
            escalation,
            network: more,
            listeners,
            more: documents,
            ..
        } = *setup;
        let policies = Policies::new(&[
            ("limiterd.yaml", &config(&interfaces, &pins, "Keep")),
            ("secret.yaml", &authority.secret("cert", "open.test")?),
            ("gateway.yaml", &gateway(listeners, upstream, documents)),
            ("network.yaml", &judged(escalation, more)),
        ])?;
        if let Some(url) = setup.store {
            policies.write("store.yaml", &envoy_gateway(url, "timeout: 20ms"))?;
        }
        let mut gateway = Self {
            topology,
            daemon: None,
            policies,
            authority,
            _upstream: answers,
            _pins: pins,
        };
        gateway.run()?;
        Ok(gateway)
    }

    /// Starts the daemon (again).
    pub(crate) fn run(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::start(self.netns(), self.policies.path())?);
        Ok(())
    }

    pub(crate) fn daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("it does not run")
    }

    pub(crate) fn take(&mut self) -> Result<Daemon> {
        self.daemon.take().context("it does not run")
    }

    /// Other terms, in force when it returns.
    pub(crate) fn judge_by(&self, escalation: &str) -> Result<()> {
        self.policies
            .write("network.yaml", &judged(escalation, ""))?;
        self.daemon()?.reload(self.netns()).map(drop)
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.topology.gateway
    }

    pub(crate) fn log(&self) -> Result<String> {
        Ok(self.daemon()?.process.output())
    }

    pub(crate) fn metrics(&self) -> Result<Page> {
        self.daemon()?.metrics(self.netns())
    }

    /// Times that somebody was over the threshold, by what became of it.
    pub(crate) fn decided(&self, result: &str) -> Result<f64> {
        let labels = [("policy", "default/edge"), ("result", result)];
        Ok(self
            .metrics()?
            .sum("limiterd_escalation_decisions_total", &labels))
    }

    /// Offences that counted.
    pub(crate) fn counted(&self) -> Result<f64> {
        let labels = [("policy", "default/edge")];
        Ok(self
            .metrics()?
            .sum("limiterd_escalation_offences_total", &labels))
    }

    /// Runs `limiterd` beside the daemon: whether it succeeded, and what it said.
    pub(crate) fn limiterd(&self, args: &[&str]) -> Result<(bool, String)> {
        let Output {
            status,
            stdout,
            stderr,
        } = self
            .netns()
            .enter(|| Ok(Command::new(binary()).args(args).output()?))?;
        let text = String::from_utf8(stdout)? + &String::from_utf8(stderr)?;
        Ok((status.success(), text))
    }

    /// Who is blocked.
    pub(crate) fn all_blocked(&self) -> Result<Vec<Value>> {
        let (well, text) = self.limiterd(&["blocked", "--json"])?;
        ensure!(well, "{text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// What `limiterd blocked` says of an address; `None`: it is not blocked.
    pub(crate) fn blocked(&self, address: Ipv4Addr) -> Result<Option<Value>> {
        let cidr = format!("{address}/32");
        let mut all = self.all_blocked()?;
        all.retain(|one| one["cidr"] == cidr);
        ensure!(all.len() < 2, "blocked twice: {all:?}");
        Ok(all.pop())
    }

    /// Waits until an address is blocked; what is said of it.
    pub(crate) fn until_blocked(&self, address: Ipv4Addr) -> Result<Value> {
        let found = eventually(&format!("{address} to be blocked"), || {
            self.blocked(address)
        });
        found.with_context(|| self.log().unwrap_or_default())
    }

    /// Waits until the daemon has logged a line with all these words.
    pub(crate) fn until_logged(&self, words: &[&str]) -> Result<String> {
        let found = eventually(&format!("{words:?} in the log"), || {
            let log = self.log()?;
            let line = log
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)));
            Ok(line.map(str::to_owned))
        });
        found.with_context(|| self.log().unwrap_or_default())
    }

    /// Packets that the kernel dropped for sentences.
    pub(crate) fn dropped(&self) -> Result<f64> {
        Ok(self.metrics()?.packets("default/edge", "sentenced"))
    }

    /// Somebody at an address of the first client's network, which is added to what the client has.
    pub(crate) fn neighbour(&self, last: u8) -> Result<Peer<'_>> {
        let client = &self.topology.first;
        let peer = self.known(last);
        let net = format!("{}/24", peer.address);
        client
            .netns
            .ip(&["addr", "add", &net, "dev", &client.interface])?;
        Ok(peer)
    }

    /// The same, who has the address already.
    pub(crate) fn known(&self, last: u8) -> Peer<'_> {
        let client = &self.topology.first;
        let [a, b, c, _] = client.v4.octets();
        self.peer(client, Ipv4Addr::new(a, b, c, last))
    }

    pub(crate) fn first(&self) -> Peer<'_> {
        self.peer(&self.topology.first, self.topology.first.v4)
    }

    pub(crate) fn second(&self) -> Peer<'_> {
        self.peer(&self.topology.second, self.topology.second.v4)
    }

    fn peer<'a>(&'a self, client: &'a Client, address: Ipv4Addr) -> Peer<'a> {
        Peer {
            netns: &client.netns,
            address,
            gateway: client.gateway_v4,
            authority: &self.authority,
        }
    }

    /// The gateway itself, which comes from and to this address of its own.
    pub(crate) fn itself(&self, address: Ipv4Addr) -> Peer<'_> {
        Peer {
            netns: self.netns(),
            address,
            gateway: address,
            authority: &self.authority,
        }
    }
}

/// Somebody at an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer<'a> {
    netns: &'a Netns,
    pub(crate) address: Ipv4Addr,
    gateway: Ipv4Addr,
    authority: &'a Authority,
}

impl Peer<'_> {
    fn connect(&self, port: u16, patience: Duration) -> Result<TcpStream> {
        let stream = self.netns.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(self.address.into(), 0).into())?;
            let target = SocketAddr::new(self.gateway.into(), port);
            socket.connect_timeout(&target.into(), patience)?;
            Ok(TcpStream::from(socket))
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub(crate) fn tcp(&self, port: u16) -> Result<TcpStream> {
        let stream = self.connect(port, PATIENCE);
        stream.with_context(|| format!("{} is not let in", self.address))
    }

    /// Whether nothing comes back for a connection attempt.
    pub(crate) fn is_dropped(&self, port: u16) -> Result<bool> {
        match self.connect(port, SILENCE) {
            Ok(_let_in) => Ok(false),
            Err(error) => {
                let silence = error.downcast_ref::<std::io::Error>();
                let silence = silence.is_some_and(|error| error.kind() == ErrorKind::TimedOut);
                ensure!(silence, "{error:#} is no silence");
                Ok(true)
            }
        }
    }

    /// A connection without TLS.
    pub(crate) fn clear(&self) -> Result<Raw> {
        Ok(Raw::on(self.tcp(CLEAR)?))
    }

    /// One with TLS.
    pub(crate) fn secure(&self) -> Result<TlsClient> {
        let config = self.authority.client(&["http/1.1"])?;
        let mut stream = self.tcp(TLS)?;
        let mut connection = tls(config)?;
        connection.complete_io(&mut stream)?;
        Ok(Raw::on(StreamOwned::new(connection, stream)))
    }

    /// The status of an answer to a request for a host on a connection of its own.
    pub(crate) fn get(&self, host: &str, path: &str) -> Result<u16> {
        let mut connection = self.clear()?;
        connection.send(request(host, path, ""))?;
        Ok(connection.answer()?.0)
    }

    /// The statuses of so many of them.
    pub(crate) fn statuses(&self, host: &str, path: &str, count: usize) -> Result<Vec<u16>> {
        (0..count).map(|_| self.get(host, path)).collect()
    }

    /// It is served on both listeners.
    pub(crate) fn is_served(&self) -> Result<()> {
        ensure!(self.get("open.test", "/")? == 200, "not served");
        let mut connection = self.secure()?;
        connection.send(request("open.test", "/", ""))?;
        ensure!(connection.answer()?.0 == 200, "not served");
        Ok(())
    }
}

/// A client of this configuration that asks for `open.test`.
pub(crate) fn tls(config: Arc<ClientConfig>) -> Result<ClientConnection> {
    Ok(ClientConnection::new(
        config,
        ServerName::try_from("open.test")?,
    )?)
}

/// A GET with these header lines, each with its `\r\n`.
pub(crate) fn request(host: &str, path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n")
}

/// Reads until the other end has closed.
pub(crate) fn until_closed(mut stream: &TcpStream) -> Result<()> {
    let mut taken = [0; 4096];
    loop {
        match stream.read(&mut taken) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => bail!("it is not closed: {error}"),
        }
    }
}

/// Text of a JSON field.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A ClientTrafficPolicy for a listener of the Gateway, with these lines in its `spec`.
pub(crate) fn for_clients(listener: &str, spec: &str) -> String {
    format!(
        "\
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: {listener}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: eg, sectionName: {listener}}}]
{spec}
"
    )
}

fn judged(escalation: &str, more: &str) -> String {
    network("edge", &format!("  escalation: {{{escalation}}}\n{more}"))
}

fn gateway(listeners: &str, upstream: Ipv4Addr, more: &str) -> String {
    let mut text = format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: eg}}
spec:
  gatewayClassName: limiterd
  listeners:
  - {{name: clear, protocol: HTTP, port: {CLEAR}}}
  - {{name: tls, protocol: HTTPS, port: {TLS}, tls: {{certificateRefs: [{{name: cert}}]}}}}
{listeners}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: demo}}
spec: {{endpoints: [{{ip: {{address: {upstream}, port: 3000}}}}]}}
"
    );
    let limit = |more| {
        let each = "clientSelectors: [{sourceCIDR: {type: Distinct, value: 0.0.0.0/0}}]";
        format!("local: {{rules: [{{{each}, limit: {{requests: 5, unit: Hour}}{more}}}]}}")
    };
    text += &tests::policies::limited_host("limited", &limit(""));
    text += &tests::policies::limited_host("shadow", &limit(", shadowMode: true"));
    text += &tests::policies::host_route("open");
    text + more
}
