//! Making connections to the store.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, PushKind, RedisConnectionInfo, RedisError, RedisFuture, TlsCertificates,
    TlsMode,
};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::guard::jitter;
use super::{command, flat};
use crate::names;
use crate::policy::plan::{StoreAddress, StoreConfig, StoreHost, StoreTls};

/// For a connection, TLS, the greeting and the scripts.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// Requests that wait for their turn to be written.
const QUEUE: usize = 1024;

/// Makes connections with the same settings.
#[derive(Debug)]
pub(super) enum Connector {
    Direct(Box<Client>),
    /// Asks Sentinels each time where the master is.
    Sentinel {
        config: Box<StoreConfig>,
        /// What they said last.
        master: Mutex<Option<StoreHost>>,
    },
}

impl Connector {
    pub(super) fn new(config: &StoreConfig) -> Result<Self, RedisError> {
        let address = match &config.address {
            StoreAddress::Unix(path) => ConnectionAddr::Unix(path.clone()),
            StoreAddress::Tcp(host) => place(host, config.tls.is_some()),
            StoreAddress::Cluster(_) => {
                return Err(RedisError::from((
                    ErrorKind::InvalidClientConfig,
                    "a cluster is no server",
                )));
            }
            StoreAddress::Sentinel { .. } => {
                // So that what is wrong is said at the start.
                sentinels(config)?;
                return Ok(Self::Sentinel {
                    config: Box::new(config.clone()),
                    master: Mutex::default(),
                });
            }
        };
        let info = address
            .into_connection_info()?
            .set_redis_settings(settings(config));
        Ok(Self::Direct(Box::new(match &config.tls {
            None => Client::open(info)?,
            Some(tls) => Client::build_with_tls(info, certificates(tls))?,
        })))
    }

    /// The master that Sentinels named last.
    pub(super) fn master(&self) -> Option<StoreHost> {
        match self {
            Self::Direct(_) => None,
            Self::Sentinel { master, .. } => {
                let master = master.lock().unwrap_or_else(PoisonError::into_inner);
                master.clone()
            }
        }
    }

    /// Connects, and makes `scripts` known. `gone` is told when the connection has ended.
    pub(super) async fn connect(
        &self,
        scripts: &[&str],
        gone: Arc<Notify>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_dns_resolver(Names)
            .set_connection_timeout(Some(CONNECT))
            // Who asks has a budget.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE)
            .set_push_sender(move |push: redis::PushInfo| {
                if push.kind == PushKind::Disconnection {
                    gone.notify_one();
                }
                Ok::<_, std::convert::Infallible>(())
            });
        let mut connection = match self {
            Self::Direct(client) => {
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?
            }
            Self::Sentinel {
                config: settings,
                master,
            } => {
                let settings = by_address(settings).await;
                let client = sentinels(&settings)?.async_get_client().await?;
                if let ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } =
                    client.get_connection_info().addr()
                {
                    let (host, port) = (host.clone(), *port);
                    let mut master = master.lock().unwrap_or_else(PoisonError::into_inner);
                    *master = Some(StoreHost { host, port });
                }
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?
            }
        };
        for script in scripts {
            let load = command("SCRIPT", &["LOAD", script]);
            flat(connection.send_packed_command(&load).await)?;
        }
        Ok(connection)
    }
}

/// Resolves names for the client, which would have the C library do it.
struct Names;

impl AsyncDNSResolver for Names {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = names::lookup(host, port).await?;
            let found: Box<dyn Iterator<Item = SocketAddr> + Send> = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

fn settings(config: &StoreConfig) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(i64::from(config.database))
        .set_skip_set_lib_name();
    if let Some(user) = &config.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &config.password {
        settings = settings.set_password(&password.0);
    }
    settings
}

fn place(StoreHost { host, port }: &StoreHost, tls: bool) -> ConnectionAddr {
    if tls {
        ConnectionAddr::TcpTls {
            host: host.clone(),
            port: *port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(host.clone(), *port)
    }
}

fn certificates(tls: &StoreTls) -> TlsCertificates {
    TlsCertificates {
        client_tls: tls.certificate.as_ref().map(|ours| ClientTlsConfig {
            client_cert: ours.chain.0.clone(),
            client_key: ours.key.0.clone(),
        }),
        root_cert: tls.authorities.as_ref().map(|pem| pem.0.clone()),
    }
}

/// With the addresses of the Sentinels in place of their names, as far as they are known: the client
/// would have the C library look them up. With TLS names stay, for certificates are about names.
async fn by_address(config: &StoreConfig) -> StoreConfig {
    let mut config = config.clone();
    let StoreAddress::Sentinel { sentinels, .. } = &mut config.address else {
        return config;
    };
    if config.tls.is_some() {
        return config;
    }
    let mut found = Vec::new();
    for StoreHost { host, port } in sentinels.iter() {
        match timeout(CONNECT, names::lookup(host, *port)).await {
            Ok(Ok(addresses)) => found.extend(addresses.iter().map(|address| StoreHost {
                host: address.ip().to_string(),
                port: address.port(),
            })),
            Ok(Err(_)) | Err(_) => tracing::debug!(host, "a Sentinel's address is not known"),
        }
    }
    if !found.is_empty() {
        *sentinels = found;
    }
    config
}

/// The Sentinels, beginning with any of them: one that swallows what it is asked must not keep the
/// others from being asked.
fn sentinels(config: &StoreConfig) -> Result<SentinelClient, RedisError> {
    let StoreAddress::Sentinel {
        master,
        sentinels,
        login,
    } = &config.address
    else {
        return Err(RedisError::from((
            ErrorKind::InvalidClientConfig,
            "no Sentinel",
        )));
    };
    let tls = config.tls.is_some();
    let mut places: Vec<_> = sentinels.iter().map(|host| place(host, tls)).collect();
    let first = usize::try_from(jitter()).unwrap_or(0) % places.len().max(1);
    places.rotate_left(first);
    let mut builder = SentinelClientBuilder::new(places, master, SentinelServerType::Master)?
        .set_client_to_redis_protocol(ProtocolVersion::RESP3)
        .set_client_to_redis_db(i64::from(config.database));
    if let Some(user) = &config.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &config.password {
        builder = builder.set_client_to_redis_password(&password.0);
    }
    if let Some(login) = login {
        builder = builder.set_client_to_sentinel_password(&login.password.0);
        if let Some(user) = &login.user {
            builder = builder.set_client_to_sentinel_username(user);
        }
    }
    if let Some(tls) = &config.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates(tls))
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates(tls));
    }
    builder.build()
}
