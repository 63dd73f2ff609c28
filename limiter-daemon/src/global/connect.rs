//! Making connections to the store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, PushKind, RedisConnectionInfo, RedisError, RedisFuture, TlsCertificates,
};
use tokio::sync::Notify;

use super::sentinels::Sentinels;
use super::{command, flat};
use crate::names;
use crate::policy::plan::{Password, StoreAddress, StoreConfig, StoreHost, StoreTls};

/// For a connection, TLS, the greeting and the scripts.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// Requests that wait for their turn to be written.
const QUEUE: usize = 1024;

/// Makes connections with the same settings.
#[derive(Debug)]
pub(super) enum Connector {
    Direct(Box<Client>),
    /// Asks each time where the master is.
    Sentinels(Sentinels),
}

impl Connector {
    pub(super) fn new(config: &StoreConfig) -> Result<Self, RedisError> {
        let tls = config.tls.as_ref();
        let address = match &config.address {
            StoreAddress::Unix(path) => ConnectionAddr::Unix(path.clone()),
            StoreAddress::Tcp(host) => place(host, tls),
            StoreAddress::Cluster(_) => {
                return Err(RedisError::from((
                    ErrorKind::InvalidClientConfig,
                    "a cluster is no server",
                )));
            }
            StoreAddress::Sentinel {
                master,
                sentinels,
                login,
            } => {
                let sentinels = Sentinels::new(config, master, sentinels, login.as_ref())?;
                return Ok(Self::Sentinels(sentinels));
            }
        };
        Ok(Self::Direct(Box::new(client(
            address,
            settings(config),
            tls,
        )?)))
    }

    /// The master that Sentinels named last.
    pub(super) fn master(&self) -> Option<StoreHost> {
        match self {
            Self::Direct(_) => None,
            Self::Sentinels(sentinels) => sentinels.master(),
        }
    }

    /// Connects, and makes `scripts` known. `gone` is told when the connection has ended.
    pub(super) async fn connect(
        &self,
        scripts: &[&str],
        gone: Arc<Notify>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let master;
        let client = match self {
            Self::Direct(client) => client,
            Self::Sentinels(sentinels) => {
                master = sentinels.find().await?;
                &master
            }
        };
        let config = patient().set_pipeline_buffer_size(QUEUE).set_push_sender(
            move |push: redis::PushInfo| {
                if push.kind == PushKind::Disconnection {
                    gone.notify_one();
                }
                Ok::<_, std::convert::Infallible>(())
            },
        );
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        for script in scripts {
            let load = command("SCRIPT", &["LOAD", script]);
            flat(connection.send_packed_command(&load).await)?;
        }
        Ok(connection)
    }
}

/// For a connection of which nobody waits for an answer longer than he wants to.
pub(super) fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_dns_resolver(Names)
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(None)
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

/// # Errors
/// When the certificates are no good.
pub(super) fn client(
    address: ConnectionAddr,
    settings: RedisConnectionInfo,
    tls: Option<&StoreTls>,
) -> Result<Client, RedisError> {
    let info = address.into_connection_info()?.set_redis_settings(settings);
    match tls {
        None => Client::open(info),
        Some(tls) => Client::build_with_tls(info, certificates(tls)),
    }
}

/// For the server that counts.
pub(super) fn settings(config: &StoreConfig) -> RedisConnectionInfo {
    let password = config.password.as_ref();
    login(config.user.as_deref(), password).set_db(i64::from(config.database))
}

pub(super) fn login(user: Option<&str>, password: Option<&Password>) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name();
    if let Some(user) = user {
        settings = settings.set_username(user);
    }
    if let Some(password) = password {
        settings = settings.set_password(&password.0);
    }
    settings
}

pub(super) fn place(
    StoreHost { host, port }: &StoreHost,
    tls: Option<&StoreTls>,
) -> ConnectionAddr {
    if tls.is_some() {
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
