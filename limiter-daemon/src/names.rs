//! Addresses of hosts that are connected to by name: stores, services that are asked, endpoints of
//! which nothing is known yet.
//!
//! By `/etc/hosts` and the name servers of `/etc/resolv.conf`, and not by the C library: a static
//! executable has no modules of it (`/etc/nsswitch.conf`), and those of the machine may be of another
//! version.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For one lookup, over all name servers and families.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses of `host`, each with `port`; at least one. An address is its own.
///
/// # Errors
/// When there is no such name, it has no address, or nobody says so in 10 s.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = literal.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // Who stands in `/etc/hosts`, for one family or both, is not asked for elsewhere.
    let nobody = ResolverConfig::from_name_servers(Vec::new());
    let found = match ask(host, nobody, ResolverOpts::default()).await {
        Ok(found) => found,
        Err(_unlisted) => {
            let (servers, options) = read_system_conf().map_err(|error| failed(host, &error))?;
            timeout(TIMEOUT, ask(host, servers, options))
                .await
                .map_err(|_elapsed| io::Error::new(io::ErrorKind::TimedOut, late(host)))??
        }
    };
    let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
    if addresses.is_empty() {
        return Err(failed(host, &"it has no addresses"));
    }
    Ok(addresses)
}

/// `/etc/hosts`, then `servers`.
async fn ask(
    host: &str,
    servers: ResolverConfig,
    mut options: ResolverOpts,
) -> io::Result<LookupIp> {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Who asks connects, and keeps the connection.
    options.cache_size = 0;
    let provider = TokioRuntimeProvider::default();
    let resolver = TokioResolver::builder_with_config(servers, provider)
        .with_options(options)
        .build()
        .map_err(|error| failed(host, &error))?;
    let found = resolver.lookup_ip(host).await;
    found.map_err(|error| failed(host, &error))
}

/// A connection to the first address of `host` that takes one.
///
/// # Errors
/// As [`lookup`], and when none takes one.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    TcpStream::connect(&*lookup(host, port).await?).await
}

fn failed(host: &str, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{host}: {why}"))
}

fn late(host: &str) -> String {
    format!(
        "{host}: no name server answers within {} s",
        TIMEOUT.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[tokio::test]
    async fn addresses_are_their_own_and_localhost_is_known() {
        let of = async |host| lookup(host, 80).await.unwrap();
        assert_eq!(of("192.0.2.1").await, ["192.0.2.1:80".parse().unwrap()]);
        let six = ["[2001:db8::1]:80".parse().unwrap()];
        assert_eq!(of("2001:db8::1").await, six);
        assert_eq!(of("[2001:db8::1]").await, six);
        assert!(
            of("localhost")
                .await
                .iter()
                .all(|found| found.ip().is_loopback())
        );
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_is_named_in_the_error() {
        let error = lookup("not a name", 80).await.unwrap_err().to_string();
        assert!(error.contains("not a name"), "{error}");
    }
}
