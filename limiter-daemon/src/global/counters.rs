//! The counts in the store, for those who look after them: listed, read, forgotten. Asked seldom and
//! by people, so on a connection of its own, and off the way of requests.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Inner, RedisLedger, Servers, command};

/// How long all of a question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys that a server looks at in one step of a listing, about.
const STEP: &str = "1000";
/// Steps of a listing at most, on each server: a million keys, about.
const STEPS: usize = 1_000;

/// A count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    pub key: String,
    /// As it lies there.
    pub value: String,
    /// Milliseconds until it is forgotten.
    pub expires_ms: Option<u64>,
}

/// Some of the counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub counts: Vec<Count>,
    /// There are more, or more was there than was looked at.
    pub more: bool,
}

/// Why the store says nothing.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    #[error("the store {0} does not answer within {PATIENCE:?}")]
    Late(String),
    #[error("the store {0} is a cluster of which no map is known yet")]
    NoMap(String),
    #[error("the store {0}: {1}")]
    Redis(String, RedisError),
}

impl RedisLedger {
    /// Counts whose key begins with `prefix` and is `wanted`, at most `most` of them, by key.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(
        &self,
        prefix: &str,
        wanted: fn(&str) -> bool,
        most: usize,
    ) -> Result<Counts, CountersError> {
        let listing = async {
            let mut found = Counts::default();
            for server in self.all_servers().await? {
                let mut connection = self.connect(&server).await?;
                self.scan(&mut connection, (prefix, wanted), most, &mut found)
                    .await?;
            }
            found.counts.sort_by(|one, two| one.key.cmp(&two.key));
            Ok(found)
        };
        self.in_time(listing).await
    }

    /// The value under `key`, and the server's time in nanoseconds since 1970.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn read(&self, key: &str) -> Result<(Option<String>, u64), CountersError> {
        self.in_time(async {
            let mut connection = self.connect_to(key).await?;
            let (seconds, micros): (u64, u64) = self.run(&mut connection, "TIME", &[]).await?;
            let value = self.run(&mut connection, "GET", &[key]).await?;
            Ok((value, seconds * 1_000_000_000 + micros * 1_000))
        })
        .await
    }

    /// Forgets the count under `key`; whether there was one.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn forget(&self, key: &str) -> Result<bool, CountersError> {
        self.in_time(async {
            let mut connection = self.connect_to(key).await?;
            let gone: u64 = self.run(&mut connection, "DEL", &[key]).await?;
            Ok(gone > 0)
        })
        .await
    }

    async fn scan(
        &self,
        connection: &mut MultiplexedConnection,
        (prefix, wanted): (&str, fn(&str) -> bool),
        most: usize,
        found: &mut Counts,
    ) -> Result<(), CountersError> {
        let pattern = format!("{}*", literally(prefix));
        let mut cursor = "0".to_owned();
        for _step in 0..STEPS {
            let arguments = [&*cursor, "MATCH", &pattern, "COUNT", STEP];
            let (next, keys): (String, Vec<Vec<u8>>) =
                self.run(connection, "SCAN", &arguments).await?;
            for key in keys
                .into_iter()
                .filter_map(|key| String::from_utf8(key).ok())
            {
                let seen = found.counts.iter().any(|one| one.key == key);
                if seen || !wanted(&key) || !self.is_string(connection, &key).await? {
                    continue;
                }
                if found.counts.len() >= most {
                    found.more = true;
                    return Ok(());
                }
                let value: Option<String> = self.run(connection, "GET", &[&key]).await?;
                let left: i64 = self.run(connection, "PTTL", &[&key]).await?;
                // It may have come to its end in between.
                if let Some(value) = value {
                    found.counts.push(Count {
                        key,
                        value,
                        expires_ms: u64::try_from(left).ok(),
                    });
                }
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
        found.more = true;
        Ok(())
    }

    /// Whether it can be a count: what the fleet keeps under the same prefix is of other types.
    async fn is_string(
        &self,
        connection: &mut MultiplexedConnection,
        key: &str,
    ) -> Result<bool, CountersError> {
        let kind: String = self.run(connection, "TYPE", &[key]).await?;
        Ok(kind == "string")
    }

    async fn run<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        name: &str,
        arguments: &[&str],
    ) -> Result<T, CountersError> {
        let asked = command(name, arguments);
        let answer = asked.query_async(connection).await;
        answer.map_err(|error| self.failed(error))
    }

    async fn all_servers(&self) -> Result<Vec<Arc<Inner>>, CountersError> {
        let servers = match &self.servers {
            Servers::One(inner) => return Ok(vec![Arc::clone(inner)]),
            Servers::Cluster(cluster) => cluster.masters().await,
        };
        servers.ok_or_else(|| CountersError::NoMap(self.address.clone()))
    }

    async fn connect_to(&self, key: &str) -> Result<MultiplexedConnection, CountersError> {
        let server = self.server_of(key).await;
        let server = server.ok_or_else(|| CountersError::NoMap(self.address.clone()))?;
        self.connect(&server).await
    }

    async fn connect(&self, server: &Inner) -> Result<MultiplexedConnection, CountersError> {
        // Whoever asks hears of its end by the answer.
        let connection = server.connector.connect(&[], Arc::new(Notify::new()));
        connection.await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: RedisError) -> CountersError {
        CountersError::Redis(self.address.clone(), error)
    }

    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, CountersError>>,
    ) -> Result<T, CountersError> {
        let answer = timeout(PATIENCE, asked).await;
        answer.unwrap_or_else(|_late| Err(CountersError::Late(self.address.clone())))
    }
}

/// A pattern that stands for `text` and nothing else.
fn literally(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_taken_literally() {
        assert_eq!(literally("limiterd:{a/b@"), "limiterd:{a/b@");
        assert_eq!(literally(r"a*?[x]\"), r"a\*\?\[x\]\\");
    }
}
