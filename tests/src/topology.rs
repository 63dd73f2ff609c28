//! The stage of most scenarios: a gateway and two clients, each on a wire of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::netns::Netns;

/// A client on a veth pair to the gateway.
#[derive(Debug)]
pub struct Client {
    pub netns: Netns,
    /// Interface in the client's namespace.
    pub interface: String,
    /// Interface at the gateway's end.
    pub gateway_interface: String,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub gateway_v4: Ipv4Addr,
    pub gateway_v6: Ipv6Addr,
}

/// A pin path; what a killed daemon left there goes with it.
#[derive(Debug)]
pub struct Pins(PathBuf);

impl Pins {
    /// A pin path somewhere else than [`Topology::pins`].
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    #[must_use]
    pub fn path(&self) -> std::path::Display<'_> {
        self.0.display()
    }

    #[must_use]
    pub fn exist(&self) -> bool {
        self.0.exists()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if self.0.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.0)
        {
            eprintln!("pins are left behind in {}: {error}", self.path());
        }
    }
}

/// A gateway with two clients.
#[derive(Debug)]
pub struct Topology {
    pub gateway: Netns,
    pub first: Client,
    pub second: Client,
}

impl Topology {
    /// Where the daemon of this stage pins what it has in the kernel.
    #[must_use]
    pub fn pins(&self) -> Pins {
        Pins(PathBuf::from(format!(
            "/sys/fs/bpf/{}",
            self.gateway.name()
        )))
    }

    /// # Errors
    /// When `ip` fails.
    pub fn new() -> Result<Self> {
        let gateway = Netns::new("gw")?;
        let first = Client::new(&gateway, 1)?;
        let second = Client::new(&gateway, 2)?;
        Ok(Self {
            gateway,
            first,
            second,
        })
    }
}

impl Client {
    /// The client with this number, on the networks 10.77.`number`.0/24 and fd77:`number`::/64.
    fn new(gateway: &Netns, number: u8) -> Result<Self> {
        let netns = Netns::new(&format!("c{number}"))?;
        let client = Self {
            interface: "eth0".to_owned(),
            gateway_interface: format!("gw{number}"),
            v4: Ipv4Addr::new(10, 77, number, 2),
            v6: Ipv6Addr::new(0xfd77, number.into(), 0, 0, 0, 0, 0, 2),
            gateway_v4: Ipv4Addr::new(10, 77, number, 1),
            gateway_v6: Ipv6Addr::new(0xfd77, number.into(), 0, 0, 0, 0, 0, 1),
            netns,
        };
        client.join(gateway)?;
        Ok(client)
    }

    /// Makes the wire to the gateway (again).
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn join(&self, gateway: &Netns) -> Result<()> {
        let [inner, outer] = [self.interface.as_str(), self.gateway_interface.as_str()];
        gateway.ip(&[
            "link",
            "add",
            outer,
            "type",
            "veth",
            "peer",
            "name",
            inner,
            "netns",
            self.netns.name(),
        ])?;
        address(gateway, outer, self.gateway_v4, self.gateway_v6)?;
        address(&self.netns, inner, self.v4, self.v6)
    }

    /// Whether a connection to `port` of the gateway is made, by IPv4, on a machine however busy.
    ///
    /// # Errors
    /// When its namespace cannot be entered.
    pub fn let_in(&self, port: u16) -> Result<bool> {
        self.connects(port, Duration::from_secs(20))
    }

    /// Whether none is made before the client would ask again.
    ///
    /// # Errors
    /// As [`Client::let_in`].
    pub fn kept_out(&self, port: u16) -> Result<bool> {
        Ok(!self.connects(port, Duration::from_millis(300))?)
    }

    fn connects(&self, port: u16, patience: Duration) -> Result<bool> {
        let target = SocketAddr::new(self.gateway_v4.into(), port);
        self.netns
            .enter(|| Ok(TcpStream::connect_timeout(&target, patience).is_ok()))
    }

    /// The address of this client's family that the gateway has on its wire.
    #[must_use]
    pub fn gateway(&self, v6: bool) -> IpAddr {
        if v6 {
            self.gateway_v6.into()
        } else {
            self.gateway_v4.into()
        }
    }
}

fn address(netns: &Netns, interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    netns.ip(&["addr", "add", &format!("{v4}/24"), "dev", interface])?;
    netns.ip(&[
        "addr",
        "add",
        &format!("{v6}/64"),
        "dev",
        interface,
        "nodad",
    ])?;
    netns.ip(&["link", "set", interface, "up"])
}
