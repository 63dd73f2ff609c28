//! The store that nodes share, which counts global limits.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{Certificate, OnStoreFailure, Pem};

/// A Redis or Valkey (6 or later: RESP3), and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    pub address: StoreAddress,
    /// `None`: the user `default`.
    pub user: Option<String>,
    pub password: Option<Password>,
    /// Number of the database.
    pub database: u32,
    /// Never beside a Unix socket.
    pub tls: Option<StoreTls>,
    /// What a decision may wait for it at most, 1 ms to 60 s.
    pub budget: Duration,
    /// What its keys begin with.
    pub prefix: String,
    /// Of rules that do not say.
    pub on_failure: OnStoreFailure,
    /// Keys over their limit that a node remembers; 0: none.
    pub over_limit_memory: usize,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAddress {
    Tcp(StoreHost),
    Unix(PathBuf),
    /// The master of this name, wherever these Sentinels say that it is.
    Sentinel {
        master: String,
        /// Never empty.
        sentinels: Vec<StoreHost>,
        /// How Sentinels are logged in at; `None`: not at all.
        login: Option<SentinelLogin>,
    },
    /// A Redis Cluster that these are servers of.
    Cluster(
        /// Never empty.
        Vec<StoreHost>,
    ),
}

/// Of Sentinels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelLogin {
    /// `None`: the user `default`.
    pub user: Option<String>,
    pub password: Password,
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreHost {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for StoreHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => host.fmt(f),
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Sentinel {
                master, sentinels, ..
            } => {
                f.write_str(master)?;
                sentinels.iter().try_for_each(|host| write!(f, ",{host}"))
            }
            Self::Cluster(hosts) => hosts.iter().enumerate().try_for_each(|(index, host)| {
                let comma = if index == 0 { "" } else { "," };
                write!(f, "{comma}{host}")
            }),
        }
    }
}

/// How it is known, and how it knows us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreTls {
    /// Who vouches for it; `None`: the system's authorities.
    pub authorities: Option<Pem>,
    /// Ours.
    pub certificate: Option<Certificate>,
}

/// Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}
