//! Making connections to the store.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo,
    ProtocolVersion, PushKind, RedisConnectionInfo, RedisError, TlsCertificates,
};
use tokio::sync::Notify;

use super::{command, flat};
use crate::policy::plan::{StoreAddress, StoreConfig};

/// For a connection, TLS, the greeting and the scripts.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// Requests that wait for their turn to be written.
const QUEUE: usize = 1024;

/// Makes connections with the same settings.
#[derive(Debug)]
pub(super) struct Connector {
    client: Client,
}

impl Connector {
    pub(super) fn new(config: &StoreConfig) -> Result<Self, RedisError> {
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
        let address = match (&config.address, &config.tls) {
            (StoreAddress::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
            (StoreAddress::Tcp { host, port }, None) => ConnectionAddr::Tcp(host.clone(), *port),
            (StoreAddress::Tcp { host, port }, Some(_)) => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            },
        };
        let info = address.into_connection_info()?.set_redis_settings(settings);
        let client = match &config.tls {
            None => Client::open(info)?,
            Some(tls) => {
                let certificates = TlsCertificates {
                    client_tls: tls.certificate.as_ref().map(|ours| ClientTlsConfig {
                        client_cert: ours.chain.0.clone(),
                        client_key: ours.key.0.clone(),
                    }),
                    root_cert: tls.authorities.as_ref().map(|pem| pem.0.clone()),
                };
                Client::build_with_tls(info, certificates)?
            }
        };
        Ok(Self { client })
    }

    /// Connects, and makes `scripts` known. `gone` is told when the connection has ended.
    pub(super) async fn connect(
        &self,
        scripts: &[&str],
        gone: Arc<Notify>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
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
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        for script in scripts {
            let load = command("SCRIPT", &["LOAD", script]);
            flat(connection.send_packed_command(&load).await)?;
        }
        Ok(connection)
    }
}
