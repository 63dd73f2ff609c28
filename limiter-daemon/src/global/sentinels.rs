//! Where the master is, by the Sentinels that watch it.
//!
//! As their clients do
//! (<https://redis.io/docs/latest/develop/reference/sentinel-clients/>), but that all are asked at
//! once: one that swallows what it is asked keeps nobody waiting. The first server that one of them
//! names, and that takes itself for the master, is it. The client of `redis` has the C library look
//! their names up ([`crate::names`] says why not to).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{Client, ErrorKind, RedisError, Role};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::command;
use super::connect::{client, login, patient, place, settings};
use crate::policy::plan::{SentinelLogin, StoreConfig, StoreHost};

/// For what one of them says, and whether it is so: half of what connecting may take.
const ASK: Duration = Duration::from_secs(1);

/// Sentinels, and whom they are asked for.
#[derive(Debug)]
pub(super) struct Sentinels {
    sentinels: Vec<(StoreHost, Client)>,
    /// Of the master, with how it is spoken to.
    name: String,
    config: Box<StoreConfig>,
    /// What they said last.
    master: Mutex<Option<StoreHost>>,
}

impl Sentinels {
    /// # Errors
    /// When the certificates are no good.
    pub(super) fn new(
        config: &StoreConfig,
        name: &str,
        hosts: &[StoreHost],
        as_user: Option<&SentinelLogin>,
    ) -> Result<Self, RedisError> {
        let tls = config.tls.as_ref();
        let sentinels = hosts.iter().map(|host| {
            let user = as_user.and_then(|login| login.user.as_deref());
            let settings = login(user, as_user.map(|login| &login.password));
            Ok((host.clone(), client(place(host, tls), settings, tls)?))
        });
        Ok(Self {
            sentinels: sentinels.collect::<Result<_, RedisError>>()?,
            name: name.to_owned(),
            config: Box::new(config.clone()),
            master: Mutex::default(),
        })
    }

    /// The master that was found last.
    pub(super) fn master(&self) -> Option<StoreHost> {
        let master = self.master.lock().unwrap_or_else(PoisonError::into_inner);
        master.clone()
    }

    /// A client of the master.
    ///
    /// # Errors
    /// When none of them knows it, in a second: what each said.
    pub(super) async fn find(&self) -> Result<Client, RedisError> {
        let mut asked = JoinSet::new();
        for (host, sentinel) in &self.sentinels {
            let (host, sentinel) = (host.clone(), sentinel.clone());
            let (name, config) = (self.name.clone(), self.config.clone());
            asked.spawn(async move {
                let found = timeout(ASK, ask(&sentinel, &name, &config)).await;
                let found = found.unwrap_or(Err(Lost::Silent));
                found.map_err(|why| format!("{host}: {why}"))
            });
        }
        let mut said = Vec::new();
        while let Some(found) = asked.join_next().await {
            match found {
                Ok(Ok((host, client))) => {
                    let mut master = self.master.lock().unwrap_or_else(PoisonError::into_inner);
                    *master = Some(host);
                    return Ok(client);
                }
                Ok(Err(why)) => said.push(why),
                Err(ended) => said.push(ended.to_string()),
            }
        }
        said.sort();
        let kind = ErrorKind::MasterNameNotFoundBySentinel;
        Err((kind, "no Sentinel leads to the master", said.join("; ")).into())
    }
}

/// Why one leads nowhere.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("no answer")]
    Silent,
    #[error("it knows no master `{0}`")]
    Unknown(String),
    #[error("it takes the master for down")]
    Down,
    #[error("{0}, which it names, is not the master")]
    Replica(StoreHost),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// What one says.
async fn ask(
    sentinel: &Client,
    name: &str,
    config: &StoreConfig,
) -> Result<(StoreHost, Client), Lost> {
    let patient = patient();
    let mut connection = sentinel
        .get_multiplexed_async_connection_with_config(&patient)
        .await?;
    let masters: Vec<HashMap<String, String>> = command("SENTINEL", &["MASTERS"])
        .query_async(&mut connection)
        .await?;
    let named = masters
        .iter()
        .find(|master| master.get("name").is_some_and(|known| known == name))
        .ok_or_else(|| Lost::Unknown(name.to_owned()))?;
    let master = alive(named).ok_or(Lost::Down)?;
    let tls = config.tls.as_ref();
    let client = client(place(&master, tls), settings(config), tls)?;
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&patient)
        .await?;
    match command("ROLE", &[]).query_async(&mut connection).await? {
        Role::Primary { .. } => Ok((master, client)),
        _ => Err(Lost::Replica(master)),
    }
}

/// Where a master is, unless the Sentinel takes it for down (`s_down`: by itself, `o_down`: with the
/// others).
fn alive(named: &HashMap<String, String>) -> Option<StoreHost> {
    let mut flags = named.get("flags")?.split(',');
    if flags.any(|flag| matches!(flag, "s_down" | "o_down")) {
        return None;
    }
    Some(StoreHost {
        host: named.get("ip")?.clone(),
        port: named.get("port")?.parse().ok()?,
    })
}
