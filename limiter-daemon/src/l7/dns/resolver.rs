//! One lookup: by `/etc/hosts` and the name servers of `/etc/resolv.conf`, over UDP, and TCP where an
//! answer is too long for it. What is known of a name is kept by [`super::set`], not here.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::timeout;

use super::Addresses;
use super::set::Question;
use crate::policy::plan::LookupFamily;

/// For one lookup, over all name servers and families.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The system's configuration is read again after so long, in nanoseconds.
const CONFIGURATION_AGE: u64 = 10_000_000_000;

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// As `/etc/hosts` and `/etc/resolv.conf` say, and search lists with it.
    System,
    /// This name server alone.
    Server(SocketAddr),
}

/// A name's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// In ascending order, at least one and at most [`Addresses::MAX`].
    pub(super) addresses: Vec<IpAddr>,
    /// The shortest of its records.
    pub(super) ttl: Duration,
    /// Addresses that were too many.
    pub(super) left_out: usize,
}

/// A lookup that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("there is no such name, or it has no addresses of the family that is looked for")]
    Empty,
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Late,
    #[error("{0}")]
    Failed(String),
}

/// Looks names up.
#[derive(Debug)]
pub(super) struct Lookups {
    source: Source,
    configuration: Mutex<Option<Configuration>>,
}

#[derive(Clone, Debug)]
struct Configuration {
    /// When it was read.
    at: u64,
    servers: ResolverConfig,
    options: ResolverOpts,
}

impl Lookups {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            configuration: Mutex::default(),
        }
    }

    /// `now` in nanoseconds.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn lookup(&self, question: &Question, now: u64) -> Result<Answer, Failure> {
        let Configuration {
            servers,
            mut options,
            ..
        } = self.configuration(now)?;
        options.ip_strategy = strategy(question.dns().family);
        // Nothing is cached twice.
        options.cache_size = 0;
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(servers, provider).with_options(options);
        let resolver = builder.build().map_err(failed)?;
        let found = timeout(TIMEOUT, resolver.lookup_ip(question.host())).await;
        let found = found.map_err(|_elapsed| Failure::Late)?.map_err(failed)?;
        let records = found.as_lookup().answers();
        let ttl = records.iter().map(|record| record.ttl).min();
        let mut all: BTreeSet<_> = found.iter().map(|ip| ip.to_canonical()).collect();
        let left_out = all.len().saturating_sub(Addresses::MAX);
        let addresses: Vec<_> = std::iter::from_fn(|| all.pop_first())
            .take(Addresses::MAX)
            .collect();
        if addresses.is_empty() {
            return Err(Failure::Empty);
        }
        Ok(Answer {
            addresses,
            ttl: Duration::from_secs(ttl.unwrap_or(0).into()),
            left_out,
        })
    }

    fn configuration(&self, now: u64) -> Result<Configuration, Failure> {
        let mut kept = self
            .configuration
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let fresh = kept
            .as_ref()
            .filter(|kept| now.saturating_sub(kept.at) < CONFIGURATION_AGE);
        if let Some(fresh) = fresh {
            return Ok(fresh.clone());
        }
        let (servers, options) = match self.source {
            Source::System => read_system_conf().map_err(failed)?,
            Source::Server(address) => only(address),
        };
        Ok(kept
            .insert(Configuration {
                at: now,
                servers,
                options,
            })
            .clone())
    }
}

/// This name server, and nothing else.
fn only(server: SocketAddr) -> (ResolverConfig, ResolverOpts) {
    let connection = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.into_iter().map(connection).collect();
    let servers = vec![NameServerConfig::new(server.ip(), true, connections)];
    let mut options = ResolverOpts::default();
    options.use_hosts_file = ResolveHosts::Never;
    (ResolverConfig::from_name_servers(servers), options)
}

const fn strategy(family: LookupFamily) -> LookupIpStrategy {
    match family {
        LookupFamily::Ipv4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        LookupFamily::Ipv6Preferred => LookupIpStrategy::Ipv6thenIpv4,
        LookupFamily::Ipv4 => LookupIpStrategy::Ipv4Only,
        LookupFamily::Ipv6 => LookupIpStrategy::Ipv6Only,
        LookupFamily::Ipv4AndIpv6 => LookupIpStrategy::Ipv4AndIpv6,
    }
}

fn failed(error: NetError) -> Failure {
    if error.is_no_records_found() {
        Failure::Empty
    } else {
        Failure::Failed(error.to_string())
    }
}
